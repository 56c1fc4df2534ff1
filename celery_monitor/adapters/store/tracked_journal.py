"""Stores unfinished tasks as a table and a journal of its newest changes.

Most tasks end within seconds. To write a row when a task is received, to update it when the task starts, and to delete
it at the end would be half of the cost of a commit. So a flush appends all its changes as one value to
``tracked_changes``. After ``YOUNG_FLUSHES`` more flushes, this value is deleted, and the changes in it that no later
flush has replaced are moved to the table ``tracked``. The stored state is the table with the journal applied in order.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

import msgspec
import structlog
from msgspec import structs
from sqlalchemy import Connection, Dialect, delete, select
from sqlalchemy.sql import bindparam

from celery_monitor.adapters.store import encode, schema
from celery_monitor.adapters.store.dialects import sql_of
from celery_monitor.adapters.store.engine import UnstorableError
from celery_monitor.adapters.store.statements import Bulk, Prepared, Removal, insert, shared, upsert
from celery_monitor.core.model import Changes, TaskRef

YOUNG_FLUSHES: Final = 10
"""Number of newest flushes whose changes stay in the journal: 10 seconds with the default interval."""
MAX_YOUNG: Final = 40_000
"""Maximum changes in the journal besides those of the newest flush, because a start reads all of them. The excess is
moved in portions."""
MAX_MOVED: Final = 2_000
"""Maximum changes that a flush moves; more if the flush adds many itself. So a burst delays no flush for long, and the
journal shrinks at any rate of events."""
_MOVED_PER_ADDED: Final = 1.5

_Key = tuple[str, int]
"""ID and ``TaskRef.saved`` of a task. An ID that was removed and added again has another key."""

_Changed = tuple[list[tuple[str, TaskRef]], list[_Key]]
"""Entries that were added or replaced, and keys that were removed before that."""

ChangesByKey = dict[_Key, TaskRef | None]
"""The same by key; None if the task was removed."""

MIGRATED: Final = 1
"""``TaskRef.saved`` of the tasks that were stored before revision 0024, which stored no such number."""

SharedValues = dict[Any, Any]
"""Value → the one object for it that all entries use."""

_encode: Final = msgspec.msgpack.Encoder().encode
_SAVED, _OTHERS = map(TaskRef.__struct_fields__.index, ("saved", "others"))
_decode: Final[Callable[[bytes], _Changed]] = msgspec.msgpack.Decoder(_Changed).decode
_log = structlog.get_logger()


class TrackedJournal:
    """Appends the changes of a flush to the journal and moves older ones to the table. Not thread-safe."""

    def __init__(self, dialect: Dialect) -> None:
        self._statements = shared(dialect, _JournalStatements)
        self._stores_nul = sql_of(dialect).stores_nul
        self._flushes: dict[int, ChangesByKey] = {}
        """Sequence of a flush in the journal → its changes. The oldest flush first."""
        self._newest: dict[_Key, int] = {}
        """Key → sequence of the last flush in the journal that changed it."""
        self._new: set[_Key] = set()
        """Keys in the journal that certainly have no row in the table."""
        self._moved: dict[int, int] = {}
        """Sequence → number of its changes, from the end, that the current transaction moves."""
        self._settled: list[_Key] = []
        """Keys that are no longer in the journal once the transaction is committed."""

    def load(self, connection: Connection) -> ChangesByKey:
        """Continue the journal that the previous leader left. Returns the same as ``newest_changes``."""
        self._flushes, self._newest, self._new = {}, {}, set()
        self._moved, self._settled = {}, []
        for sequence, changed in _stored(connection):
            self._flushes[sequence] = changed
            self._newest.update(dict.fromkeys(changed, sequence))
        return _newest(self._flushes.values())

    def write(
        self,
        connection: Connection,
        changes: Changes,
        yield_point: Callable[[], None] = lambda: None,
        *,
        move: bool = True,
    ) -> None:
        """Append the changes of a flush. After a failed transaction, the same flush may be written again.

        ``move``: false to only append, because there may be no space for more. ``yield_point``: see ``Bulk.run``.
        """
        if changes.tracked or changes.forgotten:
            # Rejected here, before the changes are recorded in memory.
            if not self._stores_nul and any("\0" in uuid for uuid, _ in (*changes.forgotten, *changes.tracked)):
                raise UnstorableError("A value cannot be stored")
            body = _encode((changes.tracked, changes.forgotten))
            self._statements.append.run(connection, [(changes.sequence, body)])
            self._note(changes)
        self._moved, self._settled = self._due(changes.sequence) if move else {}, []
        if self._moved:
            self._move(connection, yield_point)

    def committed(self) -> None:
        """The transaction of the last ``write`` was committed."""
        for key in self._settled:
            del self._newest[key]
        self._new.difference_update(self._settled)
        for sequence, number in self._moved.items():
            changed = self._flushes[sequence]
            if number == len(changed):
                del self._flushes[sequence]
            else:
                for key in _last(changed, number):
                    del changed[key]
        self._moved, self._settled = {}, []

    def scrub(self, *, nul: bool) -> None:
        """A value could not be stored: replace all values in memory by ones that the database can store."""
        for changed in self._flushes.values():
            changed.update({key: encode.storable(ref, nul=nul) for key, ref in changed.items()})

    def _due(self, sequence: int) -> dict[int, int]:
        """Sequence of a flush → number of its changes to move. The oldest first; the last one may be moved in part."""
        waiting, due = sum(map(len, self._flushes.values())), {}
        left = max(MAX_MOVED, int(_MOVED_PER_ADDED * len(self._flushes.get(sequence, ()))))
        for old, changed in self._flushes.items():
            if left <= 0 or (old > sequence - YOUNG_FLUSHES and (waiting <= MAX_YOUNG or old == sequence)):
                break
            due[old] = min(left, len(changed))
            waiting -= due[old]
            left -= due[old]
        return due

    def _note(self, changes: Changes) -> None:
        """Record the changes of a flush that was appended."""
        sequence = changes.sequence
        changed = self._flushes[sequence] = _by_key(sequence, changes.tracked, changes.forgotten)
        self._new.update(
            [key for key, ref in changed.items() if ref is not None and not ref.saved and key not in self._newest]
        )
        self._newest.update(dict.fromkeys(changed, sequence))

    def _move(self, connection: Connection, yield_point: Callable[[], None]) -> None:
        """Move changes to the table. A flush that is moved in part stays in the journal, which is harmless."""
        moved = [
            (key, self._flushes[sequence][key])
            for sequence, number in self._moved.items()
            for key in _last(self._flushes[sequence], number)
            if self._newest[key] == sequence
        ]
        self._settled = [key for key, _ in moved]
        gone = ((saved, uuid) for (uuid, saved), ref in moved if ref is None and (uuid, saved) not in self._new)
        self._statements.remove.run(connection, gone, yield_point)
        rows = (encode.tracked_row(*key, ref) for key, ref in moved if ref is not None)
        self._statements.upsert.run(connection, rows, yield_point)
        whole = [sequence for sequence, number in self._moved.items() if number == len(self._flushes[sequence])]
        if whole:
            self._statements.drop.run(connection, last=whole[-1])


class _JournalStatements:
    def __init__(self, dialect: Dialect) -> None:
        table = schema.tracked_changes
        self.append = Bulk(dialect, insert(dialect, table), [column.name for column in table.columns])
        self.drop = Prepared(dialect, delete(table).where(table.c.sequence <= bindparam("last")))
        self.upsert = upsert(dialect, schema.tracked)
        self.remove = Removal(dialect, schema.tracked)


def _last(changed: ChangesByKey, number: int) -> list[_Key]:
    return list(islice(reversed(changed), number))


def newest_changes(connection: Connection) -> ChangesByKey:
    """The changes in the journal by key; None if the task was removed. The entries are the caller's."""
    return _newest(changed for _, changed in _stored(connection))


def _newest(flushes: Iterable[ChangesByKey]) -> ChangesByKey:
    """The last change of each key. The entries are copies."""
    found: ChangesByKey = {}
    for changed in flushes:
        found.update(changed)
    shared: SharedValues = {}
    return {key: None if ref is None else _compacted(ref, key[1], shared.setdefault) for key, ref in found.items()}


def _by_key(sequence: int, entries: Iterable[tuple[str, TaskRef]], removed: Iterable[_Key]) -> ChangesByKey:
    """The changes of a flush by key; None if the task was removed."""
    changed: ChangesByKey = dict.fromkeys(removed)
    changed.update({(uuid, ref.saved or sequence): ref for uuid, ref in entries})
    return changed


def _compacted(ref: TaskRef, saved: int, share: Callable[[Any, Any], Any]) -> TaskRef:
    """A copy of the entry, with equal values replaced by one shared object, as in entries from a live stream.

    Otherwise each value that was read is a separate object, which costs some 130 bytes per unfinished task.
    """
    due_at, sent_at = ref.due_at, ref.sent_at
    return TaskRef(
        share(ref.name, ref.name),
        share(ref.queue, ref.queue),
        ref.stage,
        sent_at or 0.0 if due_at == sent_at else due_at or 0.0,
        ref.started_at or 0.0,
        share(ref.seen_minute, ref.seen_minute),
        share(saved, saved),
        share(ref.host, ref.host),
        ref.others and [structs.replace(run) for run in ref.others],
        sent_at or 0.0,
        ref.received_at or 0.0,
        ref.details,
    )


def applied(tracked: Iterable[tuple[str, TaskRef]], changes: ChangesByKey) -> list[tuple[str, TaskRef]]:
    """Rows of the table with the journal applied to them."""
    unchanged = [entry for entry in tracked if (entry[0], entry[1].saved) not in changes]
    return unchanged + [(uuid, changed) for (uuid, _), changed in changes.items() if changed is not None]


def _stored(connection: Connection) -> Iterator[tuple[int, ChangesByKey]]:
    """The flushes in the journal, in order. Skips and logs values that this program did not write."""
    table, stores_nul = schema.tracked_changes, sql_of(connection.dialect).stores_nul
    for sequence, body in connection.execute(select(table.c.sequence, table.c.body).order_by(table.c.sequence)):
        try:
            changed = _decoded(body)
            yield (
                sequence,
                _by_key(sequence, *(changed if stores_nul or not _has_nul(changed) else encode.storable(changed))),
            )
        except (msgspec.MsgspecError, TypeError, ValueError, LookupError):
            _log.error("Skipped unreadable rows of the store", table=table.name, rows=1)


def _decoded(body: bytes) -> _Changed:
    try:
        return _decode(body)
    except msgspec.ValidationError:
        return _migrated(*msgspec.msgpack.decode(body))


def _migrated(entries: list[tuple[str, list[Any]]], removed: list[str]) -> _Changed:
    """Changes that were stored before revision 0024: ``saved`` was true or false, and removed IDs had no number."""
    for _, fields in entries:
        fields[_SAVED] = MIGRATED
        for run in fields[_OTHERS] or ():
            run[_SAVED] = 0
    changed: _Changed = msgspec.convert((entries, [(uuid, MIGRATED) for uuid in removed]), _Changed)
    return changed


def _has_nul(changed: _Changed) -> bool:
    """Whether an ID contains NUL: the journal was copied from a database that stores NUL. Copied rows escape it."""
    entries, removed = changed
    return any("\0" in uuid for uuid, _ in entries) or any("\0" in uuid for uuid, _ in removed)
