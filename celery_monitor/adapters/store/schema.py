"""The tables. A change here comes with a migration; a test compares the two.

Columns carry the names of the fields in ``core.model`` that they hold. What is searched or added to has columns of
its own; the rest of an incident and the parts of a series' histograms are JSON text.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    select,
    text,
)

from celery_monitor.core.model import COUNTS

metadata: Final = MetaData()

_RowId: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts rows up by itself only for INTEGER."""


_Text: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""PostgreSQL sorts by the database's language otherwise; the pages of a list are the same on both."""


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, _Text, primary_key=key, nullable=False)


def _number(name: str, *, key: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=key, nullable=False, autoincrement=False)


def _real(name: str) -> Column[float]:
    return Column(name, Double, nullable=False)


def _counts() -> list[Column[int]]:
    return [_number(name) for name in COUNTS]


meta: Final = Table(
    "meta",
    metadata,
    _number("id", key=True),
    _number("sequence"),
    _number("epoch"),
    _real("at"),
    _text("writer"),
    Column("identity", Text, nullable=False, server_default=text("''")),
    Column("holder", Text, nullable=False, server_default=text("''")),
    Column("term", BigInteger, nullable=False, server_default=text("0")),
    Column("lease_until", Double, nullable=False, server_default=text("0")),
    Column("position", Text),
    Column("fleet", Text, nullable=False, server_default=text("''")),
    Column("external_url", Text, nullable=False, server_default=text("''")),
)
"""One row. ``at``: ``now`` of the last flush. ``writer``: the token of the process that leads and may write.
``identity``: of the store, from its first start for ever. ``holder``, ``term``: see LeaseState. ``lease_until``: Unix
seconds of the database's clock. ``position``: see Changes. ``fleet``: the name of the fleet that is counted.
``external_url``: of its page."""

series: Final = Table(
    "series",
    metadata,
    _text("name", key=True),
    _text("queue", key=True),
    _text("host", key=True),
    *_counts(),
    _text("exceptions"),
    _text("runtime"),
    _real("runtime_sum"),
    _text("wait"),
    _real("wait_sum"),
    Column("rank", BigInteger, nullable=False, server_default="0"),
    Index("ix_series_rank", "rank"),
)
"""``runtime`` and ``wait``: JSON of [bounds, counts]. Sums stay outside of JSON, which knows no infinity."""

buckets: Final = Table(
    "buckets",
    metadata,
    _number("start", key=True),
    _text("name", key=True),
    _text("queue", key=True),
    *_counts(),
    _real("runtime_sum"),
    _number("runtime_count"),
    sqlite_with_rowid=False,
)

FAILED_SOME: Final = buckets.c.failed > text("0")
failing_buckets: Final = Index(
    "ix_buckets_failed",
    buckets.c.start,
    buckets.c.name,
    buckets.c.failed,
    sqlite_where=FAILED_SOME,
    postgresql_where=FAILED_SOME,
)
"""Most buckets have no failure: those that have are found without the others."""

fleet_buckets: Final = Table(
    "fleet_buckets",
    metadata,
    _number("start", key=True),
    *_counts(),
    _real("runtime_sum"),
    _number("runtime_count"),
    sqlite_with_rowid=False,
)
"""The sums of ``buckets`` over all tasks: see ``totals``."""

task_totals: Final = Table(
    "task_totals",
    metadata,
    _text("name", key=True),
    _text("queue", key=True),
    *_counts(),
    _real("runtime_sum"),
    _number("runtime_count"),
    Column("last_failure_at", Double),
    sqlite_with_rowid=False,
)
"""The sums of ``buckets``: see ``totals``."""

error_groups: Final = Table(
    "error_groups",
    metadata,
    _text("id", key=True),
    _text("name"),
    _text("exception"),
    _text("frame"),
    _real("first_at"),
    _real("last_at"),
    Index("ix_error_groups_last_at", "last_at"),
)

error_buckets: Final = Table(
    "error_buckets",
    metadata,
    _number("start", key=True),
    _text("group", key=True),
    _number("count"),
    sqlite_with_rowid=False,
)

failures: Final = Table(
    "failures",
    metadata,
    Column("id", _RowId, primary_key=True),
    _text("uuid"),
    _text("name"),
    _text("queue"),
    _text("hostname"),
    _real("at"),
    _text("exception"),
    _text("message"),
    _text("traceback"),
    _text("group"),
    Column("incident", Text),
    _text("reason"),
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
"""Samples: the newest of each group, in the order in which they came in (``id``)."""

tracked: Final = Table(
    "tracked",
    metadata,
    _text("uuid", key=True),
    Column("name", Text),
    Column("queue", Text),
    _number("stage"),
    _real("due_at"),
    _real("started_at"),
    _number("seen"),
    Column("host", Text),
    Column("runs", Text),
    *(Column(name, Double, nullable=False, server_default=text("0")) for name in ("sent_at", "received_at", "eta")),
    Column("retries", BigInteger, nullable=False, server_default=text("0")),
    Column("root", Text),
    Column("parent", Text),
    sqlite_with_rowid=False,
)
"""One row for each task id. ``runs``: JSON of the runs beside the first one, each with its ``encode.RUN``."""

ended_tasks: Final = Table(
    "ended_tasks",
    metadata,
    Column("id", _RowId, primary_key=True),
    _text("uuid"),
    Column("name", Text),
    Column("queue", Text),
    _text("hostname"),
    _number("stage"),
    *(_real(name) for name in ("sent_at", "received_at", "started_at", "ended_at")),
    Column("runtime", Double),
    _real("eta"),
    _number("retries"),
    Column("root", Text),
    Column("parent", Text),
    Index("ix_ended_tasks_uuid", "uuid"),
    sqlite_autoincrement=True,
)
"""The newest runs that have ended, in the order of their ends (``id``)."""


def beyond(most: int) -> ColumnElement[bool]:
    """Rows of ``ended_tasks`` but the newest ``most``."""
    newest = select(func.max(ended_tasks.c.id)).scalar_subquery()
    return ended_tasks.c.id <= newest - most


def among_oldest(most: int) -> ColumnElement[bool]:
    """Rows of ``ended_tasks`` among the oldest: ``most`` of them, or fewer where ids were skipped."""
    first = select(func.min(ended_tasks.c.id)).scalar_subquery()
    return ended_tasks.c.id < first + most


unnamed: Final = Table(
    "unnamed",
    metadata,
    _number("number", key=True),
    _real("since"),
    _text("event"),
    Column("measured", Double),
)
"""Task events that wait for the name of their task. ``event``: JSON."""

workers: Final = Table(
    "workers",
    metadata,
    _text("hostname", key=True),
    Column("up", Boolean, nullable=False),
    _real("last_heartbeat"),
    _number("active"),
    _number("processed"),
    _number("pid"),
    _text("sw_ident"),
    _text("sw_ver"),
    _text("sw_sys"),
    _number("started_seen"),
    _number("baseline"),
    _number("unobserved"),
    Column("processed_before", BigInteger, nullable=False, server_default="0"),
    Column("clock_offset", Double, nullable=False, server_default=text("0")),
    Column("heartbeats", Boolean, nullable=False, server_default=text("true")),
)

incidents: Final = Table(
    "incidents",
    metadata,
    _text("key", key=True),
    _text("state"),
    _real("opened_at"),
    _real("first_at"),
    _text("body"),
    Index("ix_incidents_state", "state", "opened_at"),
    Index("ix_incidents_first_at", "first_at"),
)
"""``body``: the whole Incident."""

deliveries: Final = Table(
    "deliveries",
    metadata,
    _text("key", key=True),
    _text("channel", key=True),
    _text("state"),
    _number("attempts"),
    Column("error", Text),
    Column("delivered_at", Double),
    _number("delivered_count"),
    Column("receipt", Text),
    sqlite_with_rowid=False,
)
"""What became of an incident on each channel that it goes to: see ChannelDelivery. ``key``: the incident's."""

silences: Final = Table(
    "silences",
    metadata,
    _text("id", key=True),
    _text("match"),
    _text("queues"),
    _text("reason"),
    _real("starts_at"),
    _real("ends_at"),
    _text("created_by"),
    Index("ix_silences_ends_at", "ends_at"),
    sqlite_with_rowid=False,
)
"""``match`` and ``queues``: JSON of the globs. Written by people, not by flushes."""

task_starts: Final = Table(
    "task_starts",
    metadata,
    _text("name", key=True),
    _text("body"),
    sqlite_with_rowid=False,
)
"""``body``: TaskStarts."""

schedules: Final = Table(
    "schedules",
    metadata,
    _text("name", key=True),
    _text("body"),
    sqlite_with_rowid=False,
)
"""``body``: the whole ScheduleState."""

outbox: Final = Table(
    "outbox",
    metadata,
    Column("id", _RowId, primary_key=True),
    _text("channel"),
    _text("key"),
    _text("action"),
    _text("route"),
    _number("revision"),
    _number("attempts"),
    _real("created_at"),
    _real("due_at"),
    _real("refreshed_due_at"),
    _text("state"),
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
"""``refreshed_due_at``: the ``due_at`` of the newest refresh, used when a delivery has missed that refresh.
``state``: pending, delivered, dead, or unknown. ``progress``: what the sender keeps with the row."""

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
"""The most important row of a route is found without reading the others."""

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
"""What waits is refreshed, never doubled."""

report_once: Final = Index(
    "ux_outbox_report",
    outbox.c.key,
    outbox.c.channel,
    unique=True,
    sqlite_where=IS_REPORT,
    postgresql_where=IS_REPORT,
)
"""A report is claimed once, whatever became of it."""

counters: Final = Table(
    "counters",
    metadata,
    _text("name", key=True),
    _number("slot", key=True),
    Column("value", Double, nullable=False),
    _real("at"),
    sqlite_with_rowid=False,
)
"""The monitor's own counters, one row for each quarter of an hour in which one has changed, with its last value."""

fingerprints: Final = Table(
    "fingerprints",
    metadata,
    _number("epoch", key=True),
    _number("total", key=True),
    Column("blob", LargeBinary, nullable=False),
    Column("expires_at", Double),
    sqlite_with_rowid=False,
)
"""``total``: bytes of the epoch's fingerprints up to and with this row, which makes pruning one range.
``expires_at``: set when another epoch begins."""
