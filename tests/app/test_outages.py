"""Outbox, notifier and PagerDuty together: the effect of a receiver's outage on pages."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from msgspec import structs

from celery_monitor.adapters.channels.pagerduty.send import PagerDuty
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.core.model import Action, Changes, Incident, OutboxRequest
from celery_monitor.ports import Clock
from celery_monitor.runtime.notifier import Notifier
from celery_monitor.settings import Secret, SecretSource
from tests.adapters.channels.pagerduty.incidents import AT, an_incident
from tests.fakes import ManualClock
from tests.servers.pagerduty import Behaviour, PagerDutyServer
from tests.servers.waiting import wait_until

KEYS = {"": "A" * 32, "billing": "B" * 32}
SOURCES = {route: SecretSource(Secret(key)) for route, key in KEYS.items()}


class Bench:
    """A store with an outbox, its notifier, and a PagerDuty that the test controls."""

    def __init__(
        self,
        directory: Path,
        server: PagerDutyServer,
        clock: Clock,
        timeout: float = 60.0,
        keys: Mapping[str, SecretSource] = SOURCES,
    ) -> None:
        """A short ``timeout`` is for a PagerDuty that hangs: a page whose answer is late is sent again."""
        self.clock = clock
        self.server = server
        self.store = open_store(f"sqlite:///{directory}/monitor.db", retention=86_400.0, fingerprint_window=10)
        self.sequence = self.store.start().sequence
        sender = PagerDuty(
            url=server.url,
            keys=keys,
            incident=self.store.outbox.incident,
            clock=clock,
            timeout=timeout,
        )
        self.notifier = Notifier(self.store.outbox, sender, clock, rate_limit=100, idempotent=True)

    def commit(self, *incidents: Incident, action: Action = Action.TRIGGER) -> None:
        """A flush of the monitor."""
        self.sequence += 1
        now = self.clock.now()
        rows = [OutboxRequest("pagerduty", incident.key, action, incident.route, now) for incident in incidents]
        self.store.commit(Changes(now, self.sequence, incidents=incidents, outbox=rows))

    def states(self) -> set[str]:
        """The states of the undelivered rows."""
        return {item.state for item in self.store.outbox.items(dead=False, limit=1000).rows}


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    """A simulated PagerDuty that knows the two keys."""
    with PagerDutyServer(keys=set(KEYS.values())) as running:
        yield running


def incidents_of(route: str, count: int) -> list[Incident]:
    """Incidents of this many tasks on one route."""
    return [an_incident(key=f"{route or 'default'}-{number:02}", route=route) for number in range(count)]


def test_every_page_arrives_once(tmp_path: Path, server: PagerDutyServer) -> None:
    """After 10 minutes of 503, 5 of 429, drops, drips, redirects and garbage, every page has arrived once."""
    clock = ManualClock(AT)
    bench = Bench(tmp_path, server, clock, timeout=0.3)
    phases = [
        (600, [Behaviour.status(503)]),
        (300, [Behaviour.status(429), Behaviour.status(429, Retry_After="20")]),
        (1200, [Behaviour.drop(take=False), Behaviour.drop(take=True), Behaviour.drip(every=0.05)]),
        (1200, [Behaviour.redirect(302), Behaviour.redirect(307), Behaviour.hang(), Behaviour.garbage()]),
        (1800, [Behaviour()]),
    ]
    waiting = list(zip(incidents_of("", 12), incidents_of("billing", 12), strict=True))
    for seconds, behaviours in phases:
        for second in range(seconds):
            if waiting and second % 60 == 0:
                bench.commit(*waiting.pop(0))
            server.behave(behaviours[len(server.received) % len(behaviours)])
            bench.notifier.run_once()
            clock.advance(1.0)
    assert server.violations == []
    assert set(server.opened().values()) == {1}
    for route, key in KEYS.items():
        taken = {request.key for request in server.taken() if request.event["routing_key"] == key}
        assert taken == {incident.key for incident in incidents_of(route, 12)}
    assert bench.states() == set()
    codes = {request.code for request in server.received}
    assert codes >= {0, 202, 302, 307, 429, 503}
    bench.store.stop()


def test_counts_grow_while_a_page_waits(tmp_path: Path, server: PagerDutyServer) -> None:
    """Failures that join an incident while PagerDuty is down cause no further requests: the page includes them."""
    clock = ManualClock(AT)
    bench = Bench(tmp_path, server, clock)
    server.behave(Behaviour.status(503))
    incident = an_incident()
    for count in range(1, 50):
        bench.commit(structs.replace(incident, count=count))
        bench.notifier.run_once()
        clock.advance(10.0)
    server.behave()
    clock.advance(300.0)
    while bench.notifier.run_once():
        pass
    assert [request.details["failures"] for request in server.taken()] == [49]
    bench.store.stop()


def test_a_resolve_never_overtakes_its_trigger(tmp_path: Path, server: PagerDutyServer) -> None:
    """While a trigger waits for a retry, its resolve also waits: no incident stays open by mistake."""
    clock = ManualClock(AT)
    bench = Bench(tmp_path, server, clock)
    server.script(*[Behaviour.status(503)] * 3)
    incident = an_incident()
    bench.commit(incident)
    bench.commit(incident, action=Action.RESOLVE)
    for _ in range(60):
        while bench.notifier.run_once():
            pass
        clock.advance(1.0)
    assert [request.action for request in server.taken()] == ["trigger", "resolve"]
    (alert,) = server.alerts.values()
    assert (alert.opened, alert.open) == (1, False)
    bench.store.stop()


def test_the_rate_limit_is_never_hit(tmp_path: Path, server: PagerDutyServer) -> None:
    """Hundreds of incidents are sent at the configured rate; PagerDuty never has to throttle."""
    clock = ManualClock(AT)
    bench = Bench(tmp_path, server, clock)
    server._clock = clock.monotonic
    bench.commit(*incidents_of("", 250))
    minutes = []
    for half in range(400):
        while bench.notifier.run_once():
            pass
        if half % 120 == 119:
            minutes.append(len(server.received))
        clock.advance(0.5)
    assert server.throttled == 0
    assert [95 <= minutes[0] <= 100, 190 <= minutes[1] <= 200, minutes[2]] == [True, True, 250]
    assert set(server.opened().values()) == {1}
    bench.store.stop()


def test_a_dead_page_can_be_revived(tmp_path: Path, server: PagerDutyServer) -> None:
    """A rejected page is kept as dead, and is sent when somebody retries it."""
    clock = ManualClock(AT)
    bench = Bench(tmp_path, server, clock)
    server.script(Behaviour.status(400, b'{"errors":["summary"]}'))
    bench.commit(an_incident())
    bench.notifier.run_once()
    assert bench.states() == {"dead"}
    assert bench.store.outbox.revive(None, clock.now()) == 1
    bench.notifier.run_once()
    assert server.opened() == {an_incident().key: 1}
    bench.store.stop()


def test_no_page_is_lost_to_a_wrong_routing_key(tmp_path: Path, server: PagerDutyServer) -> None:
    """It waits with the reason, and is sent immediately when the key's file is correct."""
    file = tmp_path / "key"
    file.write_text("X" * 32)
    clock = ManualClock(AT)
    bench = Bench(tmp_path, server, clock, keys={"": SecretSource(None, file)})
    bench.commit(an_incident())
    for _ in range(360):
        bench.notifier.run_once()
        clock.advance(10.0)
    (row,) = bench.store.outbox.items(dead=False, limit=10).rows
    assert (row.state, "pagerduty.routing_key" in (row.error or "")) == ("pending", True)
    assert 5 < len(server.received) < 20
    file.write_text(KEYS[""])
    bench.notifier.run_once()
    assert server.opened() == {an_incident().key: 1}
    bench.store.stop()


def test_a_woken_courier_sends_at_once_and_stops_at_once(
    tmp_path: Path, server: PagerDutyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its thread: after a commit and a wake, a page is sent within a second; a wake after stop ends it."""
    for name in ("POLL", "IDLE_POLL"):
        monkeypatch.setattr(f"celery_monitor.runtime.notifier.{name}", 600.0)  # by itself it would not look again
    bench = Bench(tmp_path, server, SystemClock())
    stop = threading.Event()
    turns: list[int] = []
    thread = threading.Thread(target=bench.notifier.run, args=(stop, lambda: turns.append(1)))
    thread.start()
    wait_until(lambda: turns)
    committed = []
    for incident in incidents_of("", 5):
        bench.commit(incident)
        committed.append(bench.clock.monotonic())
        bench.notifier.wake()
        wait_until(lambda: len(server.taken()) == len(committed))
    delays = [request.at - at for request, at in zip(server.taken(), committed, strict=True)]
    assert sorted(delays)[2] < 0.25
    stop.set()
    bench.notifier.wake()
    thread.join(60)
    assert not thread.is_alive()
    bench.store.stop()


def test_a_crash_between_sending_and_recording_opens_nothing_twice(tmp_path: Path, server: PagerDutyServer) -> None:
    """A daemon that dies after the POST sends it again: the same incident."""
    clock = ManualClock(AT)
    bench = Bench(tmp_path, server, clock)
    bench.commit(an_incident())

    class Killed(BaseException):
        """Simulates SIGKILL."""

    outbox: SqlStore = bench.store

    def die(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox.outbox, "delivered", die)
        with pytest.raises(Killed):
            bench.notifier.run_once()
    bench.store.stop()
    again = Bench(tmp_path, server, clock)
    again.notifier.run_once()
    assert len(server.taken()) == 2
    assert server.opened() == {an_incident().key: 1}
    assert again.states() == set()
    again.store.stop()
