"""While the store is not writable, pages are sent from memory, once, and their rows are settled later."""

import pytest

from celery_monitor.core.model import Action, Changes, Incident, MessageKind, OutboxItem, OutboxRequest
from celery_monitor.errors import RejectedError, RetryableError, StoreUnavailableError
from celery_monitor.ports import Sent
from celery_monitor.runtime.notifier import Notifier
from celery_monitor.runtime.uncommitted import UncommittedPages
from tests.builders import NOON
from tests.contracts.values import incident
from tests.fakes import ManualClock
from tests.runtime.test_notifier import MemoryOutbox, ScriptedSender, refused


class Outbox(MemoryOutbox):
    """With the committed incidents."""

    def __init__(self) -> None:
        super().__init__()
        self.incidents: dict[str, Incident] = {}

    def incident(self, key: str) -> Incident | None:
        if self.down:
            raise StoreUnavailableError("down")
        return self.incidents.get(key)


class Sender(ScriptedSender):
    """Delivers with the failure count of the incident."""

    def __init__(self, clock: ManualClock, uncommitted: UncommittedPages) -> None:
        super().__init__(clock)
        self.uncommitted = uncommitted
        self.counts: list[int] = []
        self.items: list[OutboxItem] = []

    def send(self, item: object) -> Sent:
        super().send(item)  # type: ignore[arg-type]  # only its key matters
        incident = self.uncommitted.incident(item.key)  # type: ignore[attr-defined]
        assert incident is not None
        self.counts.append(incident.count)
        self.items.append(item)  # type: ignore[arg-type]  # as above
        return Sent(incident.count, self.receipt)


class Bench:
    """A notifier over a store that can be made unavailable."""

    def __init__(self) -> None:
        self.clock = ManualClock(time=NOON)
        self.outbox = Outbox()
        self.uncommitted = UncommittedPages(self.outbox, self.clock, "pagerduty")
        self.sender = Sender(self.clock, self.uncommitted)
        self.notifier = Notifier(self.uncommitted, self.sender, self.clock, idempotent=True, fraction=lambda: 1.0)

    def offer(self, *keys: str, count: int = 1, action: Action = Action.TRIGGER) -> bool:
        """This many pages wait for the store."""
        return self.uncommitted.offer([waiting(key, count, action) for key in keys])

    def write(self, *keys: str, count: int = 1) -> None:
        """The store accepts the flush."""
        for key in keys:
            self.outbox.incidents[key] = incident(key, count=count)
            self.outbox.add(key)
        rows = [waiting(key)[0] for key in keys]
        self.uncommitted.written(Changes(now=NOON, sequence=1, outbox=rows))

    def run(self, seconds: float = 0.0) -> list[str]:
        """Send everything that may be sent. Returns all sent pages so far."""
        self.clock.advance(seconds)
        while self.notifier.run_once():
            pass
        return self.sender.keys


def waiting(key: str, count: int = 1, action: Action = Action.TRIGGER) -> tuple[OutboxRequest, Incident]:
    """A page that the store has not accepted."""
    return OutboxRequest("pagerduty", key, action, "", NOON), incident(key, count=count)


@pytest.fixture
def bench() -> Bench:
    """As the app composes it."""
    return Bench()


@pytest.mark.parametrize("down", [False, True])
def test_a_page_does_not_wait_for_the_store(bench: Bench, *, down: bool) -> None:
    """Readable or not: each page is sent once with its newest count, however often it is offered."""
    bench.outbox.full, bench.outbox.down = True, down
    assert bench.offer("a", "b")
    assert not bench.offer("a", "b", count=3)
    assert bench.run() == ["a", "b"]
    assert bench.sender.counts == [3, 3]
    assert not bench.offer("a", "b", count=9)
    assert bench.run(60) == ["a", "b"]


def test_a_page_does_not_wait_until_the_store_has_not_answered_again(bench: Bench) -> None:
    """Each query may take seconds; after the page is sent, the store is checked."""
    asked: list[str] = []
    due = bench.outbox.due

    def counted(now: float, limit: int) -> list[OutboxItem]:
        asked.append("due")
        return due(now, limit)

    bench.outbox.due = counted  # type: ignore[method-assign]
    bench.outbox.down = True
    bench.run()
    bench.offer("a")
    assert bench.notifier.run_once()
    assert (bench.sender.keys, asked) == (["a"], ["due"])
    bench.outbox.down = False
    bench.write("b")
    assert bench.run() == ["a", "b"]


def test_a_row_that_says_no_more_is_not_sent_again(bench: Bench) -> None:
    """When the store is back, the row is recorded as delivered. Later failures are sent with another one."""
    bench.outbox.full = True
    bench.offer("a", "b", count=2)
    bench.run()
    bench.outbox.full = False
    bench.write("a", count=2)
    bench.write("b", count=5)
    assert bench.run() == ["a", "b", "b"]
    assert [row.state for row in bench.outbox.rows.values()] == ["delivered", "delivered"]
    assert bench.sender.counts == [2, 2, 5]
    bench.write("a", count=2)
    assert bench.run() == ["a", "b", "b", "a"]


def test_by_what_the_receiver_knows_a_page_from_memory(bench: Bench) -> None:
    """Its row keeps the receipt, and further changes of the row are sent as an update."""
    bench.sender.receipt = "1700000000.1"
    bench.outbox.full = True
    bench.offer("a", "b", count=2)
    bench.run()
    bench.outbox.full = False
    bench.write("a", count=2)
    bench.write("b", count=5)
    bench.run()
    assert bench.outbox.receipts == ["1700000000.1"] * 2
    assert [(item.key, item.kind) for item in bench.sender.items] == [
        ("a", MessageKind.OPENED), ("b", MessageKind.OPENED), ("b", MessageKind.UPDATED),
    ]  # fmt: skip


def test_a_row_that_comes_before_the_page_was_sent_takes_its_place(bench: Bench) -> None:
    """After a short outage of the store, nothing is sent twice."""
    bench.offer("a")
    bench.write("a")
    assert bench.run() == ["a"]
    assert bench.run(60) == ["a"]


def test_a_row_that_is_seen_before_its_commit_is_known(bench: Bench) -> None:
    """The committing thread wakes the notifier: a page in memory and its row are not both sent."""
    bench.outbox.incidents["a"] = incident("a")
    bench.outbox.add("a")
    bench.offer("a")
    assert bench.run() == ["a"]
    assert [row.state for row in bench.outbox.rows.values()] == ["delivered"]


def test_what_is_in_memory_is_looked_at_again_soon(bench: Bench) -> None:
    """A failed page has no row with its retry time; after it is sent, nothing waits."""
    bench.outbox.full = True
    bench.sender.answers = {"a": refused(RetryableError("503"))}
    assert not bench.uncommitted.waiting("pagerduty")
    bench.offer("a")
    bench.run()
    assert bench.uncommitted.waiting("pagerduty")
    bench.outbox.full = False
    assert bench.run(60) == ["a", "a"]
    assert not bench.uncommitted.waiting("pagerduty")


def test_the_row_comes_while_the_page_is_sent(bench: Bench) -> None:
    """The request in progress counts."""
    bench.offer("a")
    bench.sender.during = lambda: bench.write("a") if not bench.outbox.rows else None
    assert bench.run() == ["a"]
    assert [row.state for row in bench.outbox.rows.values()] == ["delivered"]


def test_a_store_that_is_away_again(bench: Bench) -> None:
    """If the row cannot be recorded, others are still sent, and it is not sent again."""
    bench.offer("a")
    bench.run()
    bench.write("a")
    bench.outbox.full = True
    bench.offer("b")
    assert bench.run() == ["a", "b"]
    bench.outbox.full = False
    assert bench.run() == ["a", "b"]
    assert bench.outbox.rows[1].state == "delivered"


def test_a_receiver_that_is_away_too(bench: Bench) -> None:
    """It is retried with backoff, and after a permanent refusal only once its row exists."""
    bench.outbox.full = True
    bench.sender.answers = {"a": refused(RetryableError("503")), "b": refused(RejectedError("400"))}
    bench.offer("a")
    assert bench.run() == ["a"]
    assert bench.run() == ["a"]
    assert bench.run(60) == ["a", "a"]
    bench.offer("b")
    assert bench.run() == ["a", "a", "b"]
    assert bench.run(60) == ["a", "a", "b"]
    bench.outbox.full = False
    bench.write("b")
    assert bench.run() == ["a", "a", "b", "b"]


def test_what_waits_for_the_store(bench: Bench) -> None:
    """Resolutions, rows that are not due, and mails are not sent from memory."""
    _, known = waiting("later")
    mail = OutboxRequest("email", "2026-11-22", Action.REPORT)
    assert not bench.offer("a", action=Action.RESOLVE)
    assert not bench.uncommitted.offer([(OutboxRequest("pagerduty", "b", Action.TRIGGER, "", NOON + 9), known)])
    assert not bench.uncommitted.offer([(mail, known)])
    assert bench.run() == []
