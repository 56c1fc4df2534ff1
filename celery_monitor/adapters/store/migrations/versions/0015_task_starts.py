"""Stores the newest starts of each task, to find tasks that run regularly."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_SORTED = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "task_starts",
        sa.Column("name", _SORTED, primary_key=True),
        sa.Column("body", _SORTED, nullable=False),
        sqlite_with_rowid=False,
    )
