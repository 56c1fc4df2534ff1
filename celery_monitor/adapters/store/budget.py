"""The disk budget: what is given up when space is short, and in which order.

Counts, incidents, the outbox, tasks under way and fingerprints come first. Before they run out of space, samples of
failures go, oldest first, then error groups, then counts by time that are older than a day. New samples take a part of
the space that is left and no more, so that they never use up what everything else needs.

Space is short by ``store.max_bytes`` or by the file system, whichever comes first. A quota shows in neither: after a
write that was refused for want of space only free pages inside of the file are counted on, for a while.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, delete, func, select

from celery_monitor.adapters.store import schema
from celery_monitor.adapters.store.engine import Database
from celery_monitor.adapters.store.totals import Totals
from celery_monitor.core.model import Changes, Failure
from celery_monitor.errors import StoreFullError
from celery_monitor.ports import StoreSpace

SAMPLES: Final = "samples"
GROUPS: Final = "groups"
BUCKETS: Final = "buckets"
GIVEN_UP: Final = (SAMPLES, GROUPS, BUCKETS)

DAY: Final = 86_400.0
CHUNK_SIZES: Final = (250, 25, 2)
"""Rows deleted in one transaction, so that a flush waits for no more; on a full disk fewer, as the log has to grow."""
WORKS_FOR: Final = 1.0
"""Seconds of one ``reclaim``."""
REFUSED_FOR: Final = 60.0
"""Seconds after a refused write in which no space outside of the file is counted on."""
_ROW: Final = 600
"""Bytes of a sample beside its texts, with its places in the indexes."""


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes, as measured."""

    used: int
    """By what is stored, and the log."""
    limit: float
    free: float
    """What can still be written: free pages of the file, and what the file system has."""
    headroom: int
    """What samples must leave free."""

    @property
    def room(self) -> float:
        """What can be added, to the limit or to the end of the disk."""
        return min(self.limit - self.used, self.free)

    @property
    def for_samples(self) -> float:
        """What the samples of one flush may take: a quarter of what is left, so that the log stays small too."""
        return max(0.0, (self.room - self.headroom) / 4)

    @property
    def short(self) -> bool:
        """Something should be given up."""
        return self.room < self.headroom * 1.5

    @property
    def reclaimed(self) -> bool:
        """Enough was given up."""
        return self.room >= self.headroom * 2


class Budget:
    """Keeps the store within its space. ``admit`` and ``refused`` belong to commits, ``reclaim`` to housekeeping."""

    def __init__(self, database: Database, max_bytes: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._totals = Totals(database.dialect)
        self._given_up: Counter[str] = Counter(dict.fromkeys(GIVEN_UP, 0))
        self._refused_at: float | None = None
        self._space: Space | None = None

    def stats(self) -> StoreSpace:
        """As of the last flush, from memory."""
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

    def admit(self, connection: Connection, changes: Changes) -> tuple[Changes, int]:
        """The changes with as many of their samples as there is space for, the newest; and how many were left out."""
        space = self._measure(connection)
        kept = _newest_within(changes.failures, space.for_samples)
        left_out = len(changes.failures) - kept
        if not left_out:
            return changes, 0
        return replace(changes, failures=changes.failures[left_out:]), left_out

    def refused(self, changes: Changes) -> Changes:
        """A write was refused for want of space: the changes without all that can be given up."""
        self._refused_at = self._monotonic()
        return replace(changes, failures=(), groups=(), errors=())

    def count(self, what: str, number: int) -> None:
        """So many were given up."""
        self._given_up[what] += number

    def reclaim(self, now: float) -> None:
        """Give up the oldest until there is space again, for a second at most. Raises as the store's methods."""
        with self._database.read() as connection:
            if not self._measure(connection).short:
                return
        until = self._monotonic() + WORKS_FOR
        chunks = iter(CHUNK_SIZES)
        chunk = next(chunks)
        while self._monotonic() < until:
            try:
                with self._database.write() as connection:
                    if self._measure(connection).reclaimed:
                        return
                    what, number = self._give_up(connection, now, chunk)
            except StoreFullError:
                chunk = next(chunks, 0)
                if not chunk:
                    raise
                continue
            if not number:
                return
            self.count(what, number)

    def _measure(self, connection: Connection) -> Space:
        usage = self._database.usage(connection)
        refused = self._refused_at is not None and self._monotonic() - self._refused_at < REFUSED_FOR
        free = usage.reusable + (0.0 if refused else usage.disk_free)
        self._space = Space(usage.used, self._max_bytes, free, usage.headroom)
        return self._space

    def _give_up(self, connection: Connection, now: float, chunk: int) -> tuple[str, int]:
        """Delete a portion of the least important that is there."""
        if number := _delete_samples(connection, chunk):
            return SAMPLES, number
        if number := _delete_groups(connection, chunk):
            return GROUPS, number
        buckets = schema.buckets.c
        oldest = connection.execute(select(func.min(buckets.start))).scalar()
        if oldest is None or oldest >= now - DAY:
            return BUCKETS, 0
        return BUCKETS, self._totals.expire(connection, oldest, limit=chunk)


def _newest_within(failures: Sequence[Failure], allowance: float) -> int:
    """How many of the last ones fit."""
    for number, one in enumerate(reversed(failures)):
        allowance -= _ROW + len(one.traceback) + len(one.message) + len(one.args or "") + len(one.kwargs or "")
        if allowance < 0:
            return number
    return len(failures)


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
