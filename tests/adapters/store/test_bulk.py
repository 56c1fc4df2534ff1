"""Many rows in few statements: none is omitted for any number."""

from pathlib import Path

import pytest
from msgspec import structs

from celery_monitor.adapters.store import open_store
from celery_monitor.adapters.store.tracked_journal import YOUNG_FLUSHES
from celery_monitor.core.model import SeriesKey, TaskRef
from tests.contracts.values import changes, series

SIZES = (0, 1, 7, 8, 9, 63, 64, 72, 73, 511, 512, 513, 1231)


def chunks(number: int) -> int:
    """Statements with several rows."""
    found = 0
    for at_once in (512, 64, 8):
        found, number = found + number // at_once, number % at_once
    return found


@pytest.mark.parametrize("number", SIZES)
def test_any_number_of_rows(number: int, tmp_path: Path) -> None:
    """All are inserted, replaced and deleted; a commit yields meanwhile without losing rows."""
    ways: list[int] = []
    url = f"sqlite:///{tmp_path}/store.db"
    store = open_store(url, retention=1e6, fingerprint_window=1, yield_point=lambda: ways.append(1))
    store.start()
    keys = [SeriesKey(f"task{index}", "q", "") for index in range(number)]
    for sequence, count in ((1, 5), (2, 9)):
        rows = [structs.replace(series(), key=key, counts=(count,) * 8) for key in keys]
        saved = sequence - 1
        tracked = [(f"u{at}", TaskRef(name=f"task{at}", seen_minute=count, saved=saved)) for at in range(number)]
        store.commit(changes(sequence=sequence, series=rows, tracked=tracked))
    # Each commit: once at its beginning, and after each portion of the series.
    assert len(ways) == 2 * (1 + chunks(number))
    ways.clear()
    for sequence in range(3, 3 + YOUNG_FLUSHES):
        store.commit(changes(sequence=sequence))
    # And after each portion of the tracked, which are moved into their table once, by the last of these.
    assert len(ways) == YOUNG_FLUSHES + chunks(number)
    store.stop()
    restored = store.start()
    assert {one.key: one.counts[0] for one in restored.series} == dict.fromkeys(keys, 9)
    assert {uuid: ref.seen_minute for uuid, ref in restored.tracked} == {f"u{index}": 9 for index in range(number)}
    gone = [(f"u{index}", 1) for index in range(number)]
    store.commit(changes(sequence=3 + YOUNG_FLUSHES, dropped_series=keys, forgotten=gone))
    store.stop()
    restored = store.start()
    assert (list(restored.series), list(restored.tracked)) == ([], [])
    store.stop()
