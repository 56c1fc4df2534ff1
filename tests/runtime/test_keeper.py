"""The store's housekeeping."""

from collections.abc import Mapping

from celery_monitor.ports import StoreSpace
from celery_monitor.runtime.keeper import LOOK_EVERY, PRUNE_EVERY, Keeper
from tests.builders import NOON
from tests.fakes import ManualClock

DAY = 86_400.0


class Kept:
    """As much of a Store and an Outbox as the keeper uses."""

    def __init__(self) -> None:
        self.pruned: list[float] = []
        self.delivered: dict[str, float] = {}
        self.room = StoreSpace()

    def prune(self, now: float) -> None:
        """Noted."""
        self.pruned.append(now)

    def space(self) -> StoreSpace:
        """As it is set."""
        return self.room

    def pending(self) -> Mapping[str, tuple[int, float | None]]:
        """Nothing waits."""
        return {}

    def last_delivered(self, channel: str) -> float | None:
        """Never."""
        return self.delivered.get(channel)


def test_a_report_comes_though_the_clock_was_years_ahead() -> None:
    """It was asked for the next time while the clock was wrong; set right, the day's report is still claimed."""
    clock, asked = ManualClock(time=NOON), list[float]()

    def report(now: float) -> float:
        asked.append(now)
        return now - now % DAY + DAY

    store = Kept()
    keeper = Keeper(store, store, clock, report)  # type: ignore[arg-type]  # the parts of them that it uses
    clock.step(4 * 365 * DAY)
    keeper.turn()
    clock.step(-4 * 365 * DAY)
    for _ in range(int(DAY / LOOK_EVERY)):
        clock.advance(LOOK_EVERY)
        keeper.turn()
    midnight = NOON + DAY / 2
    assert any(midnight <= at < midnight + LOOK_EVERY for at in asked)
    assert len(asked) <= DAY / 60 + 2
    assert len(store.pruned) == DAY / 60 + 1


def test_a_report_that_is_not_sent_any_more_is_not_overdue() -> None:
    """Its last success is known while reports are sent, and not once nobody is to get one."""
    store = Kept()
    store.delivered["email"] = NOON - 9 * DAY
    for report, known in ((lambda now: now + DAY, NOON - 9 * DAY), (None, None)):
        keeper = Keeper(store, store, ManualClock(time=NOON), report)  # type: ignore[arg-type]  # as above
        keeper.turn()
        assert keeper.report_last_success == known


def test_a_store_that_is_short_of_space_is_pruned_at_each_look() -> None:
    """Failures may come faster than a minute's pruning; with enough space it is a minute again."""
    clock, store = ManualClock(time=NOON), Kept()
    keeper = Keeper(store, store, clock)  # type: ignore[arg-type]  # the parts of them that it uses
    for short, looks, pruned in ((False, 3, 1), (True, 3, 4), (False, 3, 4)):
        store.room = StoreSpace(short=short)
        for _ in range(looks):
            keeper.turn()
            clock.advance(LOOK_EVERY)
        assert len(store.pruned) == pruned
    clock.advance(PRUNE_EVERY)
    keeper.turn()
    assert len(store.pruned) == 5
