"""The budget of series: which are merged, in which order, and that sums stay exact."""

import random
from collections import Counter

import pytest

from celery_monitor.core.aggregate import Aggregator, Bounds
from celery_monitor.core.model import COUNTS, FAILED, STARTED, SUCCEEDED, Series
from celery_monitor.core.series import ESTABLISHED, ESTABLISHED_RETENTION_HOURS, LABEL_BYTES
from celery_monitor.core.text import OTHER
from tests.builders import NOON


def aggregator(most: int, *, hosts: bool = False, names: int = 10_000) -> Aggregator:
    """An aggregator whose workers have registered the tasks with names that begin with ``known``."""
    made = Aggregator(
        Bounds(names=names, series=most),
        runtime_bounds=(1.0, 2.0),
        wait_bounds=(1.0, 5.0),
        hosts=hosts,
        knows=lambda name, queue: name.startswith("known") and queue == "q",
    )
    made.tick(NOON)
    return made


def run(of: Aggregator, name: str, queue: str = "q", host: str = "", at: float = NOON) -> None:
    """A task that succeeds, and one that fails."""
    of.add(SUCCEEDED, name, queue, host, at, 1.5)
    row = of.add(FAILED, name, queue, host, at, None)
    of.add_failure(row, "ValueError", "u", at)


def names(of: Aggregator) -> set[str]:
    """The tasks with their own series."""
    return {one.key.name for one in of.snapshot()} - {OTHER}


def test_what_was_used_the_longest_time_ago_is_folded() -> None:
    """A new series replaces the least recently used one, whose totals are added to ``other``."""
    of = aggregator(6)
    for name in ("a", "b", "c"):
        run(of, name)
        of.take()
    run(of, "a")
    of.take()
    run(of, "d")
    taken = of.take()
    series, dropped = taken.series, taken.dropped_series
    assert names(of) == {"a", "c", "d"}
    assert [key.name for key in dropped] == ["b"]
    other = next(one for one in series if one.key.name == OTHER)
    assert (other.key.queue, other.counts[SUCCEEDED], other.counts[FAILED]) == (OTHER, 1, 1)
    assert (other.exceptions, other.runtime.counts, other.runtime.sum) == ({"ValueError": 1}, (0, 1, 0), 1.5)
    assert of.overflows["series"] == 1


@pytest.mark.parametrize("hosts", [False, True])
def test_sums_are_exact_and_other_never_falls(*, hosts: bool) -> None:
    """For any order of events, none is lost or counted twice, and the budget holds."""
    dice = random.Random(2)
    of = aggregator(40, hosts=hosts)
    stored: dict[object, Series] = {}
    counted, last = Counter[int](), 0
    for turn in range(60):
        of.tick(NOON + turn * 60)
        for _ in range(100):
            kind = dice.randrange(len(COUNTS))
            name = dice.choice(["known", f"a{dice.randrange(300)}", f"b{dice.randrange(5)}"])
            host = f"h{dice.randrange(20)}" if hosts else ""
            row = of.add(kind, name, f"q{dice.randrange(3)}", host, NOON, 1.0)
            counted[kind] += 1
            if kind == FAILED:
                of.add_failure(row, f"E{dice.randrange(80)}", "u", NOON)
        taken = of.take()
        series, dropped = taken.series, taken.dropped_series
        for key in dropped:
            stored.pop(key, None)
        stored |= {one.key: one for one in series}
        assert of.used["series"] <= 40
        other = sum(sum(one.counts) for one in stored.values() if (one.key.name, one.key.queue) == (OTHER, OTHER))
        assert other >= last
        last = other
    for shown in (list(stored.values()), of.snapshot()):
        assert {kind: sum(one.counts[kind] for one in shown) for kind in counted} == dict(counted)
        assert sum(sum(one.exceptions.values()) for one in shown) == counted[FAILED]
        assert sum(sum(one.wait.counts) for one in shown) == counted[STARTED]
        assert sum(one.wait.sum for one in shown) == counted[STARTED]
    assert {one.key: one for one in of.snapshot()} == stored


def test_names_that_somebody_invents_do_not_push_out_the_fleet() -> None:
    """150,000 invented names do not displace registered tasks, nor one that runs every night."""
    of = aggregator(200)
    run(of, "nightly")
    of.take()
    of.tick(NOON + ESTABLISHED)
    run(of, "nightly")
    of.take()
    for name in range(50):
        run(of, f"known{name}")
    of.take()
    for turn in range(100):
        of.tick(NOON + 86_400 + turn)
        for number in range(1500):
            of.add(STARTED, f"x{number}", f"q{turn}", "", NOON, None)
        of.take()
    assert {"nightly", *(f"known{name}" for name in range(50))} <= names(of)
    assert of.used["series"] <= 200


def test_a_task_that_has_run_twice_stays() -> None:
    """Invented names occur once each, and are merged before it."""
    of = aggregator(50)
    for name in ("a", "a", *(f"x{number}" for number in range(1000))):
        run(of, name)
        of.take()
    assert "a" in names(of)


def test_what_has_been_there_for_long_gives_way_late() -> None:
    """A task that runs weekly is not displaced by invented names, but by registered tasks at once."""
    of = aggregator(3)
    for at in (NOON, NOON + ESTABLISHED):
        of.tick(at)
        for name in ("a", "b", "c"):
            of.add(STARTED, name, "q", "", at, None)
        of.take()
    of.add(STARTED, "unknown", "q", "", NOON, None)
    assert names(of) == {"a", "b", "c"}
    of.add(STARTED, "known", "q", "", NOON, None)
    assert names(of) == {"b", "c", "known"}
    of.tick(NOON + ESTABLISHED + ESTABLISHED_RETENTION_HOURS * 3600)
    of.add(STARTED, "unknown", "q", "", NOON, None)
    assert names(of) == {"c", "known", "unknown"}


def test_a_known_task_finds_room_at_once() -> None:
    """Even during a flood, however long it lasts, including its exceptions."""
    of = aggregator(100)
    for number in range(10_000):
        of.add(STARTED, f"x{number}", "q", "", NOON, None)
    run(of, "known")
    (mine,) = (one for one in of.snapshot() if one.key.name == "known")
    assert (mine.counts[SUCCEEDED], mine.exceptions) == (1, {"ValueError": 1})


def test_a_flood_makes_few_series() -> None:
    """Unregistered names get series at a limited rate, because each is also a row of the store."""
    of = aggregator(1000)
    made = 0
    for turn in range(10):
        of.tick(NOON + turn)
        for number in range(2000):
            of.add(STARTED, f"x{turn}.{number}", "q", "", NOON, None)
        made += len(of.take().series)
    assert made < 1000 + 50 + 10 * (1 + 1)
    assert of.overflows["series"] > 18_000


def test_a_class_of_exceptions_is_in_the_budget() -> None:
    """Each exception class is a series; beyond the budget it counts as ``other`` of its own task."""
    of = aggregator(10)
    for number in range(30):
        run(of, "known")
        row = of.add(FAILED, "known", "q", "", NOON, None)
        of.add_failure(row, f"E{number}", "u", NOON)
    (one,) = of.snapshot()
    assert (len(one.exceptions), one.exceptions[OTHER]) == (10, 30 - 8)
    assert of.used["series"] == 10


def test_long_labels_cost_more() -> None:
    """A scrape contains each label about forty times."""
    of = aggregator(100)
    for number in range(100):
        of.add(STARTED, f"known{number:03}" + "é" * LABEL_BYTES, "q", "", NOON, None)
    assert 30 <= len(names(of)) <= 34


def test_hosts_are_folded_before_tasks() -> None:
    """With the hostname label, a task keeps its name if it has too many pods."""
    of = aggregator(50, hosts=True)
    for pod in range(500):
        of.tick(NOON + pod * 60)
        for name in range(5):
            of.add(STARTED, f"known{name}", "q", f"pod{pod}", NOON, None)
    counts = Counter[str]()
    for one in of.snapshot():
        counts[one.key.name] += one.counts[STARTED]
    assert counts == {f"known{name}": 500 for name in range(5)}


def test_a_restart_keeps_the_order() -> None:
    """Restored series are merged by their stored rank."""
    before = aggregator(100)
    run(before, "nightly")
    before.take()
    for hour, name in ((1, "nightly"), (2, "once"), (3, "late")):
        before.tick(NOON + hour * 3600)
        run(before, name)
        before.take()
    stored = sorted(before.snapshot(), key=lambda one: one.rank)
    assert [one.key.name for one in stored] == ["once", "late", "nightly"]
    after = aggregator(4)
    after.tick(NOON + 4 * 3600)
    after.restore(stored)
    assert names(after) == {"late", "nightly"}
    run(after, "new")
    assert names(after) == {"new", "nightly"}


def test_a_budget_that_was_lowered_folds_at_the_start() -> None:
    """The first flush updates the store."""
    before = aggregator(1000)
    for number in range(100):
        run(before, f"a{number}")
    after = aggregator(20)
    after.restore(before.snapshot())
    taken = after.take()
    series, dropped = taken.series, taken.dropped_series
    assert (len(dropped), len(after.snapshot())) == (90, 11)
    assert [(one.key.name, one.counts[SUCCEEDED]) for one in series] == [(OTHER, 90)]
    again = aggregator(20)
    again.restore(after.snapshot())
    taken = again.take()
    assert (again.used["series"], taken.series, taken.dropped_series) == (20, [], [])
