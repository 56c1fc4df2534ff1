import dataclasses
import threading
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from celery_monitor.core.model import ASKED_FOR, REFRESH, Action, Incident, OutboxItem, OutboxRequest
from celery_monitor.core.paging import Page
from celery_monitor.errors import (
    InterruptedSendError,
    MaybeDeliveredError,
    RejectedError,
    RetryableError,
    StoreUnavailableError,
    UncertainError,
)
from celery_monitor.ports import Sent
from celery_monitor.runtime.notifier import IDLE_POLL, POLL, Notifier, Unconfigured
from tests.fakes import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable


class MemoryOutbox:
    """The rows of the outbox in memory; ``full`` simulates a full disk, which can be read but not written."""

    def __init__(self) -> None:
        self.receipts: list[str | None] = []
        self.rows: dict[int, OutboxItem] = {}
        self.full = False
        self.down = False

    def add(self, key: str, *, route: str = "", channel: str = "pagerduty", due_at: float = 0.0, **more: Any) -> int:
        row = len(self.rows) + 1
        self.rows[row] = OutboxItem(
            id=row,
            channel=channel,
            key=key,
            action=Action.TRIGGER,
            route=route,
            revision=1,
            attempts=more.pop("attempts", 0),
            created_at=more.pop("created_at", 0.0),
            due_at=due_at,
            state="pending",
            **more,
        )
        return row

    def refresh(self, row: int) -> None:
        item = self.rows[row]
        self.rows[row] = dataclasses.replace(item, revision=item.revision + 1)

    def due(self, now: float, limit: int) -> list[OutboxItem]:
        if self.down:
            raise StoreUnavailableError("down")
        heads: dict[tuple[str, str], OutboxItem] = {}
        for item in sorted(self.rows.values(), key=lambda item: (item.priority, -item.created_at, item.id)):
            if item.state == "pending" and item.due_at <= now:
                heads.setdefault((item.channel, item.route), item)
        return list(heads.values())[:limit]

    def waiting(self, channel: str) -> bool:
        return any(item.channel == channel and item.state == "pending" for item in self.rows.values())

    def expedite(self, channel: str, now: float) -> None:
        for item in list(self.rows.values()):
            if item.channel == channel and item.state == "pending" and item.attempts:
                self._write(item, due_at=min(item.due_at, now))

    def delivered(self, item: OutboxItem, now: float, count: int | None, receipt: str | None = None) -> None:
        self.receipts.append(receipt)
        if self.rows[item.id].revision == item.revision:
            self._write(item, state="delivered", delivered_at=now)

    def retry(self, item: OutboxItem, due_at: float, error: str) -> None:
        self._write(item, attempts=item.attempts + 1, due_at=due_at, error=error)

    def dead(self, item: OutboxItem, now: float, error: str) -> None:
        self._write(item, state="dead", error=error)

    def uncertain(self, item: OutboxItem, now: float, error: str) -> None:
        self._write(item, state="unknown", error=error)

    def note(self, item: OutboxItem, progress: str) -> None:
        self._write(item, progress=progress)

    def _write(self, item: OutboxItem, **changes: object) -> None:
        if self.full or self.down:
            raise StoreUnavailableError("database or disk is full")
        self.rows[item.id] = dataclasses.replace(self.rows[item.id], **changes)  # type: ignore[arg-type]

    def enqueue(self, entry: OutboxRequest, now: float) -> bool:
        raise NotImplementedError

    def revive(self, item_id: int | None, now: float) -> int:
        raise NotImplementedError

    def items(
        self,
        *,
        dead: bool,
        limit: int,
        cursor: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Page[OutboxItem]:
        raise NotImplementedError

    def pending(self) -> dict[str, tuple[int, float | None]]:
        raise NotImplementedError

    def given_up(self) -> dict[str, int]:
        raise NotImplementedError

    def unknown(self) -> dict[str, int]:
        raise NotImplementedError

    def last_delivered(self, channel: str) -> float | None:
        raise NotImplementedError

    def incident(self, key: str) -> Incident | None:
        raise NotImplementedError

    def open_incidents(self, channel: str, limit: int, cursor: str | None = None) -> Page[Incident]:
        raise NotImplementedError


class ScriptedSender:
    """Raises the error in ``answers`` for the key, otherwise delivers. Routes named ``off…`` have no lane."""

    channel: str = "pagerduty"
    missing: str = "no routing key is configured"

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.answers: dict[str, deque[Exception]] = {}
        self.sent: list[tuple[str, float]] = []
        self.key = ""
        self.receipt: str | None = None
        self.away = False
        self.skips = False
        self.during: Callable[[], None] = lambda: None

    def rate_limit_key(self, item: OutboxItem) -> str | None:
        return None if item.route.startswith("off") else f"lane of {item.route}{self.key}"

    def send(self, item: OutboxItem) -> Sent:
        self.sent.append((item.key, self.clock.ticks))
        self.during()
        if self.away:
            raise RetryableError("no answer")
        if self.answers.get(item.key):
            raise self.answers[item.key].popleft()
        return Sent(1, self.receipt, skipped=self.skips)

    def stop(self) -> None:
        raise NotImplementedError

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self.sent]


class Bench:
    """A notifier with its dependencies; ``fraction`` 1 gives the longest backoff."""

    def __init__(self, rate_limit: int | None = None, fraction: float = 1.0) -> None:
        self.clock = ManualClock()
        self.outbox = MemoryOutbox()
        self.sender = ScriptedSender(self.clock)
        self.rate_limit, self.fraction = rate_limit, fraction
        self.start()

    def start(self, *, idempotent: bool = False) -> None:
        """A notifier without state other than the outbox."""
        self.notifier = Notifier(
            self.outbox,
            self.sender,
            self.clock,
            rate_limit=self.rate_limit,
            idempotent=idempotent,
            fraction=lambda: self.fraction,
        )

    def run(self, seconds: float = 0.0) -> None:
        """Run the loop for this long."""
        end = self.clock.ticks + seconds
        while True:
            while self.notifier.run_once():
                pass
            if self.clock.ticks >= end:
                return
            self.clock.advance(min(POLL, end - self.clock.ticks))

    def state(self, row: int) -> str:
        return self.outbox.rows[row].state


@pytest.fixture
def bench() -> Bench:
    """A notifier without a rate limit."""
    return Bench()


def refused(*errors: Exception) -> deque[Exception]:
    """The error that the sender raises for a key, one per request."""
    return deque(errors)


def test_delivers_each_row_once_in_order(bench: Bench) -> None:
    """Rows of a route are sent in the order in which they were written, once each."""
    for key in "abc":
        bench.outbox.add(key)
    bench.run(60)
    assert bench.sender.keys == ["a", "b", "c"]
    assert {item.state for item in bench.outbox.rows.values()} == {"delivered"}
    assert bench.notifier.notifications() == {"delivered": 3, "retried": 0, "dead": 0, "unknown": 0}


def test_what_a_channel_does_not_tell(bench: Bench) -> None:
    """The row is done, and does not count as a delivery."""
    row = bench.outbox.add("a")
    bench.sender.skips = True
    bench.run()
    assert bench.state(row) == "delivered"
    assert bench.notifier.notifications()["delivered"] == 0


def test_backoff_grows_with_the_attempts_in_the_store(bench: Bench) -> None:
    """The wait after each refusal doubles, based on the stored attempts."""
    bench.outbox.add("a")
    bench.sender.answers["a"] = refused(*[RetryableError("503") for _ in range(4)])
    bench.run(60)
    assert [at - 1000 for _, at in bench.sender.sent] == [0, 1, 3, 7, 15]
    assert bench.notifier.notifications() == {"delivered": 1, "retried": 4, "dead": 0, "unknown": 0}


def test_a_retry_keeps_its_error(bench: Bench) -> None:
    """The row shows the reason."""
    row = bench.outbox.add("a")
    bench.sender.answers["a"] = refused(RetryableError("PagerDuty responded with 503"))
    bench.run()
    assert bench.outbox.rows[row].error == "PagerDuty responded with 503"
    assert bench.state(row) == "pending"


@pytest.mark.parametrize(("asked", "waits"), [(42.0, 42), (0.2, 1), (301.0, 300), (7200.0, 300)])
def test_retry_after_is_honoured_up_to_five_minutes(bench: Bench, asked: float, waits: float) -> None:
    """Retry-After applies if it is longer than the backoff, up to five minutes."""
    bench.outbox.add("a")
    bench.sender.answers["a"] = refused(RetryableError("429", after=asked))
    bench.run(4000)
    assert bench.sender.sent[1][1] - 1000 == waits


def test_a_receiver_that_asks_for_time_gets_it(bench: Bench) -> None:
    """All rows for the same account wait; other accounts do not."""
    bench.outbox.add("slow", route="one")
    bench.outbox.add("behind", route="one")
    bench.outbox.add("other", route="two")
    bench.sender.answers["slow"] = refused(RetryableError("503", after=100))
    bench.run()
    assert bench.sender.keys == ["slow", "other"]
    bench.run(101)
    assert bench.sender.keys == ["slow", "other", "slow", "behind"]


def test_one_huge_retry_after_does_not_silence_a_routing_key(bench: Bench) -> None:
    """A server that asks for years gets one request in five minutes, and all rows once it accepts one."""
    bench.outbox.add("asked", route="one")
    bench.sender.answers["asked"] = refused(*[RetryableError("429", after=1e9) for _ in range(3)])
    bench.run(10)
    bench.outbox.add("page", route="one")
    bench.run(1000)
    assert [at - 1000 for _, at in bench.sender.sent] == [0, 300, 600, 900, 900]
    assert bench.sender.keys == ["asked"] * 4 + ["page"]


def test_a_person_may_shorten_the_wait(bench: Bench) -> None:
    """`outbox retry` makes a row due as if it were new, regardless of Retry-After."""
    row = bench.outbox.add("a")
    bench.sender.answers["a"] = refused(RetryableError("503", after=3000))
    bench.run(10)
    bench.outbox.rows[row] = dataclasses.replace(bench.outbox.rows[row], attempts=0, due_at=0.0, priority=ASKED_FOR)
    bench.run()
    assert bench.state(row) == "delivered"


def test_rejected_is_dead_and_the_route_goes_on(bench: Bench) -> None:
    """A rejected row is dead with its error, and later rows are sent."""
    row = bench.outbox.add("bad")
    bench.outbox.add("good")
    bench.sender.answers["bad"] = refused(RejectedError("PagerDuty responded with 400"))
    bench.run(10)
    assert bench.sender.keys == ["bad", "good"]
    assert (bench.state(row), bench.outbox.rows[row].error) == ("dead", "PagerDuty responded with 400")
    assert bench.notifier.notifications() == {"delivered": 1, "retried": 0, "dead": 1, "unknown": 0}


def test_an_unknown_outcome_is_tried_rarely_and_then_said(bench: Bench) -> None:
    """It waits as long as the sender asks without blocking others; then the row is neither delivered nor dead."""
    row = bench.outbox.add("a")
    bench.outbox.add("behind")
    unknown = UncertainError("nobody knows", 1800.0)
    bench.sender.answers["a"] = deque([unknown, unknown, MaybeDeliveredError("may have been delivered")])
    bench.run(1799)
    assert bench.sender.keys == ["a", "behind"]
    bench.run(3700)
    assert bench.sender.keys == ["a", "behind", "a", "a"]
    assert (bench.state(row), bench.outbox.rows[row].error) == ("unknown", "may have been delivered")
    assert bench.notifier.notifications() == {"delivered": 1, "retried": 0, "dead": 0, "unknown": 3}


def test_an_error_of_ours_costs_its_own_row_only(bench: Bench) -> None:
    """An unexpected error is logged and retried rarely, and later rows are sent."""
    bench.sender.answers["a"] = refused(KeyError("a secret"))
    first, second = bench.outbox.add("a"), bench.outbox.add("b")
    bench.run()
    row = bench.outbox.rows[first]
    assert (row.state, row.attempts, row.error) == ("pending", 1, "internal error; see the log")
    assert bench.state(second) == "delivered"
    bench.run(60)
    assert bench.sender.sent == [("a", 1000), ("b", 1000), ("a", 1030)]


def test_without_a_lane_nothing_is_sent(bench: Bench) -> None:
    """A row whose channel was switched off is dead with that reason; no request is sent."""
    row = bench.outbox.add("a", route="off")
    bench.run()
    assert bench.sender.keys == []
    assert (bench.state(row), bench.outbox.rows[row].error) == ("dead", "no routing key is configured")


def test_other_channels_are_left_alone(bench: Bench) -> None:
    """A notifier processes only the rows of its own channel."""
    row = bench.outbox.add("2026-11-23", channel="email")
    bench.run(10)
    assert bench.sender.keys == []
    assert bench.state(row) == "pending"


def test_never_more_than_the_limit_in_any_minute() -> None:
    """For any number of rows, every window of 60 s has at most the limit, and all rows are sent in the end."""
    bench = Bench(rate_limit=5)
    for number in range(23):
        bench.outbox.add(str(number))
    bench.run(300)
    times = [at for _, at in bench.sender.sent]
    assert len(times) == 23
    assert all(later - earlier > 60 for earlier, later in zip(times, times[5:], strict=False))
    assert times[-1] - times[0] < 250


def test_refused_requests_count_against_the_limit() -> None:
    """Retries also stay within the limit."""
    bench = Bench(rate_limit=3, fraction=0.0)
    bench.outbox.add("a")
    bench.sender.answers["a"] = refused(*[RetryableError("503") for _ in range(10)])
    bench.run(59)
    assert len(bench.sender.sent) == 3


def test_the_limit_is_per_lane() -> None:
    """A lane at its limit does not delay others."""
    bench = Bench(rate_limit=2)
    for key in "abcd":
        bench.outbox.add(key, route="busy")
    bench.outbox.add("z", route="calm")
    bench.run()
    assert sorted(bench.sender.keys) == ["a", "b", "z"]


def test_a_new_page_passes_all_that_waits() -> None:
    """With 450 pages waiting at 100 per minute, a new one is sent within seconds, and all are sent in the end."""
    bench = Bench(rate_limit=100)
    for number in range(450):
        bench.outbox.add(f"old {number}", priority=1)
    bench.run(7)
    late = []
    for minute in range(4):
        for priority in (0, 1):
            bench.outbox.add(f"new {minute} {priority}", priority=priority, created_at=bench.clock.ticks)
        bench.run(5)
        late += [key for key in (f"new {minute} 0", f"new {minute} 1") if key not in bench.sender.keys]
        bench.run(55)
    assert late == []
    bench.run(300)
    times = [at for _, at in bench.sender.sent]
    assert len(times) == 458
    assert all(later - earlier > 60 for earlier, later in zip(times, times[100:], strict=False))


def test_updates_leave_room_for_new_pages() -> None:
    """However many open incidents have updates, a new one is sent immediately."""
    bench = Bench(rate_limit=100)
    for number in range(300):
        bench.outbox.add(f"update {number}", priority=REFRESH + 1)
    bench.run(1)
    assert 40 < len(bench.sender.keys) <= 50
    for number in range(10):
        bench.outbox.add(f"new {number}", priority=3)
    bench.run()
    assert bench.sender.keys[-10:] == [f"new {number}" for number in range(10)]
    bench.run(600)
    assert len(bench.sender.keys) == 310


def test_the_rest_of_the_limit_is_not_waited_for_longer_than_needed() -> None:
    """The notifier continues when the next request is possible, not a whole interval later."""
    bench = Bench(rate_limit=1200)
    for number in range(722):
        bench.outbox.add(str(number))
    bench.run()
    waits: list[float | None] = []

    class Wake(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            stop.set()
            return True

    stop = threading.Event()
    bench.notifier._wake = Wake()
    bench.notifier.run(stop, lambda: None)
    assert len(bench.sender.keys) == 721
    assert waits == [pytest.approx(60 / 480)]


def test_a_row_that_is_never_taken_keeps_back_no_page(bench: Bench) -> None:
    """Nor do three such rows, regardless of their priority and number of refusals."""
    for key in ("bad 1", "bad 2", "bad 3"):
        bench.outbox.add(key)
        bench.sender.answers[key] = refused(*[RetryableError("500") for _ in range(500)])
    bench.run(3600)
    late = []
    for number in range(20):
        bench.outbox.add(f"good {number}", priority=3)
        bench.run(9)
        late += [number] if f"good {number}" not in bench.sender.keys else []
        bench.run(60)
    assert late == []


def test_a_receiver_that_is_away_is_not_asked_for_every_row(bench: Bench) -> None:
    """With 300 waiting pages it gets one request per minute; when it is back, all are sent within a minute."""
    bench.start(idempotent=True)
    for number in range(300):
        bench.outbox.add(str(number))
    bench.sender.away = True
    bench.run(3600)
    assert 60 < len(bench.sender.keys) < 120
    bench.sender.away = False
    bench.outbox.add("new", priority=0)
    bench.run(61)
    assert {item.state for item in bench.outbox.rows.values()} == {"delivered"}


def test_what_a_person_has_to_repair_is_tried_rarely(bench: Bench) -> None:
    """A refused routing key: a few attempts, then one in 15 minutes, and the row shows the reason."""
    row = bench.outbox.add("a")
    bench.sender.answers["a"] = refused(*[RetryableError("Invalid routing key", needs_repair=True)] * 99)
    bench.run(6 * 3600)
    times = [at - 1000 for _, at in bench.sender.sent]
    assert times[:6] == [0, 30, 90, 210, 450, 930]
    assert {later - earlier for earlier, later in pairwise(times[6:])} == {900}
    assert bench.outbox.rows[row].error == "Invalid routing key"
    assert bench.notifier.notifications()["dead"] == 0


@pytest.mark.parametrize("how", ["another key", "the same key works", "a restart"])
def test_what_a_person_has_repaired_goes_at_once(how: str, bench: Bench) -> None:
    """After the key was replaced, or repaired at the receiver and any page succeeds."""
    bench.start(idempotent=True)
    for key in "ab":
        bench.outbox.add(key)
        bench.sender.answers[key] = refused(*[RetryableError("Invalid routing key", needs_repair=True)] * 6)
    bench.run(1000)
    bench.sender.answers.clear()
    before = len(bench.sender.keys)
    if how == "another key":
        bench.sender.key = "repaired"
    elif how == "a restart":
        bench.start(idempotent=True)
    else:
        bench.outbox.add("c")
    bench.run(2)
    assert sorted(bench.sender.keys[before:]) == (["a", "b", "c"] if how == "the same key works" else ["a", "b"])


def test_a_start_begins_with_a_try(bench: Bench) -> None:
    """Rows that an earlier process would retry in five minutes are retried now, but not with a request each."""
    for number in range(50):
        bench.outbox.add(str(number), attempts=9, due_at=bench.clock.now() + 299)
    bench.sender.away = True
    bench.start(idempotent=True)
    bench.run(30)
    assert 1 < len(bench.sender.keys) < 10
    bench.sender.away = False
    bench.start(idempotent=True)
    bench.run()
    assert len({key for key, _ in bench.sender.sent}) == 50


def test_a_request_that_the_end_interrupts_is_no_attempt(bench: Bench) -> None:
    """The row is as it was: the next process sends it at once."""
    row = bench.outbox.add("a")
    bench.sender.answers["a"] = refused(InterruptedSendError("the monitor is shutting down"))
    assert not bench.notifier.run_once()
    assert (bench.outbox.rows[row].attempts, bench.outbox.rows[row].error) == (0, None)
    assert bench.notifier.notifications() == {"delivered": 0, "retried": 0, "dead": 0, "unknown": 0}
    bench.start()
    bench.run()
    assert bench.state(row) == "delivered"


def test_the_limit_survives_a_step_of_the_wall_clock() -> None:
    """When somebody sets the clock, the limit neither opens nor closes."""
    bench = Bench(rate_limit=1)
    bench.outbox.add("a")
    bench.outbox.add("b")
    bench.run()
    bench.clock.step(-86_400)
    bench.run(59)
    assert bench.sender.keys == ["a"]
    bench.run(2)
    assert bench.sender.keys == ["a", "b"]


def test_a_channel_that_is_gone() -> None:
    """What waits for it is given up, with what to do; other channels' rows stay."""
    outbox = MemoryOutbox()
    gone, other = outbox.add("a", channel="chat"), outbox.add("b")
    stray = Notifier(outbox, Unconfigured("chat"), ManualClock())
    assert stray.run_once()
    assert outbox.rows[gone].state == "dead"
    assert "no channel with this name is configured" in str(outbox.rows[gone].error)
    assert outbox.rows[other].state == "pending"


def test_a_full_disk_sends_nothing_twice(bench: Bench) -> None:
    """While deliveries cannot be recorded nothing goes twice; other routes go on; then the records are made up."""
    first = bench.outbox.add("a", route="one")
    bench.outbox.add("b", route="one")
    second = bench.outbox.add("c", route="two")
    bench.outbox.full = True
    bench.run(600)
    assert bench.sender.keys == ["a", "c"]
    bench.outbox.full = False
    bench.run()
    assert (bench.state(first), bench.state(second)) == ("delivered", "delivered")
    assert bench.sender.keys == ["a", "c", "b"]


def test_a_full_disk_keeps_the_backoff(bench: Bench) -> None:
    """A refusal that cannot be recorded is not followed by another request until it is."""
    row = bench.outbox.add("a")
    bench.sender.answers["a"] = refused(RetryableError("503"))
    bench.outbox.full = True
    bench.run(60)
    assert bench.sender.keys == ["a"]
    bench.outbox.full = False
    bench.run()
    assert bench.sender.keys == ["a", "a"]
    assert bench.outbox.rows[row].attempts == 1


def test_a_full_disk_keeps_the_rejection(bench: Bench) -> None:
    """A row rejected while the disk was full is not sent again, and is dead when the disk has space."""
    row = bench.outbox.add("a")
    bench.sender.answers["a"] = refused(RejectedError("400"))
    bench.outbox.full = True
    bench.run(60)
    bench.outbox.full = False
    bench.run(60)
    assert bench.sender.keys == ["a"]
    assert bench.state(row) == "dead"


def test_the_store_down_is_waited_for(bench: Bench) -> None:
    """While the outbox cannot be read nothing happens; then it continues."""
    bench.outbox.add("a")
    bench.outbox.down = True
    bench.run(10)
    assert bench.sender.keys == []
    bench.outbox.down = False
    bench.run()
    assert bench.sender.keys == ["a"]


def test_the_store_down_while_reading_the_incident(bench: Bench) -> None:
    """If the sender cannot read the incident, the row is unchanged and no attempt is counted."""
    row = bench.outbox.add("a")
    bench.sender.answers["a"] = refused(StoreUnavailableError("locked"))
    assert not bench.notifier.run_once()
    assert bench.outbox.rows[row].attempts == 0
    bench.run(1)
    assert bench.state(row) == "delivered"


def test_a_row_refreshed_while_it_was_sent_goes_again(bench: Bench) -> None:
    """Counts that grew during the request are sent with another request."""
    row = bench.outbox.add("a")

    def grow_once() -> None:
        bench.sender.during = lambda: None
        bench.outbox.refresh(row)

    bench.sender.during = grow_once
    bench.run()
    assert bench.sender.keys == ["a", "a"]
    assert bench.state(row) == "delivered"


def test_stops_between_two_requests(bench: Bench) -> None:
    """After a stop no further request is sent, however many rows are due."""
    for route in "abcd":
        bench.outbox.add(route, route=route)
    stop, turns = threading.Event(), []
    bench.sender.during = stop.set
    bench.notifier.run(stop, lambda: turns.append(1))
    assert bench.sender.keys == ["a"]
    assert len(turns) >= 2


def test_wake_ends_the_wait_at_once() -> None:
    """A waiting notifier checks immediately when it is woken, and ends immediately when it is stopped and woken."""
    bench = Bench()
    waits: list[float | None] = []

    class Wake(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            bench.outbox.add(f"row {len(waits)}")
            if len(waits) == 3:
                stop.set()
            return True

    stop = threading.Event()
    bench.notifier._wake = Wake()
    bench.notifier.run(stop, lambda: None)
    assert bench.sender.keys == ["row 1", "row 2"]
    assert waits == [IDLE_POLL, IDLE_POLL, IDLE_POLL]


@pytest.mark.parametrize(
    ("there", "pause"),
    [
        ("nothing", IDLE_POLL),
        ("only another channel's row", IDLE_POLL),
        ("a row that was delivered", IDLE_POLL),
        ("a row whose time has not come", POLL),
        ("a row that failed", POLL),
        ("an outcome that the store does not take", POLL),
        ("a store that is away", POLL),
        ("a lane at its limit", POLL),
    ],
)
def test_the_outbox_is_looked_at_rarely_only_while_nothing_waits(there: str, pause: float) -> None:
    """While a row may become due, its time is met within a second; otherwise only a wake-up starts work."""
    bench = Bench(rate_limit=1)
    if there == "only another channel's row":
        bench.outbox.add("a", channel="email")
    elif there == "a row whose time has not come":
        bench.outbox.add("a", due_at=bench.clock.now() + 60)
    elif there != "nothing":
        bench.outbox.add("a")
    if there == "a lane at its limit":
        bench.outbox.add("b")
    if there == "a row that failed":
        bench.sender.answers["a"] = refused(RetryableError("503"))
    bench.outbox.full = there == "an outcome that the store does not take"
    bench.outbox.down = there == "a store that is away"
    bench.run()
    assert bench.notifier._pause == pause


def test_a_repeater_is_asked_at_its_time(bench: Bench) -> None:
    """Without rows, a notifier sleeps no longer than until open incidents are to be repeated."""

    class Repeater:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def run_once(self, proceed: object) -> float:
            del proceed
            return self.seconds

    for seconds, leads, pause in ((60.0, True, IDLE_POLL), (3.0, True, 3.0), (0.2, True, 0.2), (60.0, False, POLL)):
        bench.notifier = Notifier(
            bench.outbox,
            bench.sender,
            bench.clock,
            repeater=Repeater(seconds),  # type: ignore[arg-type]  # the part of it that is used
            may_send=lambda _, leads=leads: leads,  # type: ignore[misc]
        )
        bench.run()
        assert bench.notifier._pause == pause
