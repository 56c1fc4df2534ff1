"""Writes the ``Changes`` of a flush, within the caller's transaction."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Connection,
    Dialect,
    Double,
    LargeBinary,
    bindparam,
    case,
    delete,
    func,
    select,
    update,
)

from celery_monitor.adapters.store import encode, schema
from celery_monitor.adapters.store.dialects.base import Insert
from celery_monitor.adapters.store.enqueue import Enqueuer
from celery_monitor.adapters.store.hourly import HourlyWriter
from celery_monitor.adapters.store.statements import Bulk, Prepared, Removal, Trimming, insert, shared, upsert
from celery_monitor.adapters.store.totals import Totals
from celery_monitor.adapters.store.tracked_journal import TrackedJournal
from celery_monitor.adapters.store.validation import FINGERPRINT
from celery_monitor.core.model import BUCKET_SECONDS, COUNTS, Action, Changes, Failure

SAMPLES: Final = 20
"""Number of newest failures stored for each error group."""
ENDED_DELETED: Final = 2_000
"""Maximum ended tasks that one flush deletes. After ``max_ended_tasks`` is lowered, a million may be in excess."""
EPOCH_RETENTION: Final = 3600.0
"""Seconds for which the fingerprints of an ended connection are stored. The broker redelivers its messages when it
notices the end, which takes minutes if the connection was not closed properly."""
MAX_STEP: Final = 3600.0
"""Maximum seconds between two flushes. A larger step means that the clock was set."""


class FlushWriter:
    """Writes the changes of a flush.

    ``fingerprint_window``: number of newest fingerprints of the current connection that stay stored, at least.
    ``max_ended``: number of ended runs that stay stored. ``yield_point`` is called between statements; it may block for
    a moment so that a scrape goes first.
    """

    def __init__(
        self,
        dialect: Dialect,
        *,
        fingerprint_window: int,
        max_ended: int = 10_000,
        yield_point: Callable[[], None] = lambda: None,
    ) -> None:
        self._max_ended = max_ended
        self._yield_point = yield_point
        self._fingerprint_bytes = fingerprint_window * FINGERPRINT
        self._statements = shared(dialect, _FlushStatements)
        self._enqueuer = shared(dialect, Enqueuer)
        self._totals = shared(dialect, Totals)
        self._hourly = shared(dialect, HourlyWriter)
        self.tracked: Final = TrackedJournal(dialect)

    def write(
        self,
        connection: Connection,
        changes: Changes,
        changed_counters: Mapping[str, float],
        since: float,
        *,
        has_space: bool = True,
    ) -> None:
        """Write everything except the sequence and reports.

        Deletes before it inserts, because a series or worker can be dropped and come back within one flush. Reads no
        results, so that the statements can be pipelined. ``since``: ``now`` of the last flush. ``has_space``: false if
        there is hardly any space left.
        """
        statements = self._statements
        self._yield_point()
        statements.drop_series.run(connection, ((key.name, key.queue, key.host) for key in changes.dropped_series))
        statements.series.run(connection, map(encode.series_row, changes.series), self._yield_point)
        statements.buckets.run(
            connection,
            ((b.start, b.name, b.queue, *b.counts, b.runtime_sum, b.runtime_count) for b in changes.buckets),
            self._yield_point,
        )
        self._totals.add(connection, changes, self._yield_point)
        self._hourly.write(connection, changes, self._yield_point)
        self.tracked.write(connection, changes, self._yield_point, move=has_space)
        if changes.ended:
            statements.ended.run(connection, map(encode.ended_row, changes.ended), self._yield_point)
            statements.drop_ended.run(connection, most=self._max_ended, portion=ENDED_DELETED)
        statements.settle.run(connection, ((number,) for number in changes.settled), self._yield_point)
        statements.unnamed.run(connection, map(encode.unnamed_row, changes.unnamed), self._yield_point)
        statements.drop_workers.run(connection, ((hostname,) for hostname in changes.dropped_workers))
        statements.workers.run(connection, map(encode.worker_row, changes.workers))
        statements.incidents.run(connection, map(encode.incident_row, changes.incidents))
        statements.drop_schedules.run(connection, ((name,) for name in changes.dropped_schedules))
        statements.schedules.run(connection, ((state.name, encode.to_json(state)) for state in changes.schedules))
        statements.starts.run(connection, ((starts.name, encode.to_json(starts)) for starts in changes.starts))
        self._write_failures(connection, changes)
        self._enqueuer.run(connection, [row for row in changes.outbox if row.action is not Action.REPORT], changes.now)
        slot = _slot(changes.now)
        if _slot(since) < slot and changes.now - since <= MAX_STEP:
            # Rows of a new slot were written by a clock that was ahead. Unchanged counters would not overwrite them.
            ahead = schema.counters.c.slot.between(_slot(since) + 1, slot)
            connection.execute(delete(schema.counters).where(ahead))
        statements.counters.run(
            connection, ((name, slot, value, changes.now) for name, value in changed_counters.items())
        )
        if changes.fingerprints:
            statements.fingerprints.write(connection, changes, self._fingerprint_bytes)

    def claim(self, connection: Connection, changes: Changes) -> None:
        """Add the reports that do not exist yet."""
        for row in changes.outbox:
            if row.action is Action.REPORT:
                self._enqueuer.claim(connection, row, changes.now)

    def _write_failures(self, connection: Connection, changes: Changes) -> None:
        statements = self._statements
        statements.groups.run(
            connection, ((g.id, g.name, g.exception, g.frame, g.first_at, g.last_at) for g in changes.groups)
        )
        statements.errors.run(connection, ((e.start, e.group, e.count) for e in changes.errors))
        samples = _newest(changes.failures)
        statements.failures.run(connection, map(encode.failure_row, samples))
        statements.drop_samples.run(connection, ((group,) for group in {failure.group for failure in samples}))


class _FlushStatements:
    """The statements of a flush."""

    def __init__(self, dialect: Dialect) -> None:
        self.ended = Bulk(dialect, insert(dialect, schema.ended_tasks), encode.ENDED)
        limit, portion = (bindparam(name, type_=BigInteger) for name in ("most", "portion"))
        unwanted = schema.beyond(limit), schema.among_oldest(portion)
        self.drop_ended = Prepared(dialect, delete(schema.ended_tasks).where(*unwanted))
        self.fingerprints = _FingerprintRows(dialect)
        self.series = upsert(dialect, schema.series)
        self.drop_series = Removal(dialect, schema.series)
        self.buckets = upsert(dialect, schema.buckets, add=(*COUNTS, "runtime_sum", "runtime_count"))
        self.errors = upsert(dialect, schema.error_buckets, add=("count",))
        self.groups = _widen(dialect)
        self.failures = Bulk(dialect, insert(dialect, schema.failures), encode.FAILURE)
        self.drop_samples = Trimming(dialect, schema.failures, "group", SAMPLES)
        self.unnamed = upsert(dialect, schema.unnamed)
        self.settle = Removal(dialect, schema.unnamed)
        self.workers = upsert(dialect, schema.workers, columns=encode.WORKER)
        self.drop_workers = Removal(dialect, schema.workers)
        self.incidents = upsert(dialect, schema.incidents, columns=encode.INCIDENT)
        self.schedules = upsert(dialect, schema.schedules)
        self.starts = upsert(dialect, schema.task_starts)
        self.drop_schedules = Removal(dialect, schema.schedules)
        self.counters = upsert(dialect, schema.counters)


class _FingerprintRows:
    """Stores the newest fingerprints of the current epoch, and earlier epochs for EPOCH_RETENTION."""

    def __init__(self, dialect: Dialect) -> None:
        table = schema.fingerprints
        epoch, now = bindparam("of_epoch", type_=BigInteger), bindparam("now", type_=Double)
        older, same = table.c.epoch < epoch, table.c.epoch == epoch
        expiry = bindparam("expiry", type_=Double)
        total = func.coalesce(func.max(table.c.total), 0) + bindparam("size", type_=BigInteger)
        row = select(epoch, total, bindparam("added", type_=LargeBinary)).where(same)
        # The remaining rows hold at least ``window`` bytes.
        newest = select(func.max(table.c.total)).where(same).scalar_subquery()
        self._end = Prepared(
            dialect, update(table).where(older, table.c.expires_at.is_(None)).values(expires_at=expiry)
        )
        self._expire = Prepared(dialect, delete(table).where(older, table.c.expires_at <= now))
        self._add = Prepared(dialect, insert(dialect, table).from_select(["epoch", "total", "blob"], row))
        self._trim = Prepared(
            dialect, delete(table).where(same, table.c.total <= newest - bindparam("window", type_=BigInteger))
        )

    def write(self, connection: Connection, changes: Changes, window: int) -> None:
        """``window``: bytes of the current epoch that stay stored, at least."""
        epoch, added = changes.epoch, changes.fingerprints
        self._end.run(connection, of_epoch=epoch, expiry=changes.now + EPOCH_RETENTION)
        self._expire.run(connection, of_epoch=epoch, now=changes.now)
        self._add.run(connection, of_epoch=epoch, size=len(added), added=added)
        self._trim.run(connection, of_epoch=epoch, window=window)


def _slot(at: float) -> int:
    return int(at) // BUCKET_SECONDS * BUCKET_SECONDS


def _newest(failures: Sequence[Failure]) -> list[Failure]:
    """The last SAMPLES failures of each group, in order. Earlier ones would be deleted by the same flush."""
    numbers: Counter[str] = Counter()
    newest = []
    for failure in reversed(failures):
        numbers[failure.group] += 1
        if numbers[failure.group] <= SAMPLES:
            newest.append(failure)
    newest.reverse()
    return newest


def _widen(dialect: Dialect) -> Bulk:
    """Insert error groups. For existing ones, only extend the time between the first and the last failure."""
    table = schema.error_groups
    statement = insert(dialect, table)
    return _on_conflict(
        dialect,
        statement,
        {
            "first_at": _extreme(statement.excluded.first_at < table.c.first_at, statement, "first_at"),
            "last_at": _extreme(statement.excluded.last_at > table.c.last_at, statement, "last_at"),
        },
    )


def _extreme(condition: Any, statement: Insert, column: str) -> Any:  # noqa: ANN401 - SQLAlchemy's own types are open
    """The new value if ``condition`` holds, else the old one. A CASE, because min() and max() differ by dialect."""
    return case((condition, statement.excluded[column]), else_=statement.table.c[column])


def _on_conflict(dialect: Dialect, statement: Insert, changed: Mapping[str, Any]) -> Bulk:
    table = statement.table
    keys = [column.name for column in table.primary_key]
    names = [column.name for column in table.columns]
    return Bulk(dialect, statement.on_conflict_do_update(index_elements=keys, set_=dict(changed)), names)
