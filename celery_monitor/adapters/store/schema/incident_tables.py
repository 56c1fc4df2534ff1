"""Incidents, their notifications, and silences."""

from typing import Final

from sqlalchemy import BigInteger, Column, Double, Index, Table, Text, text

from celery_monitor.adapters.store.schema.columns import RowId, metadata, number_column, real_column, text_column

incidents: Final = Table(
    "incidents",
    metadata,
    text_column("key", key=True),
    text_column("state"),
    real_column("opened_at"),
    real_column("first_at"),
    text_column("body"),
    Index("ix_incidents_state", "state", "opened_at"),
    Index("ix_incidents_first_at", "first_at"),
)
"""``body``: JSON of the Incident."""

deliveries: Final = Table(
    "deliveries",
    metadata,
    text_column("key", key=True),
    text_column("channel", key=True),
    text_column("state"),
    number_column("attempts"),
    Column("error", Text),
    Column("delivered_at", Double),
    number_column("delivered_count"),
    Column("receipt", Text),
    sqlite_with_rowid=False,
)
"""The state of an incident's notifications on each channel: see ChannelDelivery. ``key``: the incident's."""

silences: Final = Table(
    "silences",
    metadata,
    text_column("id", key=True),
    text_column("match"),
    text_column("queues"),
    text_column("reason"),
    real_column("starts_at"),
    real_column("ends_at"),
    text_column("created_by"),
    Index("ix_silences_ends_at", "ends_at"),
    sqlite_with_rowid=False,
)
"""``match`` and ``queues``: JSON of the globs. Written by people, not by flushes."""

outbox: Final = Table(
    "outbox",
    metadata,
    Column("id", RowId, primary_key=True),
    text_column("channel"),
    text_column("key"),
    text_column("action"),
    text_column("route"),
    number_column("revision"),
    number_column("attempts"),
    real_column("created_at"),
    real_column("due_at"),
    real_column("refreshed_due_at"),
    text_column("state"),
    Column("error", Text),
    Column("delivered_at", Double),
    Column("priority", BigInteger, nullable=False, server_default=text("1")),
    Column("at", Double, nullable=False, server_default=text("0")),
    Column("progress", Text),
    Index("ix_outbox_state", "state", "id"),
    Index("ix_outbox_key", "key"),
    Index("ix_outbox_delivered", "channel", "delivered_at"),
    sqlite_autoincrement=True,
)
"""``refreshed_due_at``: ``due_at`` of the newest refresh, for a row that was refreshed while it was being delivered.
``state``: pending, delivered, dead, or unknown. ``progress``: text that the sender stores with the row."""

PENDING: Final = outbox.c.state == text("'pending'")

next_to_send: Final = Index(
    "ix_outbox_next",
    outbox.c.channel,
    outbox.c.route,
    outbox.c.priority,
    outbox.c.at,
    outbox.c.id,
    sqlite_where=PENDING,
    postgresql_where=PENDING,
)
"""Finds the most important row of a route without reading the others."""

IS_REPORT: Final = outbox.c.action == text("'report'")

pending_once: Final = Index(
    "ux_outbox_pending",
    outbox.c.key,
    outbox.c.channel,
    outbox.c.action,
    unique=True,
    sqlite_where=PENDING,
    postgresql_where=PENDING,
)
"""A pending row is refreshed, never duplicated."""

report_once: Final = Index(
    "ux_outbox_report",
    outbox.c.key,
    outbox.c.channel,
    unique=True,
    sqlite_where=IS_REPORT,
    postgresql_where=IS_REPORT,
)
"""A report has at most one row, in whatever state."""
