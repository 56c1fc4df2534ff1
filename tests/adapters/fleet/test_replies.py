"""What workers' replies may hold: any JSON. Nothing that reads it, counts it or shows it may break."""

import json
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection

from celery_monitor.adapters.broker import BrokerFleet
from celery_monitor.adapters.prometheus.exposition import Exposition, Format
from celery_monitor.adapters.prometheus.figures import RuntimeFigures
from celery_monitor.core.model import LARGEST_INT, LATEST_TIMESTAMP, Delivery, Histogram, QueueStats, Restored
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.errors import SourceLostError
from celery_monitor.runtime.committer import BOUNDS
from celery_monitor.settings.broker import BrokerSettings
from celery_monitor.settings.metrics import MetricsSettings
from tests.fakes import ManualClock

NOW = ManualClock().now()
_leaf: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True),
    st.text(max_size=8),
    st.sampled_from([10**400, -(10**400), 2**63, LARGEST_INT, LARGEST_INT + 1, 1e308, NOW, NOW + 0.5]),
    st.sampled_from(["\ud800", "x\udfff y", "\x00", "q" * 300, "u", "a.b", "a.b [rate_limit=1/m]", " [", ""]),
    st.just(json.loads("[" * 700 + "]" * 700)),
)
_any = st.recursive(_leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner), max_leaves=6)


def _mostly(*, of: dict[str, Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=of) | _any


_exchange = _mostly(of={"name": _any, "type": _any})
_task = _mostly(
    of={
        "id": st.just("u") | _any,
        "name": st.just("a.b") | _any,
        "time_start": _leaf,
        "delivery_info": _mostly(of={"exchange": _any, "routing_key": _any}),
    }
)
_replies: dict[str, st.SearchStrategy[Any]] = {
    "active": st.lists(_task, max_size=3) | _any,
    "reserved": st.lists(_task, max_size=3) | _any,
    "scheduled": st.lists(_mostly(of={"request": _task}), max_size=3) | _any,
    "active_queues": st.lists(_mostly(of={"name": _any, "exchange": _exchange, "routing_key": _any})) | _any,
    "stats": _mostly(of={"pool": _mostly(of={"max-concurrency": _leaf, "processes": _any})}),
    "registered": st.lists(_any) | _any,
}


class _Control:
    """In place of the connection: each worker's reply goes the way of the bytes."""

    def __init__(self, fleet: BrokerFleet, replies: dict[str, Any]) -> None:
        from celery_monitor.adapters.broker.control import _Line

        self._line = _Line.__new__(_Line)
        self._replies = replies
        fleet._control = self  # type: ignore[assignment]
        fleet._sizes = lambda names: dict.fromkeys(names, (1, 1))  # type: ignore[method-assign]

    def ask(self, commands: tuple[str, ...], timeout: float, hostnames: object = None) -> dict[str, dict[str, Any]]:
        line = self._line
        line._replies = {command: {} for command in commands}
        line._tickets = {command: command for command in commands}
        for command in commands:
            body = json.dumps({"celery@box": self._replies[command]}).encode()
            message = {"headers": {"ticket": command}, "content_type": "application/json", "body": body}
            line._on_message(type("Message", (), message)())
        return line._replies


def _rendered(monitor: Monitor, queues: list[QueueStats]) -> bytes:
    commits = Histogram(BOUNDS, (0,) * (len(BOUNDS) + 1), 0.0)
    figures = RuntimeFigures(
        broker_connected=True,
        unacked_messages=0,
        commits=commits,
        commit_failures=0,
        outbox={},
        notifications={},
        report_last_success=None,
    )
    shown = Exposition(
        MetricsSettings(), ManualClock(), snapshot=monitor.snapshot, queues=lambda: queues, runtime=lambda: figures
    )
    return b"".join(shown.render(Format(openmetrics=False, gzip=False)).body)


def _use(replies: dict[str, Any]) -> tuple[BrokerFleet, bytes]:
    """Ask, take in what was answered, let the task end, and show it all."""
    fleet = BrokerFleet(BrokerSettings(), ["named"])
    _Control(fleet, replies)
    monitor = Monitor(Limits(), Restored(), NOW)
    monitor.connected(acknowledges=True)
    monitor.learn_tasks(fleet.tasks(1))
    queues = list(fleet.queues(1, 0.0))
    monitor.learn_queues(fleet.worker_queues())
    monitor.learn_names(fleet.registered(["celery@box"], 1))
    event = {"type": "task-succeeded", "uuid": "u", "timestamp": NOW + 1, "hostname": "celery@box"}
    monitor.receive([Delivery(json.dumps(event).encode())], NOW + 1)
    monitor.tick(NOW + 2)
    assert monitor.take(NOW + 2) is not None
    return fleet, _rendered(monitor, queues)


@given(st.fixed_dictionaries(_replies))
def test_any_reply(replies: dict[str, Any]) -> None:
    """Whatever the workers answer, an event of theirs is counted after it and the metrics can be shown."""
    _, shown = _use(replies)
    assert b"task-succeeded" in shown or b"celery_task_succeeded" in shown


_EMPTY: dict[str, Any] = dict.fromkeys(_replies)


def _short(value: object) -> str:
    return repr(value)[:20]


@pytest.mark.parametrize("start", [10**400, 2**63, 1e308, LATEST_TIMESTAMP + 1, -1, True, 5, NOW], ids=_short)
def test_start_of_a_task(start: float) -> None:
    """Only a time that a clock can show is when a task began."""
    fleet, _ = _use(_EMPTY | {"active": [{"id": "u", "name": "a.b", "time_start": start}]})
    [task] = fleet.tasks(1)
    assert task.started_at == (start if start == NOW else None)


@pytest.mark.parametrize(
    ("limit", "processes"), [(10**400, 0), (LARGEST_INT + 1, 0), (LARGEST_INT, LARGEST_INT), (4, 4)], ids=_short
)
def test_processes_of_a_worker(limit: int, processes: int) -> None:
    """A number of processes that nothing can count is none."""
    fleet, shown = _use(_EMPTY | {"active_queues": [{"name": "q"}], "stats": {"pool": {"max-concurrency": limit}}})
    [_, queue] = fleet.queues(1, 0.0)
    assert (queue.name, queue.processes) == ("q", processes)
    assert b'queue_name="q"' in shown


# --- headers and envelopes that the libraries cannot read


def _publish_raw(url: str, routing_key: str, headers: bytes) -> None:
    """A reply with these bytes as its table of headers."""

    def frame(kind: int, payload: bytes) -> bytes:
        return pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"

    def short(text: str) -> bytes:
        return bytes([len(text)]) + text.encode()

    method = pack(">HHH", 60, 40, 0) + short("reply.celery.pidbox") + short(routing_key) + b"\x00"
    header = pack(">HHQH", 60, 0, 2, 0x2000) + pack(">I", len(headers)) + headers
    with Connection(url) as connection:
        connection.default_channel.connection.sock.sendall(frame(1, method) + frame(2, header) + frame(3, b"{}"))
        connection.default_channel.queue_declare("answers-after-the-publish", exclusive=True)


def _fails_once(fleet: BrokerFleet) -> None:
    with pytest.raises(SourceLostError):
        fleet.tasks(60)
    assert fleet.tasks(0.05) == []


def test_a_header_that_is_no_time(rabbitmq_url: str) -> None:
    """A timestamp that no calendar holds costs the connection, and the next question has a new one."""
    fleet = BrokerFleet(BrokerSettings(url=rabbitmq_url))
    fleet.tasks(0.01)
    line = fleet._control._line
    assert line is not None
    _publish_raw(rabbitmq_url, line._address, b"\x06ticketT" + pack(">Q", 2**64 - 1))
    _fails_once(fleet)
    fleet.close()


@pytest.mark.parametrize("value", [{"__type__": "decimal", "__value__": "x"}, 10**400, [], None, {"__type__": []}])
def test_an_envelope_that_is_none(redis_url: str, value: object) -> None:
    """What is no envelope of kombu's costs the connection, and the next question has a new one."""
    fleet = BrokerFleet(BrokerSettings(url=redis_url))
    fleet.tasks(0.01)
    line = fleet._control._line
    assert line is not None
    with Connection(redis_url) as connection:
        name = f"{line._address}.reply.celery.pidbox"
        connection.default_channel.client.lpush(name, json.dumps({"body": "e30=", "properties": value}))
    _fails_once(fleet)
    fleet.close()
