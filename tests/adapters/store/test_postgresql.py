"""PostgreSQL: its errors, and values that only SQLite accepts."""

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from msgspec import structs
from sqlalchemy import create_engine, event

from celery_monitor.adapters.store import SqlStore, migrate, open_store, outbox
from celery_monitor.adapters.store.dialects import postgresql as dialect
from celery_monitor.adapters.store.dialects.postgresql_arrays import Array, Bigints, Blobs, Booleans, Doubles, Texts
from celery_monitor.adapters.store.dialects.postgresql_connection import AnswerTimeouts, BoundedConnection
from celery_monitor.adapters.store.schema import metadata
from celery_monitor.core.model import SeriesKey, TaskRef
from celery_monitor.core.paging import cursor
from celery_monitor.errors import MonitorError, QueryTimeoutError, StoreUnavailableError, StoreUnusableError
from celery_monitor.ports import FailureFilter
from celery_monitor.settings.secret import SecretSource
from tests.adapters.store.committer import FINGERPRINT_WINDOW, disagreements, flush
from tests.adapters.store.test_hostile import TEXTS, everywhere
from tests.adapters.store.test_queries import answer_within
from tests.conftest import Start
from tests.contracts.values import NOW, bucket, changes, failure, series, worker
from tests.servers import PgBouncer, PostgreSQL
from tests.servers.ports import free_port
from tests.servers.waiting import wait_until

Opened = Callable[..., SqlStore]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Creates stores, not started, and stops them after the test."""
    stores: list[SqlStore] = []

    def make(url: str, password: Path | None = None) -> SqlStore:
        secret = SecretSource(None, password)
        made = open_store(
            url, password=secret, directory=tmp_path, retention=1e9, fingerprint_window=FINGERPRINT_WINDOW
        )
        stores.append(made)
        return made

    yield make
    for store in stores:
        store.stop()


@pytest.fixture
def store(postgresql_url: str, opened: Opened) -> SqlStore:
    """A started store."""
    started = opened(postgresql_url)
    started.start()
    return started


@pytest.mark.parametrize("new", [True, False], ids=["new", "migrated"])
def test_the_schema(postgresql: PostgreSQL, postgresql_url: str, opened: Opened, *, new: bool) -> None:
    """Exactly the tables, columns and indexes of ``schema``; sorted texts have code point order."""
    url = postgresql.new_database() if new else postgresql_url
    opened(url).start()
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        options: dict[str, Any] = {
            "version_table": migrate.VERSION_TABLE,
            "compare_type": True,
            "compare_server_default": True,
        }
        # Alembic knows nothing of indexes that are made on other databases only.
        options["include_object"] = lambda item, *_: getattr(item, "_ddl_if", None) is None
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        collations = connection.exec_driver_sql(
            "SELECT DISTINCT a.attname, c.collname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid "
            "AND a.attnum = ANY(i.indkey) JOIN pg_collation c ON c.oid = a.attcollation "
            "JOIN pg_class t ON t.oid = i.indrelid WHERE t.relnamespace = 'public'::regnamespace "
            "AND t.relname <> 'celery_monitor_version'"
        ).all()
    engine.dispose()
    assert {name for _, name in collations} == {"C"}


def refused(store: SqlStore) -> MonitorError:
    """The error of a start, which attaching and the command line have, too."""
    with pytest.raises(MonitorError) as caught:
        store.start()
    with pytest.raises(type(caught.value)):
        store.attach()
    assert "s3cret" not in str(caught.value)
    return caught.value


def test_what_is_wrong_is_said(postgresql: PostgreSQL, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each error has a remedy and no password; temporary ones are retried."""
    guarded = postgresql.url("postgres", "guarded:s3cret")
    inaccessible, standby = postgresql.new_database(), postgresql.new_database()
    postgresql.execute("CREATE DATABASE latin OWNER monitor ENCODING 'LATIN1' TEMPLATE template0")
    latin = postgresql.url("latin")
    postgresql.execute("ALTER SCHEMA public OWNER TO postgres", database=inaccessible.rpartition("/")[2])
    postgresql.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC, monitor", database=inaccessible.rpartition("/")[2])
    postgresql.execute("GRANT USAGE ON SCHEMA public TO monitor", database=inaccessible.rpartition("/")[2])
    postgresql.execute(f"ALTER DATABASE {standby.rpartition('/')[2]} SET default_transaction_read_only = on")
    away = f"postgresql://monitor:s3cret@127.0.0.1:{free_port()}/monitor"
    postgresql.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 0")
    later = {
        postgresql.url("postgres", "few:s3cret"): 'too many connections for role "few".*CONNECTION LIMIT',
        guarded: "password authentication failed.*store.password_file",
        postgresql.url("nowhere", "monitor:s3cret"): 'database "nowhere" does not exist.*CREATE DATABASE',
        postgresql.url("postgres", "nobody:s3cret"): 'role "nobody" does not exist.*create the role',
        away: "refused.*check host and port",
        "postgresql://monitor:s3cret@nowhere.invalid/monitor": "check the host",
        standby: "read-only standby.*primary",
    }
    never = {
        inaccessible: "may not create tables in schema public.*GRANT CREATE",
        latin: "encoding LATIN1.*ENCODING 'UTF8'",
        "postgresql://monitor:s3cret@h/d?sslmod=x": "cannot be read.*percent-encoded",
    }
    for url, text in later.items():
        error = refused(opened(url))
        assert isinstance(error, StoreUnavailableError), url
        assert re.search(text, str(error)), str(error)
    for url, text in never.items():
        with pytest.raises(StoreUnusableError, match=text):
            opened(url).start()
    monkeypatch.setattr(dialect, "MIN_VERSION", 99)
    with pytest.raises(StoreUnusableError, match=r"PostgreSQL \d+: at least version 99 is needed"):
        opened(postgresql.new_database()).start()


def test_a_password_is_read_again(postgresql: PostgreSQL, opened: Opened, tmp_path: Path) -> None:
    """A changed password is used for the next connection, without a restart."""
    name = postgresql.new_database(owner="guarded").rpartition("/")[2]
    postgresql.execute("ALTER SCHEMA public OWNER TO guarded", database=name)
    file = tmp_path / "password"
    file.write_text("wrong\n")
    store = opened(postgresql.url(name, "guarded"), file)
    with pytest.raises(StoreUnavailableError, match="password authentication failed"):
        store.start()
    file.write_text("secret\n")
    assert store.start().sequence == 0


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, SQLite works, and the error says how to install the driver."""
    for name in [*sys.modules]:
        if name.startswith("celery_monitor.adapters.store.dialects.postgresql") and not name.endswith("_sql"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreUnusableError, match=r"pip install 'celery-monitor\[postgresql\]'"):
        open_store("postgresql://u@h/d", retention=1.0, fingerprint_window=1)
    open_store("sqlite://", retention=1.0, fingerprint_window=1)


def test_two_starts_at_once(postgresql: PostgreSQL, opened: Opened) -> None:
    """One creates the tables and leads; the other one waits with the same tables."""
    url = postgresql.new_database()
    stores = {name: opened(url) for name in ("a", "b")}
    with ThreadPoolExecutor() as threads:
        restored = dict(zip(stores, threads.map(lambda name: stores[name].lead(name), stores), strict=True))
    (leader,) = [name for name in stores if restored[name] is not None]
    stores[leader].commit(flush(1))
    assert {store.lease().holder for store in stores.values()} == {leader}


@pytest.mark.parametrize("number", [0, 1, 1999, 2000, 2001, 4001])
def test_any_number_of_rows(store: SqlStore, number: int) -> None:
    """All are inserted, replaced and deleted."""
    keys = [SeriesKey(f"task{index}", "q", "") for index in range(number)]
    for sequence, count in ((1, 5), (2, 9)):
        rows = [structs.replace(series(), key=key, counts=(count,) * 8) for key in keys]
        saved = sequence - 1
        tracked = [(f"u{at}", TaskRef(name=f"task{at}", seen_minute=count, saved=saved)) for at in range(number)]
        store.commit(changes(sequence=sequence, series=rows, tracked=tracked))
    store.stop()
    restored = store.start()
    assert {one.key: one.counts[0] for one in restored.series} == dict.fromkeys(keys, 9)
    store.commit(changes(sequence=3, dropped_series=keys, forgotten=[(f"u{at}", 1) for at in range(number)]))
    store.stop()
    restored = store.start()
    assert (list(restored.series), list(restored.tracked)) == ([], [])


def test_a_key_that_comes_twice(store: SqlStore) -> None:
    """A bucket occurs once for each host of its task: they add up, in any portion."""
    twice = [bucket(name=name, sent=number) for number in (1, 2) for name in ("a", "b", "a")]
    store.commit(changes(1, buckets=twice))
    assert {row.name: row.counts[0] for row in store.reader.buckets(0, NOW * 2)} == {"a": 6, "b": 3}


@pytest.mark.parametrize("name", ["emoji", "nul", "quotes", "bidi", "newlines", "empty", "surrogate", "widest"])
def test_texts(store: SqlStore, name: str) -> None:
    """Any text is restored, NUL and surrogates as an escape, and is found by its original value."""
    text = {**TEXTS, "surrogate": "\udcff\0", "widest": "é" * 255}[name]
    stored = text.encode(errors="backslashreplace").decode().replace("\0", r"\x00")
    store.commit(everywhere(text))
    store.commit(everywhere(text))
    reader = store.reader
    assert [row.counts[0] for row in reader.buckets(0, NOW * 2)] == [1]
    assert [found.message for found in reader.failures(FailureFilter(task=text, exception=text)).rows] == [stored]
    assert [found.uuid for found in reader.failure(text)] == [stored]
    assert [row.frame for row in reader.groups(0, NOW * 2, name=text)] == [stored]
    assert len(reader.incidents(limit=9, key=text).rows) == 1
    assert [row.name for row in reader.tasks(limit=9, cursor=cursor(("", ""))).rows] == ([stored] if stored else [])
    assert [item.key for item in store.outbox.due(NOW, 9)] == [stored]
    store.stop()
    assert [one.key.name for one in store.start().series] == [stored]


def test_numbers(store: SqlStore) -> None:
    """Numbers beyond 64 bits are limited, NaN is 0; an integer may replace a float."""
    store.commit(
        changes(
            1,
            workers=[worker(pid=2**70, last_heartbeat=float("nan"))],
            failures=[failure(at=3), failure("u2", at=4.5)],
        )
    )
    assert [(one.pid, one.last_heartbeat) for one in store.reader.workers()] == [(2**63 - 1, 0.0)]
    assert {found.at for found in store.reader.failures(FailureFilter()).rows} == {3.0, 4.5}


def test_a_commit_of_unknown_outcome(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection breaks before the answer: whether applied or not, the retry applies it once."""
    done = BoundedConnection.commit
    lost = iter([True, None, False, None])

    def commit(self: BoundedConnection) -> None:
        written = next(lost, None)
        if written is not False:
            done(self)
        if written is not None:
            self.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(BoundedConnection, "commit", commit)
    for sequence in (1, 2):
        with pytest.raises(StoreUnavailableError, match="closed the connection"):
            store.commit(flush(sequence))
        store.commit(flush(sequence))
    store.commit(flush(3))
    store.stop()
    assert disagreements(store) == []
    assert store.start().sequence == 3


def test_a_query_ends_at_its_deadline(store: SqlStore) -> None:
    """Also in the database."""
    with (
        answer_within(0.2),
        pytest.raises(QueryTimeoutError, match="timed out: narrow it"),
        store._database.read() as asked,
    ):
        asked.exec_driver_sql("SELECT pg_sleep(30)")
    assert store.reader.workers() == []


def test_a_writer_waits_for_another_one(
    postgresql_url: str, store: SqlStore, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For LOCK_TIMEOUT; then the error is retryable."""
    beside = opened(postgresql_url)
    beside.attach()
    monkeypatch.setattr(dialect, "LOCK_TIMEOUT", 0.2)
    with store._database.write(), pytest.raises(StoreUnavailableError, match="is blocking it"):
        beside.outbox.revive(None, NOW)
    assert beside.outbox.revive(None, NOW) == 0


def test_through_a_pooler(
    postgresql: PostgreSQL, postgresql_url: str, opened: Opened, start: Start, tmp_path: Path
) -> None:
    """In transaction mode each transaction may use another connection: concurrent flushes and queries are correct."""
    pooler = start(PgBouncer(postgresql, tmp_path / "pgbouncer"))
    store = opened(pooler.url(postgresql_url.rpartition("/")[2]))
    store.start()
    torn: list[int] = []
    stopping = threading.Event()

    def read() -> None:
        while not stopping.is_set():
            with answer_within(60):
                rows = store.reader.tasks(limit=99).rows
            torn.extend(row.counts[0] for row in rows if row.counts[0] != row.counts[4])

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for sequence in range(1, 31):
        store.commit(flush(sequence))
    stopping.set()
    for reader in readers:
        reader.join()
    store.stop()
    assert torn == []
    assert disagreements(store) == []
    assert store.start().sequence == 30


def test_what_lies_beside_it(store: SqlStore, postgresql_url: str, opened: Opened) -> None:
    """After a restart, the message being applied and a rolled-back database are detected."""
    for sequence in (1, 2, 3):
        store.commit(flush(sequence))
    store.applying.begin(b"poisoned")
    with store._database.write() as connection:
        connection.exec_driver_sql("UPDATE meta SET sequence = 1")
    store.stop()
    again = opened(postgresql_url)
    restored = again.start()
    assert again.applying.deaths(b"poisoned") == 1
    assert restored.rolled_back is not None
    assert restored.rolled_back.flushes == 2


@pytest.fixture
def own(empty_cluster: Path) -> Iterator[PostgreSQL]:
    """A server that may be killed."""
    server = PostgreSQL(empty_cluster)
    try:
        server.start()
        yield server
    finally:
        server.close()


def test_a_query_that_the_server_ends_is_no_damage(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's own error (a statement_timeout of the role) is retryable: the store is intact."""

    def slow(connection: psycopg.Connection[Any], *_: object) -> int:
        connection.execute("SET LOCAL statement_timeout = 1")
        connection.execute("SELECT pg_sleep(10)")
        return 0

    monkeypatch.setattr(dialect, "end_abandoned", slow)
    with pytest.raises(StoreUnavailableError, match="canceling statement due to statement timeout"):
        store._database.end_abandoned(1.0)


@pytest.mark.parametrize("before", ["use_for_start", "use_for_migration"])
def test_how_long_a_standby_waits_for_answers(postgresql: PostgreSQL, opened: Opened, before: str) -> None:
    """As usual, also after a start attempt during another replica's long migration."""
    store = opened(postgresql.new_database())
    timeouts = store._database._dialect._timeouts  # type: ignore[attr-defined]
    getattr(timeouts, before)()
    postgresql.execute("ALTER ROLE monitor NOLOGIN")
    try:
        with pytest.raises(StoreUnavailableError):
            store.lead("pod-1")
    finally:
        postgresql.execute("ALTER ROLE monitor LOGIN")
    assert timeouts.seconds == AnswerTimeouts().seconds


def test_leading_again_takes_no_more_descriptors(postgresql: PostgreSQL, opened: Opened) -> None:
    """A replica may lead repeatedly for months."""
    store = opened(postgresql.new_database())
    numbers = []
    for _ in range(3):
        store.start("pod-1")
        numbers.append(len(list(Path("/proc/self/fd").iterdir())))
        store.resign()
    assert len(set(numbers)) == 1


def test_what_an_administrator_does_to_it(postgresql: PostgreSQL, opened: Opened) -> None:
    """Each action delays the flush, gives a remedy, and ends without a restart of the daemon."""
    url = postgresql.new_database()
    name = url.rpartition("/")[2]
    postgresql.execute(f"ALTER ROLE monitor IN DATABASE {name} SET statement_timeout = '1h'")
    store = opened(url)
    store.start()
    for transaction in (store._database.read, store._database.write):
        with transaction() as connection:
            assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
    sequence = 1

    def is_written() -> bool:
        nonlocal sequence
        store.commit(changes(sequence))
        sequence += 1
        return True

    def refused() -> str:
        try:
            store.commit(changes(sequence))
        except StoreUnavailableError as exc:
            return str(exc)
        return ""

    writable = "SET default_transaction_read_only = off"
    tables = [
        ("default_transaction_read_only", "ALTER SYSTEM SET default_transaction_read_only = on",
         "ALTER SYSTEM RESET default_transaction_read_only"),
        ("ALTER DATABASE .* OWNER TO", "ALTER TABLE meta OWNER TO postgres", "ALTER TABLE meta OWNER TO monitor"),
        ("restore the tables", "ALTER TABLE meta RENAME TO taken_away", "ALTER TABLE taken_away RENAME TO meta"),
    ]  # fmt: skip
    for what_to_do, before, after in tables:
        assert is_written()
        postgresql.execute(writable, before, "SELECT pg_reload_conf()", database=name)
        try:
            wait_until(lambda: re.search(what_to_do, refused()), 60)  # noqa: B023 - before the next round
        finally:
            postgresql.execute(writable, after, "SELECT pg_reload_conf()", database=name)
        wait_until(lambda: not refused(), 60)
        sequence += 1


def is_continued(written: list[int]) -> None:
    """Wait until further flushes are committed."""
    before = len(written)
    wait_until(lambda: len(written) > before + 3, what="flushes that are committed again")


def test_the_server_dies(own: PostgreSQL, opened: Opened) -> None:
    """Killed or shut down during flushes, suspended, and restarted: each flush is applied once."""
    store = opened(own.new_database())
    store.start()
    patience = store._database._dialect._timeouts  # type: ignore[attr-defined]
    stopping = threading.Event()
    written: list[int] = []
    refused: list[str] = []

    def commit() -> None:
        sequence = 1
        while not stopping.is_set():
            try:
                store.commit(flush(sequence))
            except StoreUnavailableError as exc:
                refused.append(str(exc))
                stopping.wait(0.02)
            else:
                written.append(sequence)
                sequence += 1

    thread = threading.Thread(target=commit)
    thread.start()
    try:
        for end in (own.kill, lambda: own.signal(3), own.kill):
            is_continued(written)
            end()
            own.stop()
            own.start()
        is_continued(written)
        patience.seconds = 0.5
        own.pause()
        wait_until(lambda: "does not answer" in refused[-1], what="an error of the frozen server")
        own.resume()
        is_continued(written)
    finally:
        stopping.set()
        thread.join()
    store.stop()
    assert disagreements(store) == []
    assert store.start().sequence == written[-1] == len(written)


def test_what_pages_wait_for_ends_soon(
    postgresql: PostgreSQL, postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal waits for a suspended server as long as the lease, and a notifier not much longer."""
    monkeypatch.setattr(outbox, "RESPONSE_TIMEOUT", 0.3)
    store = open_store(postgresql_url, directory=tmp_path, retention=1e9, fingerprint_window=FINGERPRINT_WINDOW)
    store.start()
    monkeypatch.setattr(store._lease, "ttl", 0.3)
    assert store._database._dialect._timeouts.seconds > 10  # type: ignore[attr-defined]
    began = time.monotonic()
    postgresql.pause()
    try:
        for ask in (store.renew, lambda: store.outbox.due(NOW, 1), lambda: store.outbox.expedite("pagerduty", NOW)):
            with pytest.raises(StoreUnavailableError, match="does not answer"):
                ask()
    finally:
        took = time.monotonic() - began
        postgresql.resume()
    assert took < 30
    store.commit(flush(1))
    store.stop()


@pytest.mark.parametrize("rows", [1, 5_000])
def test_a_flush_is_a_handful_of_round_trips(store: SqlStore, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """For any size: only its start and its end wait for an answer."""
    waited = 0
    wait = BoundedConnection.wait

    def count(self: BoundedConnection, *args: Any, **options: Any) -> Any:
        nonlocal waited
        waited += self._pipeline is None
        return wait(self, *args, **options)

    monkeypatch.setattr(BoundedConnection, "wait", count)
    store.commit(everywhere("x"))
    first, waited = waited, 0
    keys = [SeriesKey(f"task{index}", "q", "") for index in range(rows)]
    failures = [failure(f"u{index}") for index in range(rows // 10)]
    store.commit(
        changes(
            2,
            series=[structs.replace(series(), key=key) for key in keys],
            tracked=[(f"u{index}", TaskRef(name="t")) for index in range(rows)],
            failures=failures,
            counters={"messages": 9.0},
            epoch=1,
            fingerprints=b"12345678" * rows,
        )
    )
    assert max(first, waited) <= 6


def test_arrays(store: SqlStore) -> None:
    """Each column type, with and without NULL, is restored unchanged; invalid values are refused here."""
    values: list[tuple[type[Array], str, list[Any]]] = [
        (Bigints, "bigint", [0, -1, 2**63 - 1, -(2**63)]),
        (Doubles, "double precision", [0.0, -1.5, 5, float("inf"), 5e-324]),
        (Booleans, "boolean", [True, False]),
        (Texts, "text", ["", "a", "é\U0001f600", '{"},\\', "NULL"]),
        (Blobs, "bytea", [b"", b"\0\xff"]),
    ]
    with store._database.read() as connection:
        for kind, name, given in values:
            for sent in (given, [None, *given], [*given, None], given[:1], [None]):
                found = connection.exec_driver_sql(f"SELECT %b::{name}[]", (kind.from_values(sent),)).scalar_one()
                assert found == sent, name
    refused: list[tuple[type[Array], Any]] = [
        (Bigints, 2**63),
        (Doubles, float("nan")),
        (Texts, "\udcff"),
        (Texts, 1),
        (Bigints, "1"),
    ]
    for array, wrong in refused:
        with pytest.raises((OverflowError, ValueError, TypeError)):
            array.from_values([wrong])


def test_what_is_past_the_retention_is_found_by_an_index(store: SqlStore) -> None:
    """Integer columns are compared with integers; otherwise PostgreSQL converts the column of each row."""
    asked: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        asked.append((statement, parameters))

    event.listen(store._database._writers, "before_cursor_execute", note)
    store.prune(NOW + 0.25)
    event.remove(store._database._writers, "before_cursor_execute", note)
    plans = []
    with store._database.read() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for statement, parameters in asked:
            if statement.startswith(("DELETE", "SELECT", "WITH")):
                rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
                plans.append("\n".join(row[0] for row in rows))
    assert len([plan for plan in plans if "(start <= " in plan]) >= 4
    assert [plan for plan in plans if re.search(r"\((start|slot)\)::", plan)] == []
