"""Tasks under way, as a journal of the newest flushes in front of a table.

Most tasks end within seconds. A row for each of them, written when it is received, again when it is started, and
deleted at its end, was half of what a commit costs. So a flush appends all its changes as one value to
``tracked_changes``. ``YOUNG_FLUSHES`` flushes later that value is removed, and only what no later flush has changed
goes into the table ``tracked``. What is stored is the table with the journal applied to it, in its order.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, Final, cast

import msgspec
import structlog
from sqlalchemy import Connection, Dialect, delete, select
from sqlalchemy.sql import bindparam

from celery_monitor.adapters.store import encode, schema
from celery_monitor.adapters.store.dialects import sql_of
from celery_monitor.adapters.store.engine import UnstorableError
from celery_monitor.adapters.store.statements import Bulk, Prepared, Removal, insert, upsert
from celery_monitor.core.model import Changes, TaskRef

YOUNG_FLUSHES: Final = 10
"""Flushes whose changes stay in the journal: 10 seconds with the usual interval."""
MAX_YOUNG: Final = 20_000
"""Changes that stay in it, except those of the newest flush: a start reads them all. The rest is moved in portions."""
MOVED_AT_ONCE: Final = 5_000
"""Changes that a flush moves at most, or twice as many as it brings: so a burst delays no flush for long, and the
journal still shrinks whatever the rate is."""

_Changed = tuple[list[tuple[str, TaskRef]], list[str]]
"""What was added or replaced, and the IDs that were removed before that."""

SharedValues = dict[Any, Any]
"""Each value that several entries share, by itself."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Changed).decode
_log = structlog.get_logger()


class TrackedJournal:
    """Writes the changes of a flush, and moves older ones into the table. Used by commits only, one at a time."""

    def __init__(self, dialect: Dialect) -> None:
        table = schema.tracked_changes
        self._append = Bulk(dialect, insert(dialect, table), [column.name for column in table.columns])
        self._drop = Prepared(dialect, delete(table).where(table.c.sequence <= bindparam("last")))
        self._upsert = upsert(dialect, schema.tracked)
        self._remove = Removal(dialect, schema.tracked)
        self._stores_nul = sql_of(dialect).stores_nul
        self._flushes: dict[int, dict[str, TaskRef | None]] = {}
        """Sequence of each flush in the journal → what it has changed, by ID (None: removed); the oldest first."""
        self._newest: dict[str, int] = {}
        """ID → sequence of the last flush in the journal that changed it."""
        self._new: set[str] = set()
        """IDs in the journal of which the table surely has no row."""
        self._moved: dict[int, int] = {}
        """Sequence → how many of its changes the present transaction moves, from the end."""
        self._settled: list[str] = []
        """Ids that no flush in the journal has changed once it is committed."""

    def load(self, connection: Connection) -> None:
        """Go on with the journal that another process has left."""
        self._flushes, self._newest, self._new = {}, {}, set()
        self._moved, self._settled = {}, []
        for sequence, (kept, removed) in _stored(connection):
            self._note(sequence, kept, removed, in_table=True)

    def write(
        self,
        connection: Connection,
        changes: Changes,
        yield_point: Callable[[], None] = lambda: None,
        *,
        move: bool = True,
    ) -> None:
        """Append the changes of a flush. The same flush may be written again after a transaction that failed.

        Not ``move``: only append, as there may be no space for more. ``yield_point``: see ``Bulk.run``.
        """
        if changes.tracked or changes.forgotten:
            # What cannot be stored is refused before it is remembered.
            if not self._stores_nul and any("\0" in uuid for uuid in (*changes.forgotten, *dict(changes.tracked))):
                raise UnstorableError("A value cannot be stored")
            body = _encode((changes.tracked, changes.forgotten))
            self._append.run(connection, [(changes.sequence, body)])
            self._note(changes.sequence, changes.tracked, changes.forgotten)
        self._moved, self._settled = self._due(changes.sequence) if move else {}, []
        if self._moved:
            self._move(connection, yield_point)

    def committed(self) -> None:
        """The last ``write`` is committed."""
        for uuid in self._settled:
            del self._newest[uuid]
        self._new.difference_update(self._settled)
        for sequence, number in self._moved.items():
            changed = self._flushes[sequence]
            if number == len(changed):
                del self._flushes[sequence]
            else:
                for uuid in _last(changed, number):
                    del changed[uuid]
        self._moved, self._settled = {}, []

    def scrub(self, *, nul: bool) -> None:
        """Something could not be stored: from now on the values that wait here are ones that every database takes."""
        for changed in self._flushes.values():
            changed.update({uuid: encode.storable(ref, nul=nul) for uuid, ref in changed.items()})

    def _due(self, sequence: int) -> dict[int, int]:
        """How many changes of which flushes are moved, the oldest first. Of the last one it can be a part."""
        waiting, due = sum(map(len, self._flushes.values())), {}
        left = max(MOVED_AT_ONCE, 2 * len(self._flushes.get(sequence, ())))
        for old, changed in self._flushes.items():
            if left <= 0 or (old > sequence - YOUNG_FLUSHES and (waiting <= MAX_YOUNG or old == sequence)):
                break
            due[old] = min(left, len(changed))
            waiting -= due[old]
            left -= due[old]
        return due

    def _note(
        self, sequence: int, kept: Sequence[tuple[str, TaskRef]], removed: Sequence[str], *, in_table: bool = False
    ) -> None:
        newest, changed = self._newest, cast("dict[str, TaskRef | None]", dict.fromkeys(removed))
        newest.update(dict.fromkeys(removed, sequence))
        if not in_table:
            self._new.update([uuid for uuid, ref in kept if not ref.saved and uuid not in newest])
        newest.update(dict.fromkeys(map(itemgetter(0), kept), sequence))
        changed.update(kept)
        self._flushes[sequence] = changed

    def _move(self, connection: Connection, yield_point: Callable[[], None]) -> None:
        """Of a flush that is moved in part, the journal keeps all: the table with it applied is the same either way."""
        moved = [
            (uuid, self._flushes[sequence][uuid])
            for sequence, number in self._moved.items()
            for uuid in _last(self._flushes[sequence], number)
            if self._newest[uuid] == sequence
        ]
        self._settled = [uuid for uuid, _ in moved]
        gone = ((uuid,) for uuid, ref in moved if ref is None and uuid not in self._new)
        self._remove.run(connection, gone, yield_point)
        rows = (encode.tracked_row(uuid, ref) for uuid, ref in moved if ref is not None)
        self._upsert.run(connection, rows, yield_point)
        whole = [sequence for sequence, number in self._moved.items() if number == len(self._flushes[sequence])]
        if whole:
            self._drop.run(connection, last=whole[-1])


def _last(changed: dict[str, TaskRef | None], number: int) -> list[str]:
    return list(islice(reversed(changed), number))


def newest_changes(connection: Connection) -> dict[str, TaskRef | None]:
    """What the journal says, by ID; None for what was removed. All else is as the table has it."""
    found: dict[str, TaskRef | None] = {}
    shared: SharedValues = {}
    for _, (kept, removed) in _stored(connection):
        for uuid in removed:
            found[uuid] = None
        for uuid, ref in kept:
            ref.saved = True
            found[uuid] = compacted(ref, shared)
    return found


def compacted(ref: TaskRef, shared: SharedValues) -> TaskRef:
    """The entry, in which values that repeat are the same objects as in other entries, as in entries of a live stream.

    Each value that was read is an object of its own, which costs some 130 bytes for each task under way.
    """
    ref.name = shared.setdefault(ref.name, ref.name)
    ref.queue = shared.setdefault(ref.queue, ref.queue)
    ref.host = shared.setdefault(ref.host, ref.host)
    ref.seen_minute = shared.setdefault(ref.seen_minute, ref.seen_minute)
    ref.started_at, ref.received_at = ref.started_at or 0.0, ref.received_at or 0.0
    ref.sent_at = ref.sent_at or 0.0
    ref.due_at = ref.sent_at if ref.due_at == ref.sent_at else ref.due_at or 0.0
    return ref


def applied(
    tracked: Iterable[tuple[str, TaskRef]], changes: dict[str, TaskRef | None]
) -> Iterator[tuple[str, TaskRef]]:
    """Rows of the table with the journal applied to them."""
    for uuid, ref in tracked:
        if uuid not in changes:
            yield uuid, ref
    for uuid, changed in changes.items():
        if changed is not None:
            yield uuid, changed


def _stored(connection: Connection) -> Iterator[tuple[int, _Changed]]:
    """The journal, in its order. What this program did not write is left out, and said."""
    table, stores_nul = schema.tracked_changes, sql_of(connection.dialect).stores_nul
    for sequence, body in connection.execute(select(table.c.sequence, table.c.body).order_by(table.c.sequence)):
        try:
            changed = _decode(body)
            yield sequence, changed if stores_nul or not _has_nul(changed) else encode.storable(changed)
        except (msgspec.MsgspecError, TypeError, ValueError):
            _log.error("Skipped unreadable rows of the store", table=table.name, rows=1)


def _has_nul(changed: _Changed) -> bool:
    """Whether an ID has a NUL: a journal copied from a database that takes it. The copied rows have it escaped."""
    kept, removed = changed
    return any("\0" in uuid for uuid, _ in kept) or any("\0" in uuid for uuid in removed)
