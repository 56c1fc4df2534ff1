"""Run and wait times by hour, and lengths of queues."""

from typing import Final

from sqlalchemy import Boolean, Column, Index, Table

from celery_monitor.adapters.store.schema.columns import RowId, metadata, number_column, text_column

checkpoints: Final = Table(
    "checkpoints",
    metadata,
    Column("id", RowId, primary_key=True),
    text_column("name"),
    text_column("queue"),
    text_column("host"),
    number_column("start"),
    text_column("runtime"),
    text_column("wait"),
    Column("last", Boolean, nullable=False),
    Index("ix_checkpoints_name", "name", "start"),
    sqlite_autoincrement=True,
)
"""The histograms of series at the start of their hours, in order (``id``). ``runtime``, ``wait``: JSON of the cells."""

queue_lengths: Final = Table(
    "queue_lengths",
    metadata,
    number_column("start", key=True),
    text_column("queue", key=True),
    number_column("looks"),
    number_column("total"),
    number_column("longest"),
    sqlite_with_rowid=False,
)
