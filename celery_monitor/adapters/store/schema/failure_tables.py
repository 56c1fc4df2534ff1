"""Failures and their groups."""

from typing import Final

from sqlalchemy import Column, Index, Table, Text

from celery_monitor.adapters.store.schema.columns import RowId, metadata, number_column, real_column, text_column

error_groups: Final = Table(
    "error_groups",
    metadata,
    text_column("id", key=True),
    text_column("name"),
    text_column("exception"),
    text_column("frame"),
    real_column("first_at"),
    real_column("last_at"),
    Index("ix_error_groups_last_at", "last_at"),
)

error_buckets: Final = Table(
    "error_buckets",
    metadata,
    number_column("start", key=True),
    text_column("group", key=True),
    number_column("count"),
    Index("ix_error_buckets_group", "group", "start", "count").ddl_if(dialect="sqlite"),
    sqlite_with_rowid=False,
)

failures: Final = Table(
    "failures",
    metadata,
    Column("id", RowId, primary_key=True),
    text_column("uuid"),
    text_column("name"),
    text_column("queue"),
    text_column("hostname"),
    real_column("at"),
    text_column("exception"),
    text_column("message"),
    text_column("traceback"),
    text_column("group"),
    Column("incident", Text),
    text_column("reason"),
    Column("args", Text),
    Column("kwargs", Text),
    Index("ix_failures_at", "at", "id"),
    Index("ix_failures_name", "name", "at", "id"),
    Index("ix_failures_exception", "exception", "at", "id"),
    Index("ix_failures_hostname", "hostname", "at", "id"),
    Index("ix_failures_reason", "reason", "at", "id"),
    Index("ix_failures_uuid", "uuid"),
    Index("ix_failures_group", "group", "id"),
    sqlite_autoincrement=True,
)
"""The newest samples of each group, in the order in which they were received (``id``)."""
