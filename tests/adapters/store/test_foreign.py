"""For any foreign content of a file, users of the store get our errors or continue."""

import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.core.model import Action, OutboxRequest, TaskRef
from celery_monitor.errors import MonitorError, StoreUnavailableError, StoreUnusableError
from celery_monitor.ports import FailureFilter
from tests.adapters.store.conftest import Open
from tests.contracts.values import NOW, START, bucket, changes, error, failure, group, incident, series, worker

GARBAGE = ("'garbage'", "x'fffe00'", "CAST(x'fffe' AS TEXT)", "-1", "1e300", "'{}'", "'[[],[]]'", "9e18", "''")
SAMPLES = 24
SCHEMA = {"sqlite_sequence", "celery_monitor_version"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a row in each table."""
    path = tmp_path_factory.mktemp("whole") / "store.db"
    store = open_store(f"sqlite:///{path}", retention=1e9, fingerprint_window=10)
    store.start()
    store.commit(
        changes(
            1,
            series=[series(sent=1)],
            buckets=[bucket(sent=1)],
            groups=[group()],
            errors=[error()],
            failures=[failure("u1")],
            tracked=[("t1", TaskRef(name="n", queue="q", stage=2, host="h"))],
            workers=[worker()],
            incidents=[incident("k"), incident("k2")],
            outbox=[OutboxRequest("pagerduty", key, Action.TRIGGER, key, NOW) for key in ("k", "k2")],
            counters={"messages": 1.0, "starts": 2.0},
            epoch=1,
            fingerprints=bytes(16),
        )
    )
    store.stop()
    return path


def copied(whole: Path, path: Path) -> Path:
    """Only the database file, copied to a test's path."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm", f"{path.name}.sequence"):
        path.with_name(name).unlink(missing_ok=True)
    shutil.copy(whole, path)
    return path


def columns(path: Path) -> Iterator[tuple[str, str]]:
    """Each table and column."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            if table not in SCHEMA:
                for column in connection.execute(f"PRAGMA table_info({table})"):
                    yield table, column[1]


def use(store: SqlStore) -> None:
    """Use the store like the daemon: only our errors are raised."""
    calls: list[Callable[[], object]] = [
        lambda: store.outbox.due(NOW, 9),
        lambda: store.outbox.items(dead=False, limit=9),
        store.outbox.pending,
        store.outbox.given_up,
        lambda: store.outbox.incident("k"),
        lambda: store.outbox.last_delivered("pagerduty"),
        lambda: store.reader.failures(FailureFilter()),
        lambda: store.reader.incidents(limit=9),
        lambda: store.reader.tasks(limit=9),
        lambda: store.reader.tasks(since=0.0, limit=9),
        lambda: store.reader.buckets(START, START + 900),
        lambda: store.reader.groups(0, NOW * 2),
        store.reader.workers,
        lambda: store.reader.counters(NOW),
        lambda: store.prune(NOW),
        lambda: store.commit(changes(2, failures=[failure("u2")], workers=[worker()], buckets=[bucket(sent=1)])),
    ]
    for call in calls:
        try:
            call()
        except MonitorError:
            continue


def start_and_use(opened: Open) -> bool:
    """Whether it starts."""
    store = opened()
    try:
        store.start()
    except (StoreUnusableError, StoreUnavailableError):
        return False
    use(store)
    store.stop()
    return True


def mutate(opened: Open, path: Path, table: str, column: str, value: str) -> bool:
    """Change one column of a table."""
    suppressed = contextlib.suppress(sqlite3.IntegrityError)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection, suppressed:
        connection.execute(f'UPDATE OR IGNORE "{table}" SET "{column}" = {value}')  # noqa: S608 - all of it is ours
    return start_and_use(opened)


def test_odd_values(opened: Open, whole: Path, path: Path) -> None:
    """In any column of any table: the start reports the problem or ignores optional data."""
    every = [(table, column, value) for table, column in columns(whole) for value in GARBAGE]
    started = [mutate(opened, copied(whole, path), *one) for one in random.Random(10).sample(every, SAMPLES)]
    assert True in started


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_every_odd_value(opened: Open, whole: Path, path: Path) -> None:
    """The same, all of them."""
    for table, column in columns(whole):
        for value in GARBAGE:
            mutate(opened, copied(whole, path), table, column, value)


@pytest.mark.parametrize(
    ("where", "value", "starts"),
    [
        ("workers.processed", "'x'", True),
        ("tracked.stage", "99", True),
        ("tracked.runs", "'{'", True),
        ("incidents.body", "'{'", True),
        ("counters.value", "'x'", True),
        ("fingerprints.blob", "'x'", True),
        ("outbox.channel", "'x'", True),
        ("series.sent", "'x'", False),
        ("series.runtime", "'x'", False),
        ("meta.sequence", "'x'", False),
        ("series.name", "CAST(x'fffe' AS TEXT)", False),
    ],
)
def test_what_can_be_done_without(
    opened: Open, whole: Path, path: Path, where: str, value: str, *, starts: bool
) -> None:
    """Totals and the sequence are required; other bad rows are omitted."""
    table, _, column = where.partition(".")
    assert mutate(opened, copied(whole, path), table, column, value) is starts


def test_a_row_that_cannot_be_sent_gives_its_route_free(opened: Open, whole: Path, path: Path) -> None:
    """It is given up, and later rows are sent."""
    with closing(sqlite3.connect(copied(whole, path), isolation_level=None)) as connection:
        connection.execute("UPDATE outbox SET route = '', attempts = CASE key WHEN 'k' THEN 'x' ELSE 0 END, due_at = 1")
        connection.execute("UPDATE outbox SET at = 9e9 WHERE key = 'k'")
    store = opened()
    store.start()
    assert store.outbox.due(NOW, 9) == []
    assert [item.key for item in store.outbox.due(NOW, 9)] == ["k2"]
    assert store.outbox.given_up() == {"pagerduty": 1}


def test_damaged_bytes(opened: Open, whole: Path, path: Path) -> None:
    """Flipped, cut or foreign bytes: a clear error or a start."""
    randomly, original = random.Random(11), whole.read_bytes()
    for _ in range(SAMPLES // 2):
        body = bytearray(original)
        for _ in range(randomly.choice((1, 4, 64))):
            body[randomly.randrange(len(body))] ^= 1 << randomly.randrange(8)
        if randomly.random() < 0.3:
            del body[randomly.randrange(len(body)) :]
        copied(whole, path).write_bytes(bytes(body))
        start_and_use(opened)
