import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade():
    op.add_column("entries", sa.Column("half", sa.Text))
    op.execute("select nonsense")


def downgrade():
    op.drop_column("entries", "half")
