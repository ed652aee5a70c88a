import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.create_table("entries", sa.Column("text", sa.Text, primary_key=True))


def downgrade():
    op.drop_table("entries")
