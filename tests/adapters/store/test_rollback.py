"""A store that is older than its last commit is detected, without false alarms."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from celery_monitor.adapters.store import SqlStore
from celery_monitor.adapters.store.sequence import SequenceFile, SequenceRecord
from celery_monitor.core.model import RolledBack
from tests.adapters.store.conftest import Open
from tests.contracts.values import NOW, changes, failure

FLUSHES = 20


@pytest.fixture
def killed(opened: Open, tmp_path: Path) -> Path:
    """A copy of a store as after ``kill -9``: with its log, after FLUSHES flushes."""
    original = tmp_path / "original" / "store.db"
    original.parent.mkdir()
    store = opened(f"sqlite:///{original}")
    store.start()
    commit(store, 1, FLUSHES)
    return copied(original, tmp_path / "killed")


def commit(store: SqlStore, first: int, last: int) -> None:
    """Flushes with a failure each."""
    for sequence in range(first, last + 1):
        store.commit(changes(sequence, now=NOW + sequence, failures=[failure(f"u{sequence}", traceback="x" * 5000)]))


def copied(path: Path, to: Path) -> Path:
    """The files of a store without its lock, in another directory."""
    to.mkdir()
    for name in ("store.db", "store.db-wal", "store.db.sequence"):
        if path.with_name(name).exists():
            shutil.copy(path.with_name(name), to)
    return to / "store.db"


def flip(path: Path, offset: int) -> None:
    """Flip one bit."""
    body = bytearray(path.read_bytes())
    body[offset] ^= 4
    path.write_bytes(body)


def started(opened: Open, path: Path) -> tuple[int, RolledBack | None]:
    """The sequence number at a start, and the missing flushes."""
    restored = opened(f"sqlite:///{path}").start()
    return restored.sequence, restored.rolled_back


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_a_bit_of_the_log_is_flipped(opened: Open, killed: Path, part: float) -> None:
    """SQLite silently drops the log from the broken frame on: the start reports the loss."""
    log = killed.with_name("store.db-wal")
    flip(log, int(log.stat().st_size * part) + 9)
    sequence, lost = started(opened, killed)
    assert lost is not None
    assert lost.flushes == FLUSHES - sequence > 0
    assert lost.committed_at == NOW + FLUSHES
    assert lost.found_at == (NOW + sequence if sequence else 0.0)


def test_the_log_is_removed(opened: Open, killed: Path) -> None:
    """Only the database file was copied or kept."""
    killed.with_name("store.db-wal").unlink()
    assert started(opened, killed) == (0, RolledBack(FLUSHES, 0.0, NOW + FLUSHES))


def test_a_backup_is_restored(opened: Open, store: SqlStore, path: Path, tmp_path: Path) -> None:
    """Commits since the backup are missing: that is reported once, and the store continues."""
    commit(store, 1, 3)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(tmp_path / "backup")) as target:
        source.backup(target)
    commit(store, 4, 9)
    store.stop()
    shutil.move(tmp_path / "backup", path)
    restored = store.start()
    assert (restored.sequence, restored.rolled_back) == (3, RolledBack(6, NOW + 3, NOW + 9))
    commit(store, 4, 4)
    store.stop()
    assert started(opened, path) == (4, None)


def nothing(_: Path) -> None:
    """Unchanged."""


def lost(note: Path) -> None:
    """Not copied with the store."""
    note.unlink()


def cut(note: Path) -> None:
    """Truncated."""
    note.write_bytes(note.read_bytes()[:20])


def garbage(note: Path) -> None:
    """From another program."""
    note.write_bytes(bytes(range(256)) * 100)


def flipped(note: Path) -> None:
    """One bit of the number is flipped."""
    flip(note, note.read_bytes().index(b" 20 ") + 1)


def behind(note: Path) -> None:
    """The process was killed between a commit and the note."""
    file = SequenceFile(note)
    noted = file.read()
    assert noted is not None
    file.open()
    file.write(SequenceRecord(noted.identity, noted.sequence - 1, noted.at))
    file.close()


def foreign(note: Path) -> None:
    """From another store that was here before."""
    file = SequenceFile(note)
    file.open()
    file.write(SequenceRecord("0123456789abcdef", 10**6, NOW))
    file.close()


def directory(note: Path) -> None:
    """Something that cannot be read or written."""
    note.unlink()
    note.mkdir()


@pytest.mark.parametrize("what", [nothing, lost, cut, garbage, flipped, behind, foreign, directory])
def test_no_false_alarm(opened: Open, killed: Path, what: Callable[[Path], None]) -> None:
    """An intact store is not reported as old, whatever files are beside it, and continues."""
    what(killed.with_name("store.db.sequence"))
    assert started(opened, killed) == (FLUSHES, None)


def test_a_store_that_was_removed_is_a_new_one(opened: Open, store: SqlStore, path: Path) -> None:
    """Errors recommend starting with an empty store: the old note does not apply."""
    commit(store, 1, 5)
    store.stop()
    path.unlink()
    assert started(opened, path) == (0, None)
