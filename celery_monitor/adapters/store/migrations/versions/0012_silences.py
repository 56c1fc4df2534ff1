"""Stores silences."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_SORTED = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "silences",
        sa.Column("id", _SORTED, primary_key=True),
        sa.Column("match", _SORTED, nullable=False),
        sa.Column("queues", _SORTED, nullable=False),
        sa.Column("reason", _SORTED, nullable=False),
        sa.Column("starts_at", sa.Double, nullable=False),
        sa.Column("ends_at", sa.Double, nullable=False),
        sa.Column("created_by", _SORTED, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_silences_ends_at", "silences", ["ends_at"])
