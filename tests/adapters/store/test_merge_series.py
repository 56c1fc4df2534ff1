"""A store with more series than the memory limit."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from celery_monitor.adapters.store import merge_series, open_store
from celery_monitor.core.model import FAILED, SUCCEEDED, Changes, Checkpoint, Histogram, Series, SeriesKey
from celery_monitor.core.text import OTHER
from tests.contracts.values import NOW, changes, vector

MANY = 500


def stored(number: int, host: str = "") -> Series:
    """One of many series, ranked by number."""
    histogram = Histogram((0.5, 1.0), (1, 0, 2), 1.5)
    counts = vector(succeeded=3, failed=2)
    key = SeriesKey(f"task{number:05}", "celery", host)
    return Series(key, counts, {f"E{number % 70}": 2}, histogram, histogram, rank=number * 7919 % MANY)


def filled(path: Path, host: str = "", **more: Any) -> None:
    """A store that was filled without a limit."""
    store = open_store(f"sqlite:///{path}", retention=1e9, fingerprint_window=0, max_series=10**6)
    store.start()
    series = [stored(number, host) for number in range(MANY)]
    store.commit(changes(1, series=series, **more))
    store.stop()


@pytest.mark.parametrize("host", ["", "box"])
def test_the_least_are_folded_at_the_start(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In portions; sums are exact, and another start changes nothing."""
    monkeypatch.setattr(merge_series, "_MAX_MERGED", 64)
    filled(tmp_path / "store.db", host)
    for expected in (MANY - 100, 0):
        store = open_store(
            f"sqlite:///{tmp_path}/store.db", retention=1e9, fingerprint_window=0, max_series=100, hosts=bool(host)
        )
        restored = store.start()
        store.stop()
        assert restored.series_merged == expected
        other = [one for one in restored.series if one.key.name == OTHER]
        assert [one.key for one in other] == [SeriesKey(OTHER, OTHER, OTHER if host else "")]
        separate = [one for one in restored.series if one.key.name != OTHER]
        assert [one.rank for one in separate] == list(range(MANY - 100, MANY))
        assert sum(one.counts[SUCCEEDED] for one in restored.series) == 3 * MANY
        assert sum(sum(one.exceptions.values()) for one in restored.series) == 2 * MANY
        assert (other[0].counts[FAILED], other[0].runtime.counts) == (
            2 * (MANY - 100),
            (MANY - 100, 0, 2 * (MANY - 100)),
        )
        assert other[0].wait.sum == 1.5 * (MANY - 100)
        assert len(other[0].exceptions) <= 51


def test_what_is_in_other_already_is_added_to(tmp_path: Path) -> None:
    """Its counters do not decrease, whatever its rank, and it does not count towards the limit."""
    filled(tmp_path / "store.db")
    store = open_store(f"sqlite:///{tmp_path}/store.db", retention=1e9, fingerprint_window=0, max_series=MANY)
    assert store.start().series_merged == 0
    other = structs.replace(stored(0), key=SeriesKey(OTHER, OTHER, ""), rank=-1)
    store.commit(replace(Changes(now=NOW, sequence=2), series=[other]))
    store.stop()
    again = open_store(f"sqlite:///{tmp_path}/store.db", retention=1e9, fingerprint_window=0, max_series=MANY - 1)
    restored = again.start()
    again.stop()
    assert restored.series_merged == 1
    (found,) = [one for one in restored.series if one.key.name == OTHER]
    assert found.counts[SUCCEEDED] == 6


@pytest.mark.parametrize("host", ["", "box"])
def test_the_last_hour_of_what_is_folded_stays(tmp_path: Path, host: str) -> None:
    """Its hourly times are unchanged, including those of the unfinished hour."""
    hour = int(NOW) // 3600 * 3600
    cells = (0.5, 1), (1.0, 0), (math.inf, 0)
    begun = [Checkpoint(hour, SeriesKey(f"task{number:05}", "celery", host), cells, ()) for number in range(MANY)]
    filled(tmp_path / "store.db", host, checkpoints=begun)
    for most in (MANY, 100, 100):
        store = open_store(
            f"sqlite:///{tmp_path}/store.db", retention=1e9, fingerprint_window=0, max_series=most, hosts=bool(host)
        )
        store.start()
        tasks = ["task00000", "task00499", "task00250"]
        found = [row for name in tasks for row in store.reader.task_hours(name, hour - 3600, hour + 3600)]
        store.stop()
        assert [(row.start, row.runtime.counts, row.wait.counts) for row in found] == 3 * [(hour, (0, 0, 2), (1, 0, 2))]
