"""Stores run and wait times by hour, and lengths of queues by quarter of an hour."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"

_SORTED = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("id", _ROW_ID, primary_key=True),
        sa.Column("name", _SORTED, nullable=False),
        sa.Column("queue", _SORTED, nullable=False),
        sa.Column("host", _SORTED, nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("runtime", _SORTED, nullable=False),
        sa.Column("wait", _SORTED, nullable=False),
        sa.Column("last", sa.Boolean, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_checkpoints_name", "checkpoints", ["name", "start"])
    op.create_table(
        "queue_lengths",
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("queue", _SORTED, primary_key=True),
        sa.Column("looks", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("longest", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
