"""The disk budget: what the store gives up when space is short, and in which order.

Counts, incidents, the outbox, unfinished tasks and fingerprints are essential and never given up. To keep space for
them, the store deletes ended tasks, then the oldest samples of failures, then error groups, then counts by time that
are older than a day.

Each flush is limited, too. It is one transaction, whose log needs the same space again, and SQLite cannot checkpoint a
log into a file that has no space to grow. So the optional data of a flush takes at most a quarter of the remaining
space: the texts of incidents first, each shortened to its share, then error groups, then samples. Ended tasks are
stored only if all optional data fits.

Space is limited by ``store.max_bytes`` and by the file system, whichever ends first. A disk quota shows in neither.
After a write that failed for lack of space, therefore, only free pages inside the file count as free for a while.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, func, select

from celery_monitor.adapters.store import hourly, schema
from celery_monitor.adapters.store.engine import Database
from celery_monitor.adapters.store.statements import shared
from celery_monitor.adapters.store.totals import Totals
from celery_monitor.core.model import Changes, Failure, Incident
from celery_monitor.errors import StoreFullError
from celery_monitor.ports import StoreSpace

SAMPLES: Final = "samples"
GROUPS: Final = "groups"
BUCKETS: Final = "buckets"
ENDED: Final = "ended_tasks"
GIVEN_UP: Final = (ENDED, SAMPLES, GROUPS, BUCKETS)

DAY: Final = 86_400.0
CHUNK_SIZES: Final = (250, 25, 2)
"""Rows that one transaction deletes, so that a flush waits only briefly. Fewer on a full disk, as the log grows."""
RECLAIM_TIME: Final = 1.0
"""Maximum seconds of one ``reclaim``."""
REFUSAL_MEMORY: Final = 60.0
"""Seconds after a failed write in which only space inside the file counts as free."""
_SAMPLE: Final = 600
"""Bytes of a sample without its texts, including its index entries. All sizes are estimates."""
_GROUP: Final = 600
"""Bytes of an error group, or of its failures in a quarter of an hour."""
_RUN: Final = 350
"""Bytes of an ended run."""
_SERIES: Final = 1_200
_BUCKET: Final = 600
_CHECKPOINT: Final = 600
_WAITING: Final = 600
_INCIDENT: Final = 1_500
"""Bytes of an incident without its texts. Its names may have some hundred characters."""
_TEXTS: Final = 4
"""Number of texts of an incident."""


@dataclass(frozen=True, slots=True)
class Space:
    """A measurement of the store's space, in bytes."""

    used: int
    """By the stored data and the log."""
    limit: float
    free: float
    """Space that can be written: free pages of the file, and free space of the file system."""
    headroom: int
    """Space that is reserved for essential data."""

    @property
    def room(self) -> float:
        """Space up to the limit or to the end of the disk."""
        return min(self.limit - self.used, self.free)

    def to_spare(self, needed: int = 0) -> float:
        """Space for the optional data of one flush: a quarter of what is left, so that the log stays small, too.

        ``needed``: size of its essential data, which takes space in the log and in the file.
        """
        return max(0.0, (self.room - self.headroom - 2 * needed) / 4)

    @property
    def short(self) -> bool:
        """Whether stored data should be given up."""
        return self.room < self.headroom * 1.5

    @property
    def reclaimed(self) -> bool:
        """Whether enough was given up."""
        return self.room >= self.headroom * 2


class Budget:
    """Keeps the store within its space. Commits use ``admit`` and ``reduce``; housekeeping uses ``reclaim``."""

    def __init__(self, database: Database, max_bytes: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._totals = shared(database.dialect, Totals)
        self._given_up: Counter[str] = Counter(dict.fromkeys(GIVEN_UP, 0))
        self._refused_at: float | None = None
        self._space: Space | None = None

    def stats(self) -> StoreSpace:
        """The space as of the last measurement. Does no I/O."""
        space = self._space
        if space is None:
            return StoreSpace(given_up=dict(self._given_up))
        return StoreSpace(
            used=space.used,
            limit=None if space.limit == math.inf else int(space.limit),
            room=None if space.room == math.inf else max(0, int(space.room)),
            short=space.short,
            given_up=dict(self._given_up),
        )

    def admit(self, connection: Connection, changes: Changes) -> tuple[Changes, Mapping[str, int]]:
        """The changes with as much optional data as fits, and how much of it was omitted by kind."""
        spare = self._measure(connection).to_spare(_essential(changes))
        if _optional(changes) <= spare:
            return changes, {}
        omitted: dict[str, int] = {}
        if changes.ended:
            omitted[ENDED] = len(changes.ended)
            changes = replace(changes, ended=())
            if _optional(changes) <= spare:
                return changes, omitted
        incidents = _cut(changes.incidents, spare)
        spare -= sum(map(_texts, incidents))
        changes = replace(changes, incidents=incidents)
        if (groups := _GROUP * (len(changes.groups) + len(changes.errors))) > spare:
            omitted[GROUPS] = len(changes.groups)
            changes, spare = replace(changes, groups=(), errors=()), 0.0  # without groups, no samples either
        else:
            spare -= groups
        newest = _newest_within(changes.failures, spare)
        if left_out := len(changes.failures) - newest:
            omitted[SAMPLES] = left_out
            changes = replace(changes, failures=changes.failures[left_out:])
        return changes, omitted

    def reduce(self, changes: Changes) -> tuple[Changes, Mapping[str, int]]:
        """After a write failed for lack of space: the changes without optional data, and what was omitted by kind."""
        self._refused_at = self._monotonic()
        omitted = {SAMPLES: len(changes.failures), GROUPS: len(changes.groups), ENDED: len(changes.ended)}
        incidents = _cut(changes.incidents, 0)
        return replace(changes, ended=(), failures=(), groups=(), errors=(), incidents=incidents), omitted

    def count(self, kind: str, number: int) -> None:
        """Count rows that were given up."""
        self._given_up[kind] += number

    def reclaim(self, now: float) -> None:
        """Delete the least important data until there is enough space, for at most RECLAIM_TIME. Raises as Store."""
        with self._database.read() as connection:
            if not self._measure(connection).short:
                return
        deadline = self._monotonic() + RECLAIM_TIME
        chunks = iter(CHUNK_SIZES)
        chunk = next(chunks)
        while self._monotonic() < deadline:
            try:
                with self._database.write() as connection:
                    if self._measure(connection).reclaimed:
                        return
                    kind, number = self._give_up(connection, now, chunk)
            except StoreFullError:
                chunk = next(chunks, 0)
                if not chunk:
                    raise
                continue
            if not number:
                return
            self.count(kind, number)

    def _measure(self, connection: Connection) -> Space:
        usage = self._database.usage(connection)
        refused = self._refused_at is not None and self._monotonic() - self._refused_at < REFUSAL_MEMORY
        free = usage.reusable + (0.0 if refused else usage.disk_free)
        self._space = Space(usage.used, self._max_bytes, free, usage.headroom)
        return self._space

    def _give_up(self, connection: Connection, now: float, chunk: int) -> tuple[str, int]:
        """Delete a portion of the least important kind of data that exists. Returns the kind and the number of rows."""
        if number := _delete_ended(connection, chunk):
            return ENDED, number
        if number := _delete_samples(connection, chunk):
            return SAMPLES, number
        if number := _delete_groups(connection, chunk):
            return GROUPS, number
        if number := hourly.expire(connection, now - DAY, limit=chunk):
            return BUCKETS, number
        buckets = schema.buckets.c
        oldest = connection.execute(select(func.min(buckets.start))).scalar()
        if oldest is None or oldest >= now - DAY:
            return BUCKETS, 0
        return BUCKETS, self._totals.expire(connection, oldest, limit=chunk)


def _essential(changes: Changes) -> int:
    """Estimated bytes of the essential data, including its index entries."""
    series, buckets = _SERIES * len(changes.series), _BUCKET * len(changes.buckets)
    hours = _CHECKPOINT * (len(changes.checkpoints) + len(changes.queue_lengths))
    waiting = _WAITING * (len(changes.tracked) + len(changes.unnamed) + len(changes.outbox) + len(changes.workers))
    return series + buckets + hours + waiting + _INCIDENT * len(changes.incidents)


def _optional(changes: Changes) -> float:
    """Estimated bytes of the optional data."""
    small = _GROUP * (len(changes.groups) + len(changes.errors)) + _RUN * len(changes.ended)
    return small + sum(map(_texts, changes.incidents)) + sum(map(_size, changes.failures))


def _texts(record: Failure | Incident) -> int:
    return len(record.traceback) + len(record.message) + len(record.args or "") + len(record.kwargs or "")


def _size(failure: Failure) -> int:
    return _SAMPLE + _texts(failure)


def _cut(incidents: Sequence[Incident], allowance: float) -> Sequence[Incident]:
    """The incidents with texts shortened to fit in total: the end of the traceback, the beginning of the others."""
    if sum(map(_texts, incidents)) <= allowance:
        return incidents
    share = int(max(0.0, allowance) / len(incidents)) // _TEXTS
    return [
        msgspec.structs.replace(
            record,
            message=record.message[:share],
            traceback=record.traceback[-share:] if share else "",
            args=record.args and record.args[:share],
            kwargs=record.kwargs and record.kwargs[:share],
        )
        for record in incidents
    ]


def _newest_within(failures: Sequence[Failure], allowance: float) -> int:
    """Number of newest failures that fit."""
    for number, record in enumerate(reversed(failures)):
        allowance -= _size(record)
        if allowance < 0:
            return number
    return len(failures)


def _delete_ended(connection: Connection, chunk: int) -> int:
    table = schema.ended_tasks
    oldest = select(table.c.id).order_by(table.c.id).limit(chunk)
    return connection.execute(delete(table).where(table.c.id.in_(oldest))).rowcount


def _delete_samples(connection: Connection, chunk: int) -> int:
    table = schema.failures
    oldest = select(table.c.id).order_by(table.c.id).limit(chunk)
    return connection.execute(delete(table).where(table.c.id.in_(oldest))).rowcount


def _delete_groups(connection: Connection, chunk: int) -> int:
    table, errors = schema.error_groups, schema.error_buckets
    oldest = select(table.c.id).order_by(table.c.last_at).limit(chunk)
    ids = list(connection.execute(oldest).scalars())
    if ids:
        connection.execute(delete(errors).where(errors.c.group.in_(ids)))
        connection.execute(delete(table).where(table.c.id.in_(ids)))
    return len(ids)
