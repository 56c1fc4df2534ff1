"""Counts, buckets, histograms, error groups."""

from collections import Counter

import pytest

from celery_monitor.core.aggregate import (
    EXCEPTIONS_PER_SERIES,
    GROUPS_PER_TASK,
    MAX_PENDING_SAMPLES,
    QUEUES_PER_TASK,
    SAMPLES_PER_GROUP,
    Aggregator,
    Bounds,
    Counted,
)
from celery_monitor.core.model import BUCKET_SECONDS, FAILED, STARTED, SUCCEEDED, Failure
from celery_monitor.core.text import OTHER
from tests.builders import NOON


def aggregator(runtime_bounds: tuple[float, ...] = (1.0, 2.0), *, hosts: bool = False, **bounds: int) -> Aggregator:
    """An aggregator with few buckets."""
    return Aggregator(
        Bounds(**{"names": 10, **bounds}),
        runtime_bounds=runtime_bounds,
        wait_bounds=(1.0, 5.0),
        hosts=hosts,
        knows=lambda name, queue: name.startswith("known"),
        overflows=Counter(),
    )


def sample(uuid: str, at: float = NOON, group: str = "g") -> Failure:
    """A failure of a group."""
    return Failure(uuid, "a", "q", "w@h", at, "ValueError", "no", "", group, None, "opened")


def test_totals_are_absolute_and_buckets_are_deltas() -> None:
    """Writing a flush twice changes nothing in the totals; the store adds up the buckets."""
    to = aggregator()
    to.add(SUCCEEDED, "a", "q", "", NOON, 0.5)
    first, second = to.take(), None
    to.add(SUCCEEDED, "a", "q", "", NOON + 1, 0.5)
    second = to.take()
    assert [taken.series[0].counts[SUCCEEDED] for taken in (first, second)] == [1, 2]
    assert [taken.buckets[0].counts[SUCCEEDED] for taken in (first, second)] == [1, 1]
    assert to.take() == Counted([], [], [], [], [], [], [])


def test_buckets_are_cut_at_a_quarter_of_an_hour() -> None:
    """An event belongs to the 15 minutes of its own timestamp, even if it arrives late."""
    to = aggregator()
    for at in (NOON, NOON + 899.9, NOON + 900, NOON - 0.1, NOON + 1):
        to.add(STARTED, "a", "q", "", at, None)
    buckets = {bucket.start: bucket.counts[STARTED] for bucket in to.take().buckets}
    assert buckets == {NOON - BUCKET_SECONDS: 1, NOON: 3, NOON + BUCKET_SECONDS: 1}


def test_histograms() -> None:
    """A bucket includes its upper bound (Prometheus's le); the last bucket contains everything above."""
    to = aggregator()
    for seconds in (0.0, 1.0, 1.5, 2.0, 99.0):
        to.add(SUCCEEDED, "a", "q", "", NOON, seconds)
    to.add(STARTED, "a", "q", "", NOON, 3.0)
    taken = to.take()
    series, buckets = taken.series, taken.buckets
    assert (series[0].runtime.counts, series[0].runtime.sum) == ((2, 2, 1), 103.5)
    assert (series[0].wait.counts, series[0].wait.sum) == ((0, 1, 0), 3.0)
    assert (buckets[0].runtime_sum, buckets[0].runtime_count) == (103.5, 5)


def test_restored_totals_go_on() -> None:
    """A restart does not reset totals."""
    before = aggregator()
    row = before.add(FAILED, "a", "q", "h", NOON, None)
    before.add_failure(row, "ValueError", "u", NOON)
    after = aggregator()
    after.restore(before.take().series)
    after.add_failure(after.add(FAILED, "a", "q", "h", NOON, None), "ValueError", "u2", NOON)
    (series,) = after.snapshot()
    assert (series.counts[FAILED], series.exceptions) == (2, {"ValueError": 2})


@pytest.mark.parametrize("first", [OTHER, "q0", "q99"])
def test_totals_are_restored_in_any_order(first: str) -> None:
    """Each series is restored under its own key, even at a limit, regardless of the store's order."""
    before = aggregator()
    for number in range(QUEUES_PER_TASK + 50):
        before.add(STARTED, "a", f"q{number}", "", NOON, None)
    stored = sorted(before.snapshot(), key=lambda one: (one.key.queue != first, one.key.queue))
    after = aggregator()
    after.restore(stored)
    assert sorted(after.snapshot(), key=lambda one: one.key.queue) == sorted(stored, key=lambda one: one.key.queue)
    after.add(STARTED, "a", "one more", "", NOON, None)
    assert {one.key.queue: one.counts[STARTED] for one in after.take().series} == {OTHER: 51}


def test_a_histogram_with_other_bounds_starts_again() -> None:
    """Its counts do not fit the new buckets, so it starts at zero; the other counts stay."""
    before = aggregator()
    before.add(SUCCEEDED, "a", "q", "", NOON, 1.5)
    after = aggregator(runtime_bounds=(1.0, 3.0))
    after.restore(before.take().series)
    (series,) = after.snapshot()
    assert (series.counts[SUCCEEDED], series.runtime.counts, series.runtime.sum) == (1, (0, 0, 0), 0.0)


def test_names_are_bounded() -> None:
    """Beyond the limit, a new name is counted as other; a known one keeps its name."""
    to = aggregator(names=2)
    for name in ("a", "b", "c", "d", "a"):
        to.add(STARTED, name, "q", "", NOON, None)
    assert {series.key.name: series.counts[STARTED] for series in to.snapshot()} == {"a": 2, "b": 1, OTHER: 2}
    assert to.overflows["task_names"] == 2


def test_queues_exceptions_and_groups_are_bounded() -> None:
    """Everything that grows with the texts of events is bounded."""
    to = aggregator()
    row = one = to.add(FAILED, "b", "q", "", NOON, None)
    for number in range(1000):
        row = to.add(FAILED, "a", f"q{number}", "", NOON, None)
        one = to.add(FAILED, "b", "q", "", NOON, None)
        to.add_failure(one, f"E{number}", "u", NOON)
        to.admits_group("a", f"g{number}")
    assert row.key.queue == OTHER
    assert len(to.snapshot()) <= QUEUES_PER_TASK + 2
    assert len(one.exceptions) == EXCEPTIONS_PER_SERIES + 1
    assert one.exceptions[OTHER] == 1000 - EXCEPTIONS_PER_SERIES
    assert not to.admits_group("a", "one more")
    assert to.admits_group("a", "g1")
    assert sum(to.admits_group("z", f"g{number}") for number in range(1000)) == GROUPS_PER_TASK


def test_what_would_be_counted_apart() -> None:
    """Admitted pairs are counted by name and queue, others as other. The version changes when the answer may change."""
    to = aggregator(names=2)
    pairs = [("a", f"q{number}") for number in range(QUEUES_PER_TASK + 5)] + [("b", "q"), ("c", "q"), ("a", "q0")]
    for name, queue in pairs:
        admitted, before = to.admits(name, queue), to.admission_version
        key = to.add(STARTED, name, queue, "", NOON, None).key
        assert ((key.name, key.queue) == (name, queue)) == admitted
        assert to.admits(name, queue) == admitted
        assert to.admission_version <= before + 1
    assert to.admission_version == len(to.snapshot()) == QUEUES_PER_TASK + 3


def test_error_groups() -> None:
    """A group has counts by bucket, its first and last failure, and its newest samples."""
    to = aggregator()
    for number in range(30):
        at = NOON + number * 60
        to.add_error("ValueError", "f", sample(f"u{number}", at))
    taken = to.take()
    assert [(group.first_at, group.last_at) for group in taken.groups] == [(NOON, NOON + 29 * 60)]
    assert {error.start: error.count for error in taken.errors} == {NOON: 15, NOON + 900: 15}
    assert [failure.uuid for failure in taken.failures] == [f"u{n}" for n in range(30 - SAMPLES_PER_GROUP, 30)]


def test_samples_that_wait_for_the_store_are_bounded() -> None:
    """While the store is unavailable, little more than the newest sample of each group is kept."""
    to = aggregator()
    groups = 1000
    for number in range(SAMPLES_PER_GROUP * groups):
        group = f"g{number % groups}"
        to.add_error("ValueError", "f", sample(f"u{number}", group=group))
    failures = to.take().failures
    assert len(failures) == MAX_PENDING_SAMPLES
    newest = {failure.group: int(failure.uuid[1:]) for failure in failures}
    assert min(newest.values()) == (SAMPLES_PER_GROUP - 1) * groups
    for number in range(MAX_PENDING_SAMPLES + groups):
        to.add_error("E", "f", sample(f"u{number}", group=f"h{number}"))
    assert len(to.take().failures) == MAX_PENDING_SAMPLES + groups


def test_a_purged_worker_takes_its_series_along() -> None:
    """With the hostname label, the series of a purged worker are dropped; its counts are still reported."""
    to = aggregator()
    to.add(STARTED, "a", "q", "pod-1", NOON, None)
    to.add(STARTED, "a", "q", "pod-2", NOON, None)
    to.drop_hosts({"pod-1"})
    assert [series.key.host for series in to.snapshot()] == ["pod-2"]
    taken = to.take()
    assert [one.key.host for one in taken.series] == ["pod-2"]
    assert [key.host for key in taken.dropped_series] == ["pod-1"]
    assert sum(one.counts[STARTED] for one in taken.buckets) == 2
