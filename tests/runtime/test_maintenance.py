"""Maintenance of the store."""

from collections.abc import Mapping

from celery_monitor.ports import StoreSpace
from celery_monitor.runtime.maintenance import CHECK_INTERVAL, IDLE_INTERVAL, PRUNE_INTERVAL, Maintenance
from tests.builders import NOON
from tests.fakes import ManualClock

DAY = 86_400.0


class CommittedTotals:
    """The parts of a Store and an Outbox that maintenance uses."""

    def __init__(self) -> None:
        self.pruned: list[float] = []
        self.delivered: dict[str, float] = {}
        self.room = StoreSpace()

    def prune(self, now: float) -> None:
        """Record it."""
        self.pruned.append(now)

    def space(self) -> StoreSpace:
        """The configured space."""
        return self.room

    def pending(self) -> Mapping[str, tuple[int, float | None]]:
        """No rows."""
        return {}

    def last_delivered(self, channel: str) -> float | None:
        """Never."""
        return self.delivered.get(channel)


def test_a_report_comes_though_the_clock_was_years_ahead() -> None:
    """After the clock was corrected, the day's report is still claimed."""
    clock, asked = ManualClock(time=NOON), list[float]()

    def report(now: float) -> float:
        asked.append(now)
        return now - now % DAY + DAY

    store = CommittedTotals()
    maintenance = Maintenance(store, store, clock, report)  # type: ignore[arg-type]  # the parts of them that it uses
    clock.step(4 * 365 * DAY)
    maintenance.run_once()
    clock.step(-4 * 365 * DAY)
    for _ in range(int(DAY / CHECK_INTERVAL)):
        clock.advance(CHECK_INTERVAL)
        maintenance.run_once()
    midnight = NOON + DAY / 2
    assert any(midnight <= at < midnight + CHECK_INTERVAL for at in asked)
    assert len(asked) <= DAY / 60 + 2
    assert len(store.pruned) == DAY / 60 + 1


def test_a_report_that_is_not_sent_any_more_is_not_overdue() -> None:
    """Its last success is exported only while reports have recipients."""
    store = CommittedTotals()
    store.delivered["email"] = NOON - 9 * DAY
    for report, known in ((lambda now: now + DAY, NOON - 9 * DAY), (None, None)):
        maintenance = Maintenance(store, store, ManualClock(time=NOON), report, "email")  # type: ignore[arg-type]  # as above
        maintenance.run_once()
        assert maintenance.report_last_success == known


def test_a_store_that_is_short_of_space_is_pruned_at_each_look() -> None:
    """Failures may arrive faster than pruning once a minute; with enough space it is once a minute again."""
    clock, store = ManualClock(time=NOON), CommittedTotals()
    maintenance = Maintenance(store, store, clock)  # type: ignore[arg-type]  # the parts of them that it uses
    for short, looks, pruned in ((False, 3, 1), (True, 3, 4), (False, 3, 4)):
        store.room = StoreSpace(short=short)
        for _ in range(looks):
            maintenance.run_once()
            clock.advance(CHECK_INTERVAL)
        assert len(store.pruned) == pruned
    clock.advance(PRUNE_INTERVAL)
    maintenance.run_once()
    assert len(store.pruned) == 5


def test_turns_are_rare_while_nothing_presses() -> None:
    """A report that is due, or a store that is short of space, does not wait long."""
    clock, store, waits = ManualClock(time=NOON), CommittedTotals(), [DAY]
    maintenance = Maintenance(store, store, clock, lambda now: now + waits[-1])  # type: ignore[arg-type]  # as above
    for wait, short, pause in (
        (DAY, False, IDLE_INTERVAL),
        (3.0, False, 3.0),
        (1.0, False, CHECK_INTERVAL),
        (DAY, True, CHECK_INTERVAL),
    ):
        waits.append(wait)
        store.room = StoreSpace(short=short)
        clock.advance(DAY)
        maintenance.run_once()
        assert maintenance._pause() == pause
