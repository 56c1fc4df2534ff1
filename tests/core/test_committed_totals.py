"""What readers see: the committed totals and the current workers."""

from celery_monitor.core.committed_totals import CommittedTotals
from celery_monitor.core.model import STARTED, Changes, CounterName, Delivery, Restored
from celery_monitor.core.monitor import Limits, Monitor
from tests.builders import NOON, body, life, pass_time, raw


def monitor(**limits: bool) -> tuple[Monitor, CommittedTotals]:
    """A monitor with an empty store."""
    made = Monitor(Limits(**limits), Restored(), NOON)  # type: ignore[arg-type]
    made.connected(acknowledges=False)
    return made, CommittedTotals(made.snapshot())


def receive(of: Monitor, *bodies: bytes) -> None:
    """Apply one message after the other."""
    of.receive([Delivery(one) for one in bodies], NOON)


def taken(of: Monitor) -> Changes:
    """The changes to be written; fails if there are none."""
    changes = of.take(NOON)
    assert changes is not None
    return changes


def started(of: Monitor, totals: CommittedTotals) -> int:
    """The number of executions that readers see."""
    return sum(one.counts[STARTED] for one in of.snapshot(totals).series)


def heartbeat(processed: int) -> bytes:
    """A heartbeat of the worker."""
    return body({"type": "worker-heartbeat", "hostname": "w@pod", "timestamp": NOON, "processed": processed})


def test_totals_are_shown_when_they_are_committed() -> None:
    """Totals are shown only after the commit, with the values at the time of the flush."""
    of, totals = monitor()
    receive(of, *life("u1"))
    assert started(of, totals) == 0
    changes = taken(of)
    receive(of, *life("u2"))
    assert started(of, totals) == 0
    totals.commit(changes)
    assert started(of, totals) == 1
    assert of.snapshot(totals).counters["events.task-started"] == 1


def test_a_restart_goes_on_from_what_was_shown() -> None:
    """The restored totals are shown immediately."""
    of, _ = monitor()
    receive(of, *life("u1"))
    changes = taken(of)
    again = Monitor(Limits(), Restored(series=changes.series, counters=changes.counters), NOON)
    assert started(again, CommittedTotals(again.snapshot())) == 1


def test_workers_are_shown_as_they_are_with_totals_as_committed() -> None:
    """While the store is unavailable, a heartbeat still shows that a worker is up."""
    of, totals = monitor()
    receive(of, heartbeat(10))
    assert [one.processed for one in of.snapshot(totals).workers] == [10]  # nothing older was ever shown
    totals.commit(taken(of))
    receive(of, heartbeat(15))
    pass_time(of, 301)
    (shown,) = of.snapshot(totals).workers
    assert (shown.processed, shown.up) == (10, False)


def test_dropped_series_and_workers_go() -> None:
    """They disappear with the commit that drops them."""
    of, totals = monitor(hostname_label=True)
    receive(of, heartbeat(1), body(raw("received", name="t") | {"hostname": "w@pod"}))
    totals.commit(taken(of))
    pass_time(of, 601)
    assert [one.hostname for one in of.snapshot(totals).workers] == ["w@pod"]
    totals.commit(taken(of))
    shown = of.snapshot(totals)
    assert (shown.series, shown.workers) == ([], [])


def test_counters_alone_are_worth_a_flush() -> None:
    """A discarded message or a gap is flushed soon, even without other changes; the uptime can wait."""
    of, _ = monitor()
    of.count(CounterName.UPTIME, 1, flush=False)
    assert of.take(NOON) is None
    of.count(CounterName.STREAM_GAP, 3)
    assert taken(of).counters["stream_gap_seconds"] == 3
    receive(of, b"{")
    assert taken(of).counters["discarded.malformed"] == 1
    assert of.take(NOON) is None
