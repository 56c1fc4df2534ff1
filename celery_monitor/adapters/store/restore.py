"""What the monitor goes on from after a start."""

from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Connection, Select, and_, func, or_, select

from celery_monitor.adapters.store import encode, schema
from celery_monitor.core.model import Incident, IncidentState, Restored, TaskRef, Worker
from celery_monitor.core.summary import READ_UNTIL

QUIET_KEPT: Final = 48 * 3600.0
"""Seconds after which any hour is over."""
_ROWS: Final = 10_000
_TIMES: Final = ("alive_at", READ_UNTIL)
"""Counters that are times of the monitor's own clock."""


def read(connection: Connection, *, quiet_kept: float, max_incidents: int) -> Restored:
    """Read everything; a million tracked tasks take a few seconds and are read in portions.

    Of incidents that are not open, only those first seen within ``quiet_kept`` seconds before the last flush.
    """
    meta = connection.execute(select(schema.meta)).one()
    return Restored(
        sequence=meta.sequence,
        epoch=meta.epoch,
        series=[encode.series_value(row) for row in connection.execute(_by_rank())],
        tracked=_tracked(connection),
        unnamed=[encode.unnamed_value(row) for row in connection.execute(select(schema.unnamed))],
        workers=[Worker(*row) for row in connection.execute(select(*(schema.workers.c[n] for n in encode.WORKER)))],
        incidents=_incidents(connection, meta.at - quiet_kept, max_incidents),
        counters=newest_counters(connection),
        fingerprints=_fingerprints(connection),
    )


def _by_rank() -> Select[Any]:
    return select(schema.series).order_by(schema.series.c.rank)


def newest_counters(connection: Connection) -> dict[str, float]:
    """The last value of each counter.

    It is the greatest, for counters only grow; what looks newest may be from a clock that was ahead for a moment. A
    time is the one of the clock by which the last flush was written.
    """
    table = schema.counters
    rows = connection.execute(select(table.c.name, func.max(table.c.value)).group_by(table.c.name))
    found: dict[str, float] = {name: value for name, value in rows}  # noqa: C416  # rows are no pairs to mypy
    written_at: float = connection.execute(select(schema.meta.c.at)).scalar() or 0.0
    times = counters(connection, written_at)
    return found | {name: times.get(name, written_at) for name in _TIMES if name in found}


def counters(connection: Connection, at: float) -> dict[str, float]:
    """The last value of each counter that was written at ``at`` or before it."""
    table = schema.counters
    newest = select(table.c.name, func.max(table.c.slot).label("slot")).where(table.c.at <= at)
    last = newest.group_by(table.c.name).subquery()
    joined = table.join(last, and_(table.c.name == last.c.name, table.c.slot == last.c.slot))
    rows = connection.execute(select(table.c.name, table.c.value).select_from(joined))
    return {row.name: row.value for row in rows}


def _tracked(connection: Connection) -> list[tuple[str, TaskRef]]:
    """Names, queues and workers repeat: one string object for each."""
    shared: dict[Any, Any] = {}
    tracked = []
    rows = connection.execution_options(yield_per=_ROWS).execute(select(schema.tracked))
    for portion in rows.partitions():
        for uuid, name, queue, stage, due_at, started_at, seen, host, runs in portion:
            ref = TaskRef(
                name=shared.setdefault(name, name),
                queue=shared.setdefault(queue, queue),
                stage=stage,
                due_at=due_at,
                started_at=started_at,
                seen=seen,
                saved=True,
                host=shared.setdefault(host, host) or "",
                others=encode.runs_value(runs),
            )
            tracked.append((uuid, ref))
    return tracked


def _incidents(connection: Connection, quiet_since: float, most: int) -> list[Incident]:
    """The oldest first; of too many the newest, and those that are open before all others."""
    table = schema.incidents
    quiet = table.c.state.in_((IncidentState.SUPPRESSED.value, IncidentState.RESOLVED.value))
    wanted = or_(table.c.state == IncidentState.OPEN.value, and_(quiet, table.c.opened_at >= quiet_since))
    order = table.c.state != IncidentState.OPEN.value, table.c.opened_at.desc(), table.c.key.desc()
    rows = connection.execute(select(table.c.body).where(wanted).order_by(*order).limit(most))
    found = [encode.parsed(body, Incident) for (body,) in rows]
    return sorted(found, key=attrgetter("opened_at", "key"))


def _fingerprints(connection: Connection) -> list[tuple[int, bytes]]:
    table = schema.fingerprints
    blobs: dict[int, list[bytes]] = {}
    rows = connection.execute(select(table.c.epoch, table.c.blob).order_by(table.c.epoch, table.c.total))
    for epoch, blob in rows:
        blobs.setdefault(epoch, []).append(blob)
    return [(epoch, b"".join(parts)) for epoch, parts in blobs.items()]
