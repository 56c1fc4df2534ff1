"""Single tasks, workers, and schedules."""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ColumnElement, Double, LargeBinary, Table, Text, func, select, text

from celery_monitor.adapters.store.schema.columns import (
    RowId,
    bodies_by_name,
    metadata,
    number_column,
    real_column,
    text_column,
)

tracked: Final = Table(
    "tracked",
    metadata,
    number_column("saved", key=True),
    text_column("uuid", key=True),
    Column("name", Text),
    Column("queue", Text),
    number_column("stage"),
    real_column("due_at"),
    real_column("started_at"),
    number_column("seen"),
    Column("host", Text),
    Column("runs", Text),
    *(Column(name, Double, nullable=False, server_default=text("0")) for name in ("sent_at", "received_at", "eta")),
    Column("retries", BigInteger, nullable=False, server_default=text("0")),
    Column("root", Text),
    Column("parent", Text),
    Column("expires", Double, nullable=False, server_default=text("0")),
    sqlite_with_rowid=False,
)
"""Unfinished tasks, one row per task ID. ``saved``: sequence of the first flush that contained the task; 1 in rows that
were stored before revision 0024. ``runs``: ``TaskRef.others`` as JSON.

Task IDs are random: with a key that begins with the ID, a flush would write most pages of a large table. With this key,
it writes the pages of the newest rows, and of the rows that it removes.

Does not include the changes of the newest flushes: see ``tracked_changes``."""

tracked_changes: Final = Table(
    "tracked_changes", metadata, number_column("sequence", key=True), Column("body", LargeBinary, nullable=False)
)
"""Changes of the newest flushes to ``tracked``, by the sequence of the flush: see ``tracked_journal``."""

ended_tasks: Final = Table(
    "ended_tasks",
    metadata,
    Column("id", RowId, primary_key=True),
    text_column("uuid"),
    Column("name", Text),
    Column("queue", Text),
    text_column("hostname"),
    number_column("stage"),
    *(real_column(name) for name in ("sent_at", "received_at", "started_at", "ended_at")),
    Column("runtime", Double),
    real_column("eta"),
    number_column("retries"),
    Column("root", Text),
    Column("parent", Text),
    sqlite_autoincrement=True,
)
"""The newest ended runs, in the order in which they ended (``id``).

There is no index on ``uuid``: because task IDs are random, every flush would write most pages of it."""


def beyond(limit: int | ColumnElement[int]) -> ColumnElement[bool]:
    """Rows of ``ended_tasks`` except the newest ``limit``."""
    newest = select(func.max(ended_tasks.c.id)).scalar_subquery()
    return ended_tasks.c.id <= newest - limit


def among_oldest(limit: int | ColumnElement[int]) -> ColumnElement[bool]:
    """The oldest ``limit`` rows of ``ended_tasks``, or fewer if IDs are missing in between."""
    first = select(func.min(ended_tasks.c.id)).scalar_subquery()
    return ended_tasks.c.id < first + limit


unnamed: Final = Table(
    "unnamed",
    metadata,
    number_column("number", key=True),
    real_column("since"),
    text_column("event"),
    Column("measured", Double),
)
"""Task events whose task name is not known yet. ``event``: JSON."""

workers: Final = Table(
    "workers",
    metadata,
    text_column("hostname", key=True),
    Column("up", Boolean, nullable=False),
    real_column("last_heartbeat"),
    number_column("active"),
    number_column("processed"),
    number_column("pid"),
    text_column("sw_ident"),
    text_column("sw_ver"),
    text_column("sw_sys"),
    number_column("started_seen"),
    number_column("baseline"),
    number_column("unobserved"),
    Column("processed_before", BigInteger, nullable=False, server_default="0"),
    Column("clock_offset", Double, nullable=False, server_default=text("0")),
    Column("heartbeats", Boolean, nullable=False, server_default=text("true")),
    *(
        Column(name, Double, nullable=False, server_default=text("0"))
        for name in ("began_at", "goodbye_at", "goodbye_sign")
    ),
    Column("unfinished", BigInteger, nullable=False, server_default=text("0")),
)

task_starts: Final = bodies_by_name("task_starts")
"""``body``: JSON of TaskStarts."""

schedules: Final = bodies_by_name("schedules")
"""``body``: JSON of ScheduleState."""
