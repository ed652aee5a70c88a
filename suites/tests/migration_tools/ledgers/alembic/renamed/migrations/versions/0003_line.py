from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade():
    op.alter_column("entries", "text", new_column_name="line")


def downgrade():
    op.alter_column("entries", "line", new_column_name="text")
