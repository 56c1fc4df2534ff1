"""Stores when each schedule was due and when it ran."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_SORTED = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("name", _SORTED, primary_key=True),
        sa.Column("body", _SORTED, nullable=False),
        sqlite_with_rowid=False,
    )
