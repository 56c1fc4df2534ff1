"""The hourly histograms contain exactly what was observed in each hour, across restarts and limits."""

import math
import random
from bisect import bisect_left
from collections import Counter

import pytest

from celery_monitor.core import hourly
from celery_monitor.core.aggregate import Aggregator, Bounds
from celery_monitor.core.hourly import HOUR, QueueLengths, hours
from celery_monitor.core.model import (
    BUCKET_SECONDS,
    STARTED,
    SUCCEEDED,
    Checkpoint,
    QueueLengthDelta,
    QueueStats,
    Series,
    SeriesKey,
)

NOON = 1_763_985_600.0
RUNTIME, WAIT = (0.1, 1.0, 10.0), (0.5, 5.0)


class Life:
    """An aggregator that is flushed and restarted, and the rows that its flushes wrote."""

    def __init__(self, *, series: int = 10, hosts: bool = False, runtime: tuple[float, ...] = RUNTIME) -> None:
        self.checkpoints: list[Checkpoint] = []
        self.stored: dict[SeriesKey, Series] = {}
        self._made = series, hosts
        self.now = NOON
        self.restart(runtime)

    def restart(self, runtime: tuple[float, ...] = RUNTIME) -> None:
        """Kill it after the last flush, and start it again."""
        series, hosts = self._made
        self.to = Aggregator(
            Bounds(series=series), runtime_bounds=runtime, wait_bounds=WAIT, hosts=hosts,
            knows=lambda name, _: name.startswith("known"),
        )  # fmt: skip
        self.to.tick(self.now)
        self.to.restore(sorted(self.stored.values(), key=lambda one: one.rank))

    def at(self, now: float) -> "Life":
        """Let time pass."""
        self.now = now
        self.to.tick(now)
        return self

    def flush(self) -> "Life":
        """Write everything to the store."""
        counted = self.to.take()
        for key in counted.dropped_series:
            self.stored.pop(key, None)
        self.stored |= {one.key: one for one in counted.series}
        self.checkpoints += counted.checkpoints
        return self

    def ran(self, seconds: float, name: str = "a", queue: str = "q", host: str = "", at: float | None = None) -> None:
        """A run succeeds."""
        self.to.add(SUCCEEDED, name, queue, host, self.now if at is None else at, seconds)

    def hours(self, name: str = "a") -> dict[int, Counter[float]]:
        """The stored runs: hour after noon → upper bound → runs."""
        found = hours(
            [one for one in self.checkpoints if one.key.name == name],
            [one for key, one in self.stored.items() if key.name == name],
        )
        return {
            int(row.start - NOON) // HOUR: Counter(
                {
                    bound: count
                    for bound, count in zip([*row.runtime.bounds, math.inf], row.runtime.counts, strict=True)
                    if count
                }
            )
            for row in found
        }


@pytest.mark.parametrize("seed", range(5))
def test_hours_are_what_was_observed(seed: int) -> None:
    """For any sequence of flushes and kills, each hour has the runs of its events."""
    chance = random.Random(seed)
    life, wanted = Life(), dict[int, Counter[float]]()
    for _ in range(300):
        life.at(life.now + chance.choice((1, 60, 900, 4000)))
        for _ in range(chance.randrange(4)):
            seconds = chance.choice((0.05, 0.1, 0.7, 8.0, 99.0))
            life.ran(seconds, queue=chance.choice("pq"))
            bound = [*RUNTIME, math.inf][bisect_left(RUNTIME, seconds)]
            wanted.setdefault(int(life.now - NOON) // HOUR, Counter())[bound] += 1
        life.flush()
        if chance.random() < 0.1:
            life.restart()
    assert life.hours() == wanted


def test_waiting_times_have_their_own_histogram() -> None:
    """The histogram of waiting times counts starts."""
    life = Life()
    life.to.add(STARTED, "a", "q", "", NOON, 0.2)
    (row,) = hours(life.flush().checkpoints, life.stored.values())
    assert (row.start, row.wait.bounds, row.wait.counts) == (NOON, (0.5,), (1, 0))
    assert sum(row.runtime.counts) == 0


def test_a_backlog_is_filed_by_the_time_of_its_events() -> None:
    """Late events belong to the hours in which they happened; late ones of a finished hour to the previous one."""
    life = Life().at(NOON + 5 * HOUR)
    for hour in range(5):
        life.ran(0.7, at=NOON + hour * HOUR + 30)
    life.ran(0.7, at=NOON + 10)
    assert life.flush().hours() == {0: {1.0: 1}, 1: {1.0: 1}, 2: {1.0: 1}, 3: {1.0: 1}, 4: {1.0: 2}}


def test_a_backlog_is_filed_by_its_events_across_restarts() -> None:
    """The hour depends on the events' time, not on the last use of a series by the monitor's clock."""
    life = Life().at(NOON + 5 * HOUR)
    for hour in range(5):
        life.ran(0.7, at=NOON + hour * HOUR + 30)
        life.flush().restart()
    assert life.hours() == {hour: {1.0: 1} for hour in range(5)}


def test_an_hour_begins_though_a_late_event_was_read_in_it() -> None:
    """Even if the process was killed between that event and the first one of the hour."""
    life = Life()
    life.ran(0.7)
    life.flush().at(NOON + HOUR + 1).ran(0.7, at=NOON + HOUR - 1)
    life.flush().restart()
    life.at(NOON + HOUR + 5).ran(0.7)
    life.at(NOON + HOUR + 1800).ran(0.7)
    assert life.flush().hours() == {0: {1.0: 2}, 1: {1.0: 2}}


def test_a_series_that_is_folded_after_a_restart_keeps_its_hours() -> None:
    """Even a series without an event since the restart."""
    life = Life(series=2)
    life.ran(0.7, "a")
    life.flush().at(NOON + HOUR).ran(0.7, "a")
    life.flush().restart()
    life.at(NOON + HOUR + 60).ran(0.7, "known-c")
    life.ran(0.7, "known-d")
    assert life.flush().hours("a") == {0: {1.0: 1}, 1: {1.0: 1}}


def test_an_event_of_the_future_begins_no_hour() -> None:
    """A worker whose clock is ahead does not claim the runs of others."""
    life = Life()
    life.ran(0.7)
    life.ran(0.7, at=NOON + 20 * HOUR)
    life.flush().at(NOON + HOUR).ran(0.7)
    assert {hour: sum(of.values()) for hour, of in life.flush().hours().items()} == {0: 2, 1: 1}


def test_a_folded_task_keeps_its_hours() -> None:
    """A merged series ends with its last values, and starts at zero if it comes back."""
    life = Life(series=2)
    life.ran(0.7, "a")
    life.ran(8.0, "b")
    life.flush().at(NOON + 60)
    life.ran(0.7, "known-c")
    life.ran(0.7, "known-d")
    life.flush()
    assert {*life.stored} >= {SeriesKey("known-c", "q"), SeriesKey("known-d", "q")}
    assert life.hours("a")[0][1.0] == life.hours("b")[0][10.0] == 1
    assert life.hours("other") == {}


def test_hosts_that_go_take_nothing_along() -> None:
    """The runs of a removed host stay in their hour; hosts are added up."""
    life = Life(hosts=True)
    life.ran(0.7, host="one")
    life.ran(0.7, host="two")
    life.flush().at(NOON + HOUR).ran(0.7, host="one")
    life.to.drop_hosts({"one"})
    assert {hour: of[1.0] for hour, of in life.flush().hours().items()} == {0: 2, 1: 1}


def test_hosts_that_are_merged_keep_their_hours() -> None:
    """Beyond the budget, a task's hosts become one series: no hour is counted twice."""
    life = Life(series=4, hosts=True)
    for number in range(8):
        life.at(NOON + number * 60).ran(0.7, "known", host=f"host-{number}")
        life.flush()
    life.at(NOON + HOUR).ran(0.7, "known", host="host-9")
    assert {hour: of[1.0] for hour, of in life.flush().hours("known").items()} == {0: 8, 1: 1}


def test_other_bounds_end_the_old_ones() -> None:
    """After a change of ``metrics.runtime_buckets``, histograms start at zero; past hours stay."""
    life = Life()
    life.ran(0.7)
    life.flush().restart((0.2, 2.0))
    life.flush().at(NOON + HOUR).ran(0.7)
    assert life.flush().hours() == {0: {1.0: 1}, 1: {2.0: 1}}


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is unavailable for long, runs are added to the last recorded hour."""
    monkeypatch.setattr(hourly, "MAX_CHECKPOINTS", 2)
    life = Life()
    for hour in range(6):
        life.at(NOON + hour * HOUR).ran(0.7)
    assert life.to.overflows["buckets"] > 0
    assert {hour: sum(of.values()) for hour, of in life.flush().hours().items()} == {0: 1, 1: 5}


def test_lengths_are_added_up_by_quarter() -> None:
    """The mean and the maximum of the measured lengths; unknown lengths do not count."""
    lengths = QueueLengths()
    start = int(NOON)
    for at, length in ((0, 4), (60, 10), (120, None), (900, 1)):
        lengths.note([QueueStats("q", length, None, 1, 1)], NOON + at)
    first = QueueLengthDelta(start, "q", 2, 14, 10)
    assert lengths.take() == [first, QueueLengthDelta(start + BUCKET_SECONDS, "q", 1, 1, 1)]
    assert lengths.take() == []


def test_lengths_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With very many queues, the longest are kept."""
    monkeypatch.setattr(hourly, "MAX_QUEUES", 2)
    lengths = QueueLengths()
    lengths.note([QueueStats(f"q{number}", number, None, 1, 1) for number in range(5)], NOON)
    assert [one.queue for one in lengths.take()] == ["q4", "q3"]


def test_lengths_of_a_quarter_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet with a queue per client has bounded rows for each 15 minutes, although the names change."""
    monkeypatch.setattr(hourly, "MAX_QUEUES", 20)
    monkeypatch.setattr(hourly, "MAX_LATE_QUEUES", 5)
    lengths, found = QueueLengths(), Counter[tuple[int, str]]()
    for poll in range(180):
        others = [QueueStats(f"client-{poll}-{number}", number, None, 1, 1) for number in range(100)]
        lengths.note([QueueStats("default", 1_000, None, 1, 1), *others], NOON + poll * 15)
        found.update({(one.start, one.queue): one.looks for one in lengths.take()})
    quarters = Counter(start for start, _ in found)
    assert quarters == {int(NOON) + quarter * BUCKET_SECONDS: 25 for quarter in range(3)}
    assert [looks for (_, queue), looks in found.items() if queue == "default"] == [60, 60, 60]
