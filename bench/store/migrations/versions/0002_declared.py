"""What a command declared before it ran."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("bench_commands", schema=None) as batch_op:
        batch_op.add_column(sa.Column("declared", sa.JSON(), nullable=True))
