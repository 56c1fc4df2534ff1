"""Stores the sums of all tasks by bucket, and adds indexes of failing buckets and for sorting failures."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

_COUNTS = ("sent", "received", "started", "succeeded", "failed", "retried", "rejected", "revoked", "runtime_count")


def upgrade() -> None:
    op.create_table(
        "fleet_buckets",
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS[:-1]),
        sa.Column("runtime_sum", sa.Double, nullable=False),
        sa.Column("runtime_count", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    columns = ("start", *_COUNTS, "runtime_sum")
    buckets = sa.table("buckets", *map(sa.column, columns))
    sums = [sa.cast(sa.func.sum(buckets.c[name]), sa.BigInteger) for name in _COUNTS]
    found = sa.select(buckets.c.start, *sums, sa.func.sum(buckets.c.runtime_sum)).group_by(buckets.c.start)
    op.execute(sa.insert(sa.table("fleet_buckets", *map(sa.column, columns))).from_select(columns, found))
    failing = sa.text("failed > 0")
    op.create_index(
        "ix_buckets_failed", "buckets", ["start", "name", "failed"], sqlite_where=failing, postgresql_where=failing
    )
    op.create_index("ix_failures_hostname", "failures", ["hostname", "at", "id"])
    op.create_index("ix_failures_reason", "failures", ["reason", "at", "id"])
