"""Adds the journal of unfinished tasks, and drops the index of ended tasks by ID."""

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
