"""Reads the stored state from which a new leader continues."""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Final, get_type_hints

from msgspec import structs
from sqlalchemy import Connection, Select, and_, func, or_, select

from celery_monitor.adapters.store import encode, schema, silences
from celery_monitor.adapters.store.dialects import sql_of
from celery_monitor.adapters.store.dialects.base import Row
from celery_monitor.adapters.store.tracked_journal import ChangesByKey, SharedValues, applied
from celery_monitor.adapters.store.validation import (
    COUNTER,
    ENDED,
    FINGERPRINT,
    FINGERPRINTS,
    SERIES,
    TRACKED,
    UNNAMED,
    required_row,
    valid_rows,
    valid_values,
)
from celery_monitor.core.model import (
    NO_DETAILS,
    CounterName,
    Incident,
    IncidentState,
    Reason,
    Restored,
    ScheduleState,
    TaskDetails,
    TaskRef,
    TaskStarts,
    UnnamedEvent,
    Worker,
)

QUIET_RETENTION: Final = 48 * 3600.0
"""Default seconds for which incidents that are not open are restored. By then, the hour of each has ended."""
_ROWS: Final = 2_000
"""Rows fetched at once."""
ENDED_SECONDS: Final = 600.0
"""Seconds before the last flush. Tasks that ended in them are restored, so that their late events are recognized."""
_MAX_ENDED: Final = 10_000
MUTED: Final = f'"reason":"{Reason.MUTED.value}"'
"""Part of the JSON of an incident that waits for the end of a silence. It matches no text, whose quotes are escaped."""
_NO_DETAILS: Final = list(structs.astuple(NO_DETAILS))
_TIMES: Final = (CounterName.ALIVE_AT.value, CounterName.READ_UNTIL.value)
"""Counters whose values are times of the monitor's clock."""


def read(connection: Connection, journal: ChangesByKey, *, quiet_retention: float, max_incidents: int) -> Restored:
    """Read the whole state. A million tracked tasks take a few seconds; they are read in portions.

    ``journal``: as read from ``tracked_changes``; its entries become part of the result.
    Incidents that are neither open nor muted are read only if they were first seen within ``quiet_retention`` seconds
    before the last flush. At most ``max_incidents`` incidents are read, open ones first.
    """
    meta = connection.execute(select(schema.meta)).one()
    required_row((meta.sequence, meta.epoch, meta.at), tuple[int, int, float])
    return Restored(
        sequence=meta.sequence,
        epoch=meta.epoch,
        series=[encode.series_value(required_row(row, SERIES)) for row in connection.execute(_by_rank())],
        tracked=_by_sent_id(connection, applied(tracked(connection, select(schema.tracked)), journal)),
        ended=_by_sent_id(connection, _ended(connection, meta.at - ENDED_SECONDS)),
        unnamed=valid_rows("unnamed", connection.execute(select(schema.unnamed)), UNNAMED, _unnamed),
        workers=_workers(connection),
        incidents=_incidents(connection, meta.at - quiet_retention, max_incidents),
        silences=silences.effective(connection, meta.at, meta.at - quiet_retention),
        schedules=_schedules(connection),
        starts=task_starts(connection),
        counters=newest_counters(connection),
        fingerprints=_fingerprints(connection),
    )


def _by_sent_id(connection: Connection, entries: list[tuple[str, TaskRef]]) -> list[tuple[str, TaskRef]]:
    """The entries with the IDs that events have, which may contain NUL, so that later events of a task match."""
    if sql_of(connection.dialect).stores_nul:
        return entries
    return [(encode.unescaped(uuid), ref) for uuid, ref in entries]


def _by_rank() -> Select[Any]:
    return select(schema.series).order_by(schema.series.c.rank)


def newest_counters(connection: Connection) -> dict[str, float]:
    """The last value of each counter.

    This is the greatest value, because counters only grow; the row with the newest time may be from a clock that was
    ahead for a moment. Counters that are times have the value as of the time of the last flush.
    """
    table = schema.counters
    rows = connection.execute(select(table.c.name, func.max(table.c.value)).group_by(table.c.name))
    values: dict[str, float] = dict(valid_rows("counters", rows, COUNTER, lambda name, value: (name, value)))
    written_at: float = connection.execute(select(schema.meta.c.at)).scalar() or 0.0
    times = counters(connection, written_at)
    return values | {name: times.get(name, written_at) for name in _TIMES if name in values}


def counters(connection: Connection, at: float) -> dict[str, float]:
    """The last value of each counter that was written at or before ``at``."""
    table = schema.counters
    newest = select(table.c.name, func.max(table.c.slot).label("slot")).where(table.c.at <= at)
    last = newest.group_by(table.c.name).subquery()
    joined = table.join(last, and_(table.c.name == last.c.name, table.c.slot == last.c.slot))
    rows = connection.execute(select(table.c.name, table.c.value).select_from(joined))
    return dict(valid_rows("counters", rows, COUNTER, lambda name, value: (name, value)))


def _unnamed(*row: Any) -> UnnamedEvent:  # noqa: ANN401 - the parts of a row
    return encode.unnamed_value(row)


def _workers(connection: Connection) -> list[Worker]:
    rows = connection.execute(select(*(schema.workers.c[name] for name in encode.WORKER)))
    types = get_type_hints(Worker)
    return valid_rows("workers", rows, tuple[tuple(types[name] for name in encode.WORKER)], Worker)  # type: ignore[misc]


def tracked(connection: Connection, query: Select[Any]) -> list[tuple[str, TaskRef]]:
    """The entries of the rows of a query on ``tracked``. Does not apply the journal."""
    shared: SharedValues = {}
    portions = sql_of(connection.dialect).portions(connection, query, _ROWS)
    return valid_values("tracked", portions, TRACKED, lambda rows: _entries(rows, shared.setdefault))


def _entries(rows: Iterable[Row], share: Callable[[Any, Any], Any]) -> list[tuple[str, TaskRef]]:
    """The entries of rows, with the values shared as in the journal's.

    In one loop without calls for each row, because a start may read a million.
    """
    return [
        (
            uuid,
            TaskRef(
                share(name, name),
                share(queue, queue),
                stage,
                sent_at or 0.0 if due_at == sent_at else due_at or 0.0,
                started_at or 0.0,
                share(seen, seen),
                share(saved, saved),
                share(host, host) or "",
                None if runs is None else encode.runs_value(runs),
                sent_at or 0.0,
                received_at or 0.0,
                None if details == _NO_DETAILS else TaskDetails(*details),
            ),
        )
        for (
            saved,
            uuid,
            name,
            queue,
            stage,
            due_at,
            started_at,
            seen,
            host,
            runs,
            sent_at,
            received_at,
            *details,
        ) in rows
    ]


def _ended(connection: Connection, since: float) -> list[tuple[str, TaskRef]]:
    """The newest ended runs, in the order in which they ended."""
    table = schema.ended_tasks
    columns = [table.c[name] for name in ("uuid", "name", "queue", "hostname", "stage", "ended_at")]
    newest = select(*columns).where(table.c.ended_at >= since).order_by(table.c.id.desc()).limit(_MAX_ENDED)
    rows = connection.execute(newest.where(~schema.beyond(_MAX_ENDED)))

    def entry(  # noqa: PLR0917 - a row
        uuid: str, name: str | None, queue: str | None, hostname: str, stage: int, ended_at: float
    ) -> tuple[str, TaskRef]:
        return uuid, TaskRef(name=name, queue=queue, stage=stage, started_at=ended_at, host=hostname)

    return valid_rows("ended_tasks", rows, ENDED, entry)[::-1]


def _incidents(connection: Connection, quiet_since: float, limit: int) -> list[Incident]:
    """Incidents, the oldest first. If there are more than ``limit``, open ones are preferred, then newer ones."""
    table = schema.incidents
    quiet = table.c.state.in_((IncidentState.SUPPRESSED.value, IncidentState.RESOLVED.value))
    muted = and_(table.c.state == IncidentState.SUPPRESSED.value, table.c.body.contains(MUTED))
    newer = and_(quiet, table.c.opened_at >= quiet_since)
    condition = or_(table.c.state == IncidentState.OPEN.value, newer, muted)
    order = table.c.state != IncidentState.OPEN.value, table.c.opened_at.desc(), table.c.key.desc()
    rows = connection.execute(select(table.c.body).where(condition).order_by(*order).limit(limit))
    values = valid_rows("incidents", rows, tuple[str], lambda body: encode.parsed(body, Incident))
    return sorted(values, key=attrgetter("opened_at", "key"))


def task_starts(connection: Connection) -> list[TaskStarts]:
    """The newest starts of each task, by name."""
    rows = connection.execute(select(schema.task_starts.c.body).order_by(schema.task_starts.c.name))
    return valid_rows("task_starts", rows, tuple[str], lambda body: encode.parsed(body, TaskStarts))


def _schedules(connection: Connection) -> list[ScheduleState]:
    rows = connection.execute(select(schema.schedules.c.body))
    return valid_rows("schedules", rows, tuple[str], lambda body: encode.parsed(body, ScheduleState))


def _fingerprints(connection: Connection) -> list[tuple[int, bytes]]:
    table = schema.fingerprints
    blobs: dict[int, list[bytes]] = {}
    rows = connection.execute(select(table.c.epoch, table.c.blob).order_by(table.c.epoch, table.c.total))
    for epoch, blob in valid_rows("fingerprints", rows, FINGERPRINTS, lambda epoch, blob: (epoch, blob)):
        blobs.setdefault(epoch, []).append(blob[: len(blob) // FINGERPRINT * FINGERPRINT])
    return [(epoch, b"".join(parts)) for epoch, parts in blobs.items()]
