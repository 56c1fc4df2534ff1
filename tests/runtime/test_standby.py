"""What a replica does under its lease: it stands by, takes over, leads while the lease is trusted, and steps down."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from bench.publish import body, publisher
from celery_monitor.adapters.broker import ReplaySource
from celery_monitor.core.model import Action, CounterName, Delivery, OutboxItem, Restored
from celery_monitor.core.replay import position_of
from celery_monitor.errors import LeaseLostError, StoreUnavailableError
from celery_monitor.ports import LeaseState
from celery_monitor.runtime.lease import HeldLease
from celery_monitor.runtime.standby import CHECK_INTERVAL, STORE_RETRY, Standby, Takeover
from celery_monitor.runtime.threads import Threads
from celery_monitor.settings import load
from tests.fakes import FakeSource, ManualClock
from tests.servers.waiting import wait_until


@dataclass
class LeaseStore:
    """The lease of a Store, driven by the test."""

    shared: bool = True
    lease_ttl: float = 4.0
    expires_in: float = 4.0
    error: Exception | None = None
    seen: str | None = None
    restored: Restored = field(default_factory=Restored)
    calls: list[str] = field(default_factory=list)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.error is not None:
            raise self.error

    def lease(self) -> LeaseState:
        self._call("lease")
        return LeaseState("pod-a", 3, self.expires_in)

    def position(self) -> str | None:
        self._call("position")
        return self.seen

    def lead(self, holder: str) -> Restored | None:
        self._call(f"lead {holder}")
        return None if self.expires_in > 0 else self.restored

    def renew(self) -> None:
        self._call("renew")

    def resign(self) -> None:
        self.calls.append("resign")


def standby(store: LeaseStore, clock: Any, replay: Any = None, *, alone: bool = False) -> Standby:
    """A standby on a source that keeps messages, unless ``replay`` is given."""
    source = replay or FakeSource()
    return Standby(
        store,  # type: ignore[arg-type]
        clock,
        "pod-b",
        source=source,
        replay=replay,
        end=pytest.fail,
        alone=alone,
    )


def page(number: int) -> OutboxItem:
    """A row, or with a negative number a page without a row."""
    return OutboxItem(number, "pagerduty", "key", Action.TRIGGER, "", 1, 0, 0.0, 0.0, "pending")


def test_a_single_process_asks_nobody() -> None:
    """With a store that no other process can use, it leads immediately."""
    store = LeaseStore(shared=False, expires_in=0.0)
    found = standby(store, ManualClock()).lead(threading.Event())
    assert store.calls == ["lead pod-b"]
    assert found is not None
    assert found.lease.may_consume()
    assert found.lease.may_send(page(1), idempotent=False)


def test_a_standby_waits_as_long_as_the_lease_runs() -> None:
    """It checks again when the lease may be free, but often enough to notice a leader that resigns."""
    store, clock = LeaseStore(), ManualClock()
    waiting = standby(store, clock)
    assert waiting._attempt() == CHECK_INTERVAL
    store.expires_in = 0.1
    assert waiting._attempt() == 0.1
    health = waiting.health()
    assert health.ok
    assert health.about == {"role": "standby, pod-a leads"}
    store.expires_in = 0.0
    assert isinstance(waiting._attempt(), Takeover)
    assert store.calls == ["lease", "lease", "lease", "lead pod-b"]


@pytest.mark.parametrize("expires_in", [0.0, -5.0])
def test_two_replicas_that_start_are_not_ready_before_one_leads(expires_in: float) -> None:
    """The one that finds the lease free leads as soon as the store is prepared, which may take a while."""
    store, clock, healthy = LeaseStore(expires_in=expires_in), ManualClock(), list[bool]()
    waiting = standby(store, clock)
    lead = store.lead

    def take(holder: str) -> Restored | None:
        healthy.append(waiting.health().ok)
        return lead(holder)

    store.lead = take  # type: ignore[method-assign]
    assert not waiting.health().ok
    assert isinstance(waiting._attempt(), Takeover)
    assert healthy == [False]


def test_what_a_standby_prepares() -> None:
    """Once, and only if another process leads: a leader would have to wait for it."""
    for store, times in ((LeaseStore(), 1), (LeaseStore(expires_in=0.0), 0), (LeaseStore(shared=False), 0)):
        prepared: list[str] = []
        waiting = standby(store, ManualClock(time=100.0))
        waiting._prepare = lambda prepared=prepared: prepared.append("once")  # type: ignore[misc]
        for _ in range(3):
            waiting._attempt()
        assert len(prepared) == times


def test_a_standby_without_its_store_is_not_ready() -> None:
    """It reports the problem, and does not take a lease that it could not renew."""
    store, clock = LeaseStore(error=StoreUnavailableError("The database is down")), ManualClock()
    waiting = standby(store, clock)
    assert waiting._attempt() == STORE_RETRY
    assert waiting.health().checks == {"store": "The database is down"}


def test_messages_are_left_to_others_when_the_lease_may_be_over() -> None:
    """Sending stops before messages are released; a late renewal restores both while nobody else leads."""
    store, clock = LeaseStore(), ManualClock()
    lease = HeldLease(store, clock, clock.monotonic())  # type: ignore[arg-type]
    clock.advance(3.5)
    assert (lease.may_send(page(1), idempotent=True), lease.may_consume()) == (False, True)
    clock.advance(1.0)
    assert not lease.may_consume()
    assert lease.renew()
    assert (lease.may_send(page(1), idempotent=False), lease.may_consume()) == (True, True)


def test_a_single_replica_is_not_ready_before_it_leads() -> None:
    """Nobody else counts: who waits for it to be ready would publish into nothing. It names whoever else leads.

    The default of store.replicas is 1, so this is what two replicas without it say: it says what to set, too.
    """
    store, clock = LeaseStore(), ManualClock()
    waiting = standby(store, clock, alone=True)
    assert not waiting.health().ok
    waiting._attempt()
    assert waiting.health().checks == {
        "store": "pod-a leads on this store: to run this process as a standby, set store.replicas to 2 on both; if "
        "they monitor different fleets, set a different fleet on each"
    }


def test_a_single_replica_does_not_stop_for_its_store() -> None:
    """It keeps its messages, shows the fleet and pages from memory, until another process takes over."""
    store, clock = LeaseStore(error=StoreUnavailableError("down")), ManualClock()
    lease = HeldLease(store, clock, clock.monotonic(), alone=True)  # type: ignore[arg-type]
    clock.advance(3600.0)
    assert not lease.renew()
    assert (lease.may_send(page(-1), idempotent=True), lease.may_consume(), lease.contested) == (True, True, False)
    store.error = LeaseLostError("pod-b leads")
    with pytest.raises(LeaseLostError):
        lease.renew()


def test_a_page_goes_out_while_the_store_is_away() -> None:
    """Only a page without a row, only if the receiver deduplicates by key, and only if the store does not answer."""
    store, clock = LeaseStore(), ManualClock()
    lease = HeldLease(store, clock, clock.monotonic())  # type: ignore[arg-type]
    clock.advance(3.5)
    assert not lease.may_send(page(-1), idempotent=True)
    store.error = StoreUnavailableError("down")
    assert not lease.renew()
    allowed = [
        lease.may_send(item, idempotent=idempotent)
        for item in (page(-1), page(1), None)
        for idempotent in (True, False)
    ]
    assert allowed == [True, False, False, False, False, False]
    store.error = LeaseLostError("pod-b leads")
    with pytest.raises(LeaseLostError):
        lease.renew()
    lease.end("pod-b leads")
    assert not lease.may_send(page(-1), idempotent=True)


def test_a_slow_renewal_is_followed_by_another_at_once() -> None:
    """An answer that took longer than the lease grants no time: the next one is sent immediately."""
    clock, waits, took = ManualClock(), list[float | None](), [9.0, 0.5]

    class Slow(LeaseStore):
        def renew(self) -> None:
            clock.advance(took.pop(0))

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return False

        def is_set(self) -> bool:
            return not took

    HeldLease(Slow(), clock, clock.monotonic()).run(Stop(), lambda: None)  # type: ignore[arg-type]
    assert waits == [0.0, pytest.approx(4.0 / 3 - 0.5)]


@pytest.mark.parametrize("restart", [True, False])
def test_a_refused_thread_ends_the_term_and_not_the_process(*, restart: bool) -> None:
    """A write that is refused because another process leads is not a thread failure."""
    lost: list[str] = []
    threads = Threads(threading.Event(), pytest.fail, on_lost=lost.append)

    def refused(stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        raise LeaseLostError("pod-b leads")

    threads.start("any", refused, limit=60.0, restart=restart)
    assert threads.stop.wait(60)
    assert threads.join("any", 60)
    assert (lost, threads.died, threads.failures) == (["pod-b leads"], None, {"any": 0} if restart else {})


# --- with a real Redis


def publish(url: str, numbers: range) -> None:
    """Publish one message per number, all with the same delivery tag: only their contents differ."""
    to = publisher(url)
    for number in numbers:
        to.publish(body([{"type": "custom", "hostname": f"{number}", "timestamp": 1.0}]))
    to.settle()
    to.close()


class Clock(ManualClock):
    """A clock that stands still."""


@pytest.fixture
def replay(redis_url: str) -> Iterator[ReplaySource]:
    """A source of a standby."""
    source = ReplaySource(load(None, {"broker.url": redis_url}, {}).broker, Clock())
    yield source
    source.abandon()


def numbers(source: ReplaySource, most: int) -> list[int]:
    """The numbers that the source delivers, in order, up to ``most``."""
    found: list[int] = []
    while len(found) < most:
        batch = source.poll(5.0)
        assert batch is not None
        found += [int(one.body.split(b'"hostname"')[1].split(b'"')[1]) for one in batch.deliveries]
    return found


def test_the_stream_goes_on_where_the_leader_has_committed(redis_url: str, replay: ReplaySource) -> None:
    """A real standby delivers the messages after the position, each once, although it had not read all of them."""
    leader = ReplaySource(load(None, {"broker.url": redis_url}, {}).broker, Clock())
    leader.connect()
    replay.subscribe()
    publish(redis_url, range(10))
    seen: list[Delivery] = []
    while len(seen) < 10:
        batch = leader.poll(5.0)
        assert batch is not None
        seen += batch.deliveries
    publish(redis_url, range(10, 15))
    # It has read nothing: what the server had sent before is read now, and the position is in it.
    found = replay.resume(position_of(seen[6]), None)
    assert found.gap == 0
    assert replay.acknowledges is False
    replay.connect()
    publish(redis_url, range(15, 20))
    assert numbers(replay, 13) == list(range(7, 20))
    leader.abandon()


def test_a_standby_takes_over_from_the_store(redis_url: str, replay: ReplaySource) -> None:
    """It listens until it has the lease; without a known position it waits a moment longer, and the rest is a gap."""
    clock = Clock()
    counters = {CounterName.ALIVE_AT.value: clock.time - 7.0}
    store = LeaseStore(expires_in=0.0, seen="unknown", restored=Restored(counters=counters))
    waiting, stopping, taken = standby(store, clock, replay), threading.Event(), list[Takeover | None]()
    thread = threading.Thread(target=lambda: taken.append(waiting.lead(stopping)))
    thread.start()
    wait_until(lambda: replay.subscribed and "position" in store.calls, 30)
    publish(redis_url, range(3))
    assert not waiting.health().ok
    assert "lead pod-b" not in store.calls
    clock.advance(3.0)
    thread.join(60)
    found = taken[0]
    assert found is not None
    assert found.source is replay
    assert found.gap == 7.0  # from when the leader was last alive to the subscription
    assert found.alive_at is None
    replay.connect()
    assert numbers(replay, 3) == [0, 1, 2]
