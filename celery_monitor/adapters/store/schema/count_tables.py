"""Counts of tasks: totals, and by time."""

from typing import Final

from sqlalchemy import BigInteger, Column, Double, Index, Table, text

from celery_monitor.adapters.store.schema.columns import (
    count_columns,
    metadata,
    number_column,
    real_column,
    text_column,
)

series: Final = Table(
    "series",
    metadata,
    text_column("name", key=True),
    text_column("queue", key=True),
    text_column("host", key=True),
    *count_columns(),
    text_column("exceptions"),
    text_column("runtime"),
    real_column("runtime_sum"),
    text_column("wait"),
    real_column("wait_sum"),
    Column("rank", BigInteger, nullable=False, server_default="0"),
    Index("ix_series_rank", "rank"),
)
"""``runtime`` and ``wait``: JSON of [bounds, counts]. Their sums have columns, because JSON has no infinity."""

buckets: Final = Table(
    "buckets",
    metadata,
    number_column("start", key=True),
    text_column("name", key=True),
    text_column("queue", key=True),
    *count_columns(),
    real_column("runtime_sum"),
    number_column("runtime_count"),
    sqlite_with_rowid=False,
)

HAS_FAILURES: Final = buckets.c.failed > text("0")

failing_buckets: Final = Index(
    "ix_buckets_failed",
    buckets.c.start,
    buckets.c.name,
    buckets.c.failed,
    sqlite_where=HAS_FAILURES,
    postgresql_where=HAS_FAILURES,
)
"""Finds the buckets with failures without reading the others, which are the majority."""

fleet_buckets: Final = Table(
    "fleet_buckets",
    metadata,
    number_column("start", key=True),
    *count_columns(),
    real_column("runtime_sum"),
    number_column("runtime_count"),
    sqlite_with_rowid=False,
)
"""The sums of ``buckets`` over all tasks: see ``totals``."""

task_totals: Final = Table(
    "task_totals",
    metadata,
    text_column("name", key=True),
    text_column("queue", key=True),
    *count_columns(),
    real_column("runtime_sum"),
    number_column("runtime_count"),
    Column("last_failure_at", Double),
    sqlite_with_rowid=False,
)
"""The sums of ``buckets``: see ``totals``."""
