"""Errors at the start, and that refused files are unchanged."""

import logging
import os
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.adapters.store.dialects.sqlite import CHECKED_SIZE
from celery_monitor.adapters.store.dialects.sqlite_refusal import not_writable
from celery_monitor.core.model import Action, OutboxRequest
from celery_monitor.errors import LeaseLostError, StoreFullError, StoreUnavailableError, StoreUnusableError
from tests.adapters.store.conftest import Open
from tests.contracts.values import NOW, bucket, changes, failure, series
from tests.e2e.disk import remount, small_disk


def refused(store: SqlStore) -> str:
    """The error of the start."""
    with pytest.raises(StoreUnusableError) as caught:
        store.start()
    return str(caught.value)


def fill(path: Path, flushes: int = 20) -> None:
    """Create a store with data, all of it in the database file."""
    store = open_store(f"sqlite:///{path}", retention=1e9, fingerprint_window=10)
    store.start()
    for sequence in range(1, flushes + 1):
        failures = [failure(f"u{sequence}-{i}", group=f"g{i}", traceback="x" * 3000) for i in range(5)]
        store.commit(changes(sequence, series=[series(sent=sequence)], buckets=[bucket(sent=1)], failures=failures))
    store.stop()


def commit_ten(store: SqlStore, after: int) -> None:
    """Flushes that read most of the tables."""
    for sequence in range(after + 1, after + 11):
        store.commit(changes(sequence, buckets=[bucket(name=f"n{sequence}")], failures=[failure()]))


def test_new_file(store: SqlStore, path: Path) -> None:
    """A new file is readable only by its owner, because it contains task data; a commit is on disk when it returns."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with store._database.write() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() == 2
    with store._database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA query_only").scalar() == 1


def test_relative_path(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes and a path are relative to the working directory; odd characters are not special."""
    monkeypatch.chdir(tmp_path)
    opened("sqlite:///odd #1 name.db").start()
    assert (tmp_path / "odd #1 name.db").stat().st_size > 0


def test_temporary(opened: Open) -> None:
    """``sqlite://`` is a store for one run with all functions."""
    store = opened("sqlite://")
    store.start()
    store.commit(changes(1, buckets=[bucket(sent=1)]))
    directory = Path(store._database._dialect.location).parent
    assert len(store.reader.buckets(0, NOW + 1)) == 1
    store.stop()
    assert not directory.exists()
    with pytest.raises(StoreUnavailableError):
        store.reader.buckets(0, NOW + 1)
    assert store.start().sequence == 0


@pytest.mark.parametrize(
    "url", ["mysql://user:secret@db/monitor", "mssql://x", "nonsense", "", "sqlite:///x.db?mode=ro"]
)
def test_other_urls(url: str) -> None:
    """Unsupported URLs are refused with the supported ones, and without their secrets."""
    with pytest.raises(StoreUnusableError, match=r"store\.url") as caught:
        open_store(url, retention=1, fingerprint_window=1)
    assert "secret" not in str(caught.value)


def test_construction_does_nothing(opened: Open, path: Path) -> None:
    """Before the start there is no file."""
    store = opened()
    assert not path.exists()
    with pytest.raises(StoreUnavailableError):
        store.outbox.pending()
    assert not path.exists()


def test_quiet(opened: Open, capfd: pytest.CaptureFixture[str]) -> None:
    """Creation and migration print nothing and do not change the logging."""
    before = (logging.root.level, list(logging.root.handlers), logging.getLogger("alembic").level)
    opened().start()
    assert (logging.root.level, list(logging.root.handlers), logging.getLogger("alembic").level) == before
    assert capfd.readouterr() == ("", "")


def test_no_directory(opened: Open, tmp_path: Path) -> None:
    """A missing directory is named."""
    text = refused(opened(f"sqlite:///{tmp_path}/missing/store.db"))
    assert f"the directory {tmp_path}/missing does not exist" in text
    assert not (tmp_path / "missing").exists()
    assert "cannot create a file in /proc: set a different store.url" in refused(opened("sqlite:////proc/x.db"))


def test_a_directory(opened: Open, path: Path) -> None:
    """A directory instead of the file is named."""
    path.mkdir()
    assert "it is a directory" in refused(opened())


@pytest.mark.parametrize("kind", ["long", "loop", "file"])
def test_a_path_that_cannot_be(opened: Open, path: Path, kind: str) -> None:
    """A name that is too long, a link to itself, a file instead of a directory: named by daemon and commands."""
    path.symlink_to(path)
    place = {"long": path.with_name("x" * 300), "loop": path, "file": Path(__file__, "monitor.db")}[kind]
    assert "set store.url to the path of a file" in refused(opened(f"sqlite:///{place}"))
    with pytest.raises(StoreUnusableError, match=r"No store found|set store\.url"):
        opened(f"sqlite:///{place}").attach()


def test_no_file_where_the_store_is(opened: Open, path: Path) -> None:
    """A device, a pipe or a socket instead of the database or its log is refused without retries."""
    os.mkfifo(path)
    assert f"{path} is not a regular file" in refused(opened())
    assert "/dev/null is not a regular file" in refused(opened("sqlite:////dev/null"))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert "it is a socket or a device" in refused(opened())
    path.unlink()
    os.mkfifo(f"{path}-wal")
    assert f"{path}-wal is not a regular file" in refused(opened())


def test_pipes_beside_the_store(opened: Open, path: Path) -> None:
    """Pipes instead of the auxiliary files only disable the functions of these files."""
    for end in ("lock", "sequence", "applying", "reserve"):
        os.mkfifo(f"{path}.{end}")
    store = opened()
    store.start()
    store.commit(changes(1, buckets=[bucket(sent=1)]))
    assert "in use by another celery-monitor (unknown process)" in refused(opened())
    assert len(store.reader.buckets(0, NOW + 1)) == 1


def start_as_nobody(path: Path, method: str = "start") -> str:
    """The error of the start, if any, for a user without privileges."""
    script = (
        "import os, sys\n"
        "from celery_monitor.adapters.store import open_store\n"
        "from celery_monitor.errors import StoreUnusableError, StoreUnavailableError\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        f"try: open_store(f'sqlite:///{{sys.argv[1]}}', retention=1, fingerprint_window=1).{method}()\n"
        "except (StoreUnusableError, StoreUnavailableError) as exc: print(exc)\n"
    )
    return subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("kind", ["directory", "file", "entered"])
def test_not_writable(kind: str) -> None:
    """The error names the directory or file and the user."""
    # Not below tmp_path, which another user may not even enter.
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        named, mode = {
            "directory": (directory, 0o555),
            "file": (directory / "store.db.lock", 0o777),
            "entered": (directory, 0o000),
        }[kind]
        if kind == "file":
            named.touch(0o400)
        directory.chmod(mode)
        text = start_as_nobody(directory / "store.db")
    assert f"has no write permission for {named}: make it and its directory writable" in text
    assert "or set a different store.url" in text


@pytest.mark.parametrize("mode", [0o400, 0o444], ids=["unreadable", "readable"])
def test_command_of_another_user(mode: int) -> None:
    """A command needs write permission, too, even to read. SQLite's own message names neither file nor user."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        path = directory / "store.db"
        store = open_store(f"sqlite:///{path}", retention=1.0, fingerprint_window=1)
        store.start()
        store.stop()
        path.chmod(mode)
        directory.chmod(0o555)
        text = start_as_nobody(path, "attach")
    assert f"has no write permission for {path}: make it and its directory writable" in text
    assert "run the command as the monitor's user" in text


@pytest.mark.parametrize("existing", [False, True])
def test_a_read_only_file_system(opened: Open, tmp_path: Path, *, existing: bool) -> None:
    """Like a container's root: permissions are not the cause, and changing the owner does not help."""
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        if existing:
            (disk / "store.db").touch()
        remount(disk, "ro")
        text = refused(opened(f"sqlite:///{disk}/store.db"))
        assert f"The store {disk}/store.db cannot be opened: {disk} is on a read-only file system: mount" in text
        assert "permission" not in text
        assert str(not_writable(disk / "store.db")).startswith(f"{disk} is on a read-only file system")


def test_a_file_system_without_space(opened: Open, tmp_path: Path) -> None:
    """A start on a full disk succeeds once there is space, and gives the reason until then."""
    with small_disk(tmp_path / "disk", megabytes=8) as disk:
        remount(disk, "nr_inodes=1")
        store = opened(f"sqlite:///{disk}/store.db")
        with pytest.raises(
            StoreFullError, match=f"{disk}/store.db cannot be opened now: the file system is full: free"
        ):
            store.start()
        remount(disk, "nr_inodes=100")
        store.start()
        store.stop()


def test_a_file_in_place_of_a_directory(opened: Open, path: Path) -> None:
    """It is named, wherever in the path it is."""
    path.touch()
    for place in (path / "store.db", path / "more" / "store.db"):
        wanted = f"{path} is not a directory: set store.url to the path of a file"
        assert wanted in refused(opened(f"sqlite:///{place}"))
        assert not_writable(place) == wanted


def test_a_temporary_store_without_a_place(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing is writable, a temporary store cannot be created either."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert "set TMPDIR to a directory" in refused(opened("sqlite://"))


def test_command_cannot_open_a_temporary_store(opened: Open) -> None:
    """It belongs to one process; the error names the setting."""
    with pytest.raises(StoreUnusableError, match=r"temporary file of the daemon.*set store\.url to the path of a file"):
        opened("sqlite:///:memory:").attach()


@pytest.mark.parametrize("content", [b"this is not a database at all\n" * 500, b"SQLite format 3\0" + b"\xff" * 4096])
def test_not_a_database(opened: Open, path: Path, content: bytes) -> None:
    """A file of another kind is refused and unchanged."""
    path.write_bytes(content)
    text = refused(opened())
    assert str(path) in text
    assert "damaged or not a database" in text
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_corrupt(opened: Open, path: Path, damage: str) -> None:
    """A damaged store is refused and unchanged."""
    fill(path)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[8192:40960] = b"\xaa" * 32768
    path.write_bytes(content)
    assert "damaged" in refused(opened())
    assert path.read_bytes() == content


def test_corrupt_while_running(opened: Open, path: Path) -> None:
    """Damage that is found later also ends the monitor, with the same error."""
    fill(path)
    store = opened()
    restored = store.start()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xaa" * (path.stat().st_size - 4096))
    store._database._readers.dispose()
    with pytest.raises(StoreUnusableError, match="damaged"):
        commit_ten(store, restored.sequence)


def test_newer_version(opened: Open, path: Path) -> None:
    """A store of a newer version is refused with its revision, and unchanged."""
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE celery_monitor_version SET version_num = '9999'")
        connection.commit()
    content = path.read_bytes()
    text = refused(opened())
    assert "written by a newer version of celery-monitor (revision 9999)" in text
    assert path.read_bytes() == content
    with pytest.raises(StoreUnusableError, match="newer version"):
        opened().attach()


@pytest.mark.parametrize("table", ["users", "alembic_version"])
def test_another_program(opened: Open, path: Path, table: str) -> None:
    """Another program's database is refused and unchanged."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {table} (version_num TEXT)")
        connection.commit()
    content = path.read_bytes()
    text = refused(opened())
    assert "tables of another program" in text
    assert table in text
    assert path.read_bytes() == content


def test_empty_file(opened: Open, path: Path) -> None:
    """An empty file is used for a new store (a volume's file may have to exist before)."""
    path.touch()
    assert opened().start().sequence == 0


def test_a_large_file_opens_quickly(opened: Open, path: Path) -> None:
    """Files beyond CHECKED_SIZE are not read completely at the start."""
    fill(path, 1)
    with path.open("r+b") as file:
        file.truncate(CHECKED_SIZE + 4096)
    assert opened().start().sequence == 1


def test_second_daemon(opened: Open, store: SqlStore, path: Path) -> None:
    """A second daemon on the same file is refused, with the process that has it; the first one continues."""
    text = refused(opened())
    assert f"process {os.getpid()} on" in text
    assert "stop that one" in text
    store.commit(changes(1))
    store.stop()
    assert opened().start().sequence == 1


def test_fenced(opened: Open, store: SqlStore, path: Path) -> None:
    """If the lock does not work, only the last started daemon can commit, and the other one gets an error."""
    store.commit(changes(1, counters={"messages": 1.0}))
    path.with_name("store.db.lock").unlink()
    second = opened()
    assert second.start().sequence == 1
    for sequence in (1, 2):
        with pytest.raises(LeaseLostError, match="Another celery-monitor"):
            store.commit(changes(sequence, counters={"messages": 99.0}))
    second.commit(changes(2, counters={"messages": 2.0}))
    second.stop()
    assert opened().start().counters == {"messages": 2.0}


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_taken_away(store: SqlStore, path: Path, how: str) -> None:
    """If the file is removed, the daemon ends instead of committing to a deleted file."""
    store.commit(changes(1))
    path.unlink()
    if how == "replaced":
        path.touch()
    with pytest.raises(StoreUnusableError, match="removed or replaced"):
        store.commit(changes(2))


def test_attach(opened: Open, store: SqlStore) -> None:
    """The command line uses the file while the daemon runs, which continues."""
    row = OutboxRequest("pagerduty", "k", Action.TRIGGER, "", NOW)
    store.commit(changes(1, outbox=[row], buckets=[bucket(sent=1)]))
    store.outbox.dead(store.outbox.due(NOW, 1)[0], NOW, "400")
    other = opened()
    other.attach()
    assert len(other.reader.buckets(0, NOW + 1)) == 1
    assert other.outbox.revive(None, NOW) == 1
    assert other.outbox.enqueue(OutboxRequest("email", "2026-11-22", Action.REPORT), NOW)
    with pytest.raises(StoreUnavailableError):
        other.commit(changes(2))
    store.commit(changes(2))
    assert len(store.outbox.due(NOW, 10)) == 2


def test_attach_to_nothing(opened: Open, path: Path) -> None:
    """The command line does not create a store."""
    with pytest.raises(StoreUnusableError, match="No store found"):
        opened().attach()
    assert not path.exists()
    path.touch()
    with pytest.raises(StoreUnusableError, match="start the daemon"):
        opened().attach()
    assert path.read_bytes() == b""


def test_edited_by_hand(opened: Open, path: Path) -> None:
    """Foreign JSON is refused."""
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE series SET runtime = '{}'")
        connection.commit()
    assert "invalid data" in refused(opened())
