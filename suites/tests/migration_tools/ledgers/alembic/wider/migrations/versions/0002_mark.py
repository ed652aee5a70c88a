import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.add_column("entries", sa.Column("mark", sa.Text, nullable=False, server_default="wider"))


def downgrade():
    op.drop_column("entries", "mark")
