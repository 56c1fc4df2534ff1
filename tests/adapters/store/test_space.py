"""Too little space because of the limit or the disk: samples and groups are deleted, oldest first, the rest is kept."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_monitor.adapters.store import SqlStore
from celery_monitor.adapters.store.budget import Space
from celery_monitor.adapters.store.reserve import DiskReserve, reserve_size
from celery_monitor.core.model import Action, Changes, OutboxRequest, TaskRun
from celery_monitor.errors import StoreUnavailableError
from celery_monitor.ports import FailureFilter
from tests.adapters.store.conftest import Open
from tests.contracts.values import NOW, START, bucket, changes, error, failure, group, incident, series
from tests.e2e.disk import fill, small_disk

MIB = 1 << 20
LIMIT = 32 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    with small_disk(tmp_path / "disk") as place:
        yield place


def load(sequence: int, failures: int = 0, size: int = 16_000, at: float = NOW) -> Changes:
    """A flush with an incident, its page, and this many failures, each in its own group."""
    groups = [f"g{sequence}-{number}" for number in range(failures)]
    return changes(
        sequence,
        now=at,
        series=[series(sent=sequence, failed=sequence)],
        buckets=[bucket(sent=1, failed=1)],
        groups=[group(one, at, at) for one in groups],
        errors=[error(one) for one in groups],
        failures=[failure(f"u-{one}", at=at, group=one, traceback=os.urandom(size // 2).hex()) for one in groups],
        ended=[TaskRun(uuid=f"e{sequence}", name="t", queue=None, hostname="w", stage=5, ended_at=at)],
        incidents=[incident(f"k{sequence}")],
        outbox=[OutboxRequest("pagerduty", f"k{sequence}", Action.TRIGGER, "", at)],
        counters={"messages": float(sequence)},
        epoch=1,
        fingerprints=sequence.to_bytes(8, "big"),
    )


def assert_whole(store: SqlStore, flushes: int) -> None:
    """Counts, incidents and outbox are complete."""
    (row,) = store.reader.tasks(limit=9).rows
    assert row.counts[0] == flushes
    assert len(store.reader.incidents(limit=10**6).rows) == flushes
    assert store.outbox.pending()["pagerduty"][0] == flushes


def samples(store: SqlStore) -> list[str]:
    """Task IDs of the stored failures, newest first."""
    return [one.uuid for one in store.reader.failures(FailureFilter(limit=10**6)).rows]


def size_of(path: Path) -> int:
    """Bytes of the database and its log."""
    return sum(one.stat().st_size for one in (path, path.with_name(path.name + "-wal")) if one.exists())


def test_the_limit_holds(opened: Open, path: Path) -> None:
    """Far more failures than fit: the newest are kept, dropped ones are counted, and the rest is exact."""
    store = opened(max_bytes=LIMIT)
    store.start()
    for sequence in range(1, 41):
        store.commit(load(sequence, failures=100, at=NOW + sequence))
        if store.space().short:
            store.prune(NOW + sequence)
        assert size_of(path) < LIMIT * 1.5
    assert store.space().used < LIMIT
    newest = samples(store)
    assert "u-g40-99" in newest
    assert "u-g1-0" not in newest
    assert 100 < len(newest) < 4000
    given_up = store.space().given_up
    ended = [number for number in range(1, 41) if store.reader.ended(f"e{number}")]
    assert given_up["ended_tasks"] == 40 - len(ended)
    assert len(ended) < len(newest) / 100  # they go first
    assert given_up["samples"] == 4000 - len(newest)
    assert given_up["buckets"] == 0
    assert_whole(store, 40)


def of_tasks(sequence: int, first: int, number: int) -> Changes:
    """A flush in which this many tasks fail for the first time, with long names and texts."""
    names = [f"n.{one}{'x' * 200}" for one in range(first, first + number)]
    return changes(
        sequence,
        series=[series(name, failed=1) for name in names],
        buckets=[bucket(name=name, failed=1) for name in names],
        groups=[group(f"g-{name}") for name in names],
        errors=[error(f"g-{name}") for name in names],
        failures=[failure(f"u-{name}", name=name, group=f"g-{name}", traceback="t" * 4000) for name in names],
        incidents=[
            incident(f"{name}/h", task=name, tasks={name: 1}, message="m" * 3000, traceback="t" * 4000, args="a" * 500)
            for name in names
        ],
        outbox=[OutboxRequest("pagerduty", f"{name}/h", Action.TRIGGER, "", NOW) for name in names],
        epoch=1,
        fingerprints=sequence.to_bytes(8, "big"),
    )


@pytest.mark.parametrize("flushes", [1, *(pytest.param(n, marks=pytest.mark.campaign) for n in (5, 50))])
def test_failures_of_many_tasks_on_a_small_disk(disk: Path, opened: Open, flushes: int) -> None:
    """5,000 tasks fail for the first time: all is counted and paged, with less of their texts; then so again.

    A flush is written as a whole, and its log beside the file: without bounds of its own it would fill the disk, and
    SQLite would have no space to move the log into the file ever again.
    """
    path = disk / "store.db"
    store = opened(f"sqlite:///{path}")
    store.start()
    tasks, per_flush = 5_000, 5_000 // flushes
    for again in range(2):
        for number in range(flushes):
            store.commit(of_tasks(again * flushes + number + 1, number * per_flush, per_flush))
            store.prune(NOW)
    stored = store.reader.incidents(limit=10**6).rows
    assert len(stored) == tasks
    assert store.outbox.pending()["pagerduty"][0] == tasks
    assert store.space().given_up["samples"] > 0


def test_a_store_above_its_limit_shrinks(opened: Open) -> None:
    """After the limit was lowered, samples are deleted first, then groups, then counts older than a day."""
    store = opened()
    store.start()
    many = [bucket(START - day * 86_400, f"task{number}-" + "x" * 400) for day in (0, 9) for number in range(16_000)]
    store.commit(load(1, failures=400))
    store.commit(changes(2, buckets=many))
    store.stop()
    small = opened(max_bytes=LIMIT // 2)
    small.start()
    for _ in range(100):
        small.prune(NOW)
        if not small.space().short:
            break
    assert samples(small) == []
    assert small.space().given_up["groups"] == 400
    assert small.space().given_up["buckets"] > 0
    assert len(small.reader.buckets(START, START + 900)) == 16_001
    assert len(small.reader.incidents(limit=9).rows) == 1


def test_a_full_disk(disk: Path, opened: Open) -> None:
    """Everything except samples and groups is committed, also after kill -9 and a restart; then all continues."""
    path = disk / "store.db"
    store = opened(f"sqlite:///{path}")
    store.start()
    for sequence in range(1, 21):
        store.commit(load(sequence, failures=20))
    ballast = fill(disk)

    for sequence in range(21, 121):
        store.commit(load(sequence, failures=20))
        if sequence % 20 == 0:
            store.prune(NOW)
    assert store.space().short
    assert store.space().given_up["samples"] > 0
    assert_whole(store, 120)
    lock = path.with_name("store.db.lock")
    lock.unlink()  # as if the first one had been killed
    again = opened(f"sqlite:///{path}")
    assert again.start().sequence == 120
    for sequence in range(121, 141):
        again.commit(load(sequence, failures=20))
        again.prune(NOW)
    assert_whole(again, 140)

    ballast.unlink()
    again.prune(NOW)
    again.commit(load(141, failures=1))
    again.prune(NOW)
    assert not again.space().short
    assert path.with_name("store.db.reserve").stat().st_size > MIB
    again._budget._refused_at = None
    again.commit(load(142, failures=1))
    assert samples(again)[0].startswith("u-g142")


def test_a_start_on_a_full_disk(disk: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk filled with samples, without a reserve: with some space it recovers."""
    path = disk / "store.db"
    store = opened(f"sqlite:///{path}")
    store.start()
    path.with_name("store.db.reserve").unlink()
    monkeypatch.setattr(store._budget, "admit", lambda _, changes: (changes, {}))
    monkeypatch.setattr(store._budget, "reduce", lambda changes: (changes, {}))
    small, done = disk / "small", 0
    small.write_bytes(bytes(8 * MIB))
    with contextlib.suppress(StoreUnavailableError):
        for sequence in range(1, 1000):
            store.commit(load(sequence, failures=20))
            done = sequence
    fill(disk)
    path.with_name("store.db.lock").unlink()  # as if the first one had been killed

    again = opened(f"sqlite:///{path}")
    assert again.start().sequence == done
    small.unlink()
    for number in range(done + 1, done + 31):
        again.prune(NOW)
        again.commit(load(number, failures=20))
    assert_whole(again, done + 30)
    assert again.space().given_up["samples"] > 0


def test_a_quota(opened: Open) -> None:
    """A refusal that the file system's figures do not show (a quota): old samples are deleted until there is space."""
    store = opened(max_bytes=LIMIT)
    store.start()
    store.commit(load(1, failures=400))
    store._budget.reduce(load(2))
    assert store.space().short is False
    store.commit(load(2, failures=5))
    assert store.space().short
    assert store.space().given_up["samples"] == 5
    for _ in range(30):
        store.prune(NOW)
    assert len(samples(store)) < 400
    assert_whole(store, 2)


def test_a_temporary_store_has_no_end(opened: Open) -> None:
    """It has no limit, and nothing is dropped."""
    store = opened("sqlite://")
    store.start()
    store.commit(load(1, failures=3))
    store.prune(NOW)
    assert (store.space().limit, store.space().room, store.space().short) == (None, None, False)
    assert len(samples(store)) == 3


@pytest.mark.parametrize(
    ("used", "limit", "free", "to_spare", "short", "reclaimed"),
    [
        (0, 100, 1000, 22.5, False, True),
        (0, 1000, 100, 22.5, False, True),
        (85, 100, 1000, 1.25, False, False),
        (86, 100, 1000, 1, True, False),
        (0, 1000, 14, 1, True, False),
        (0, 1000, 0, 0, True, False),
        (2000, 1000, 1000, 0, True, False),
        (0, float("inf"), float("inf"), float("inf"), False, True),
    ],
)
def test_space(used: int, limit: float, free: float, to_spare: float, *, short: bool, reclaimed: bool) -> None:
    """The smaller of limit and disk applies; samples get a quarter of the space beyond the headroom."""
    space = Space(used, limit, free, headroom=10)
    assert (space.to_spare(), space.short, space.reclaimed) == (to_spare, short, reclaimed)


@pytest.mark.parametrize(
    ("limit", "total", "size"),
    [
        (1 << 30, 1 << 40, 16 * MIB),
        (32 * MIB, 1 << 40, 4 * MIB),
        (1 << 30, 64 * MIB, 8 * MIB),
        (1 << 30, 2 * MIB, MIB),
        (float("inf"), float("inf"), 16 * MIB),
    ],
)
def test_reserve_size(limit: float, total: float, size: int) -> None:
    """An eighth of the available space, from 1 to 16 MiB."""
    assert reserve_size(limit, total) == size


def test_reserve(tmp_path: Path) -> None:
    """It has real blocks, is used once, and is not created if little space is left."""
    reserve = DiskReserve(tmp_path / "reserve", MIB)
    reserve.allocate(MIB)
    assert not reserve.release()
    reserve.allocate(2 * MIB)
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= MIB
    assert [reserve.release(), reserve.release()] == [True, False]
    (tmp_path / "reserve").mkdir()
    reserve.allocate(2 * MIB)


def test_descriptors_that_others_have_taken(tmp_path: Path) -> None:
    """With no free descriptors, also for new connections after a failure, flushes continue."""
    script = (
        "import os, resource, sys\n"
        "from celery_monitor.adapters.store import open_store\n"
        "from tests.contracts.values import changes, failure\n"
        "store = open_store(sys.argv[1], retention=1e9, fingerprint_window=9)\n"
        "store.start()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "try:\n"
        "    while True:\n"
        "        os.open(os.devnull, os.O_RDONLY)\n"
        "except OSError:\n"
        "    pass\n"
        "for sequence in range(1, 9):\n"
        "    try:\n"
        "        with store._database.write():\n"
        "            raise RuntimeError\n"
        "    except Exception:\n"
        "        pass\n"
        "    store.commit(changes(sequence, failures=[failure(f'u{sequence}')]))\n"
        "    store.prune(1.0)\n"
        "    assert len(store.reader.failure(f'u{sequence}')) == 1\n"
        "store.stop()\n"
        "print('done')\n"
    )
    command = [sys.executable, "-c", script, f"sqlite:///{tmp_path}/store.db"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert (done.stdout, done.stderr) == ("done\n", "")
