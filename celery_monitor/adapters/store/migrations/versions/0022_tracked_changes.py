"""Changes of the tasks under way as a journal, and ended tasks without an index of their ids."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.create_table(
        "tracked_changes",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.drop_index("ix_ended_tasks_uuid", "ended_tasks")
