"""The simulated PagerDuty refuses what PagerDuty refuses: a test with it can fail."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.servers.pagerduty import Behaviour, PagerDutyServer
from tests.servers.pagerduty_contract import violations
from tests.servers.unencrypted import NO_TLS
from tests.servers.waiting import wait_until

KEY = "R" * 32
PAYLOAD = {"summary": "it failed", "source": "shop", "severity": "error"}


def an_event(**changes: Any) -> dict[str, Any]:
    """A valid trigger with changes; None removes a field."""
    event = {"routing_key": KEY, "event_action": "trigger", "dedup_key": "k", "payload": PAYLOAD} | changes
    return {name: value for name, value in event.items() if value is not None}


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    """A server that knows every routing key."""
    with PagerDutyServer() as running:
        yield running


def post(server: PagerDutyServer, event: dict[str, Any]) -> httpx.Response:
    """The answer that a plain client gets."""
    return httpx.post(f"{server.url}/v2/enqueue", json=event, timeout=60, trust_env=False, verify=NO_TLS)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "payload": PAYLOAD
            | {"summary": "ü" * 1024, "timestamp": "2026-11-23T14:00:00.5+05:30", "custom_details": {}}
        },
        {"dedup_key": "k" * 255},
        {"dedup_key": None},
        {"event_action": "resolve", "payload": None},
        {"links": [{"href": "https://a.example/b", "text": "b"}], "client": "c", "client_url": "https://a.example"},
    ],
)
def test_valid_events(changes: dict[str, Any]) -> None:
    """Documented events are accepted, up to the limits."""
    assert violations(json.dumps(an_event(**changes)).encode())[1] == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"routing_key": None}, "routing_key is missing"),
        ({"routing_key": "R" * 31}, "routing_key is not 32 characters"),
        ({"event_action": "triger"}, "event_action is not one of"),
        ({"event_action": "resolve", "dedup_key": None}, "dedup_key is missing"),
        ({"dedup_key": "k" * 256}, "dedup_key is 256 characters"),
        ({"dedup_key": 7}, "dedup_key is not a string"),
        ({"payload": None}, "payload is missing"),
        ({"payload": PAYLOAD | {"summary": ""}}, "summary is empty"),
        ({"payload": PAYLOAD | {"summary": "s" * 1025}}, "summary is 1025 characters"),
        ({"payload": PAYLOAD | {"severity": "fatal"}}, "severity is not one of"),
        ({"payload": PAYLOAD | {"timestamp": "2026-11-23 14:00"}}, "timestamp is not RFC 3339"),
        ({"payload": PAYLOAD | {"custom_details": "text"}}, "custom_details is not an object"),
        ({"payload": PAYLOAD | {"details": {}}}, "unknown field payload.details"),
        ({"payload": PAYLOAD | {"class": "a\ud800"}}, "lone surrogate"),
        ({"links": [{"url": "https://a.example"}]}, "link is not {href, text}"),
        ({"links": [{"href": "tasks/x"}]}, "href is not a URL"),
        ({"payload": PAYLOAD | {"custom_details": {"x": float("nan")}}}, "NaN is not JSON"),
        ({"payload": PAYLOAD | {"custom_details": {"x": "y" * 512_000}}}, "more than 512000"),
        ({"severity": "error"}, "unknown field severity"),
    ],
)
def test_broken_rules_are_named(changes: dict[str, Any], expected: str) -> None:
    """Each documented rule is checked."""
    assert expected in "; ".join(violations(json.dumps(an_event(**changes)).encode())[1])


def test_answers_and_alerts(server: PagerDutyServer) -> None:
    """Triggers open or update, a resolve closes, a later trigger reopens; an unknown resolve has no effect."""
    for action in ("resolve", "trigger", "trigger", "resolve", "trigger"):
        answer = post(server, an_event(event_action=action))
        assert (answer.status_code, answer.json()["dedup_key"]) == (202, "k")
    (alert,) = server.alerts.values()
    assert (alert.open, alert.opened, alert.updates, alert.resolves) == (True, 2, 1, 1)
    server.resolve(KEY, "k")
    post(server, an_event())
    assert server.opened(KEY) == {"k": 3}
    assert server.opened("another") == {}


def test_an_invalid_event_is_refused(server: PagerDutyServer) -> None:
    """A 400 names the problem, and nothing is opened."""
    answer = post(server, an_event(payload=None))
    assert (answer.status_code, answer.json()["status"]) == (400, "invalid event")
    assert answer.json()["errors"] == server.violations == ["payload is missing or not an object"]
    assert server.opened() == {}


def test_an_unknown_key_is_refused() -> None:
    """With a list of routing keys, all others get a 400."""
    with PagerDutyServer(keys={KEY}) as server:
        assert post(server, an_event()).status_code == 202
        assert post(server, an_event(routing_key="S" * 32)).status_code == 400


def test_the_sliding_minute() -> None:
    """The 121st event of a key within 60 s gets a 429 and does not count; another key is not affected."""
    now = [0.0]
    with PagerDutyServer(clock=lambda: now[0]) as server:
        for second in range(120):
            now[0] = second / 4
            assert post(server, an_event(dedup_key=str(second))).status_code == 202
        now[0] = 59.9
        assert post(server, an_event(dedup_key="late")).status_code == 429
        assert post(server, an_event(routing_key="S" * 32)).status_code == 202
        now[0] = 60.1
        assert post(server, an_event(dedup_key="late")).status_code == 202
        assert server.throttled == 1
        assert server.opened(KEY)["late"] == 1


def test_scripted_answers(server: PagerDutyServer) -> None:
    """Scripted behaviour is for one request each, then the permanent one, then the API's."""
    server.script(Behaviour.status(503, Retry_After="3"), Behaviour.garbage())
    server.behave(Behaviour.redirect(307))
    answers = [post(server, an_event()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 202, 307]
    assert answers[0].headers["Retry-After"] == "3"
    server.behave()
    assert post(server, an_event()).status_code == 202
    assert [request.taken for request in server.received] == [False, True, False, True]


@pytest.mark.parametrize("take", [True, False])
def test_dropped_connections(server: PagerDutyServer, *, take: bool) -> None:
    """The client sees a dropped connection, and the event counts only if it was accepted."""
    server.script(Behaviour.drop(take=take))
    with pytest.raises(httpx.TransportError):
        post(server, an_event())
    assert server.opened() == ({"k": 1} if take else {})


@pytest.mark.parametrize("behaviour", [Behaviour.hang(), Behaviour.drip(every=0.01), Behaviour.drip_body(503)])
def test_endless_answers(server: PagerDutyServer, behaviour: Behaviour) -> None:
    """A server that hangs or drips answers until it is stopped: the client gets no whole response."""
    server.script(behaviour)
    ended: list[Exception] = []

    def client() -> None:
        try:
            httpx.post(f"{server.url}/v2/enqueue", json=an_event(), timeout=60, trust_env=False, verify=NO_TLS)
        except httpx.TransportError as exc:
            ended.append(exc)

    waiting = threading.Thread(target=client)
    waiting.start()
    wait_until(lambda: server.received)
    waiting.join(0.3)
    assert waiting.is_alive()
    server.stop()
    waiting.join(60)
    assert len(ended) == 1


def test_restarts_on_the_same_port(server: PagerDutyServer) -> None:
    """After a restart it has the same port and alerts."""
    url = server.url
    post(server, an_event())
    server.stop()
    server.start()
    assert server.url == url
    post(server, an_event())
    assert server.opened() == {"k": 1}
