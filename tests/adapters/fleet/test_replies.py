"""Workers' replies may contain any JSON: reading, counting and showing it never fails."""

import bz2
import json
import threading
import tracemalloc
from base64 import b64encode
from collections import Counter
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection

from celery_monitor.adapters.broker import BrokerFleet
from celery_monitor.adapters.broker.control import Take
from celery_monitor.adapters.broker.fleet import _is_solo
from celery_monitor.adapters.broker.queue_registry import Size
from celery_monitor.adapters.broker.reply import MAX_BYTES, Reply, UnreadableReason, read, unwrap
from celery_monitor.adapters.prometheus.exposition import Exposition, Format
from celery_monitor.adapters.prometheus.runtime_stats import RuntimeStats
from celery_monitor.core.model import LATEST_TIMESTAMP, MAX_INT, Delivery, Histogram, QueueStats, Restored
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.runtime.committer import BOUNDS
from celery_monitor.settings.broker import BrokerSettings
from celery_monitor.settings.metrics import MetricsSettings
from tests.conftest import Start
from tests.fakes import ManualClock
from tests.servers import CeleryWorker, wait_until

NOW = ManualClock().now()
_leaf: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True),
    st.text(max_size=8),
    st.sampled_from([10**400, -(10**400), 2**63, MAX_INT, MAX_INT + 1, 1e308, NOW, NOW + 0.5]),
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
    """A control without a connection: each worker's reply is passed as bytes."""

    def __init__(self, fleet: BrokerFleet, replies: dict[str, Any]) -> None:
        self.discarded: Counter[str] = Counter()
        self._replies = replies
        fleet._control = self  # type: ignore[assignment]
        registry = fleet._registry

        def sizes(now: float) -> dict[str, Size | None]:
            return dict.fromkeys([*registry.names(), *registry.unconfirmed(now)], (1, 1))

        fleet._sizes = sizes  # type: ignore[method-assign]

    def ask(
        self,
        commands: tuple[str, ...],
        timeout: float,
        take: Take,
        hostnames: object = None,
        *,
        arguments: object = None,
    ) -> None:
        for command in commands:
            body = json.dumps({"celery@box": self._replies[command]}).encode()
            found = read(Reply(command, None, "application/json", body))
            if not isinstance(found, UnreadableReason):
                take(command, *found)


def _rendered(monitor: Monitor, queues: list[QueueStats]) -> bytes:
    commits = Histogram(BOUNDS, (0,) * (len(BOUNDS) + 1), 0.0)
    stats = RuntimeStats(
        broker_connected=True,
        unacked_messages=0,
        commits=commits,
        commit_failures=0,
        outbox={},
        notifications={},
        report_last_success=None,
    )
    shown = Exposition(
        MetricsSettings(), ManualClock(), snapshot=monitor.snapshot, queues=lambda: queues, runtime=lambda: stats
    )
    return b"".join(shown.render(Format(openmetrics=False, gzip=False)).body)


def _use(replies: dict[str, Any]) -> tuple[BrokerFleet, bytes]:
    """Query, apply the answers, end the task, and show everything."""
    fleet = BrokerFleet(BrokerSettings(), ["named"])
    _Control(fleet, replies)
    monitor = Monitor(Limits(), Restored(), NOW)
    monitor.connected(acknowledges=True)
    monitor.learn_tasks(fleet.tasks(1))
    queues = list(fleet.queues(1, 0.0))
    monitor.learn_queues(fleet.worker_queues())
    monitor.learn_names(fleet.registered(["celery@box"], 1), fleet.unreported)
    event = {"type": "task-succeeded", "uuid": "u", "timestamp": NOW + 1, "hostname": "celery@box"}
    monitor.receive([Delivery(json.dumps(event).encode())], NOW + 1)
    monitor.tick(NOW + 2)
    assert monitor.take(NOW + 2) is not None
    return fleet, _rendered(monitor, queues)


@given(st.fixed_dictionaries(_replies))
def test_any_reply(replies: dict[str, Any]) -> None:
    """After any reply, a worker's event is counted and the metrics can be shown."""
    _, shown = _use(replies)
    assert b"task-succeeded" in shown or b"celery_task_succeeded" in shown


_EMPTY: dict[str, Any] = dict.fromkeys(_replies)


def _short(value: object) -> str:
    return repr(value)[:20]


@pytest.mark.parametrize("start", [10**400, 2**63, 1e308, LATEST_TIMESTAMP + 1, -1, True, 5, NOW], ids=_short)
def test_start_of_a_task(start: float) -> None:
    """Only a valid time is accepted as a task's start."""
    fleet, _ = _use(_EMPTY | {"active": [{"id": "u", "name": "a.b", "time_start": start}]})
    [task] = fleet.tasks(1)
    assert task.started_at == (start if start == NOW else None)


@pytest.mark.parametrize(
    ("limit", "processes"), [(10**400, 0), (MAX_INT + 1, 0), (MAX_INT, MAX_INT), (4, 4)], ids=_short
)
def test_processes_of_a_worker(limit: int, processes: int) -> None:
    """An invalid number of processes is ignored."""
    fleet, shown = _use(_EMPTY | {"active_queues": [{"name": "q"}], "stats": {"pool": {"max-concurrency": limit}}})
    [_, queue] = fleet.queues(1, 0.0)
    assert (queue.name, queue.processes) == ("q", processes)
    assert b'queue_name="q"' in shown


# --- replies that cannot be read

_BOMB = bz2.compress(bytes(1 << 20)) * 1024  # one stream after the other: a gigabyte
_JSON = "application/json"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("t", "zlib", _JSON, b"no zlib"), "compressed"),
        (Reply("t", "application/x-bz2", _JSON, _BOMB), "compressed"),
        (Reply("t", {"x": 1}, _JSON, b'{"a@b": 1}'), "compressed"),
        (Reply("t", None, "application/x-python-serialize", b"\x80\x04."), "content_type"),
        (Reply("t", None, None, b'{"a@b": 1}'), "content_type"),
        (Reply("t", None, ["x"], b'{"a@b": 1}'), "content_type"),
        (Reply("t", None, _JSON, b""), "malformed"),
        (Reply("t", None, _JSON, b"\xff\xfe"), "malformed"),
        (Reply("t", None, _JSON, b"[" * 150_000), "malformed"),
        (Reply("t", None, _JSON, b'{"a":' * 150_000), "malformed"),
        (Reply("t", None, _JSON, b"[]"), "malformed"),
        (Reply("t", None, _JSON, b"{}"), "malformed"),
        (Reply("t", None, _JSON, b'{"a@b": 1, "c@d": 2}'), "malformed"),
        (Reply("t", None, _JSON, b'{"": 1}'), "malformed"),
        (Reply("t", None, _JSON, b'{"%s": 1}' % (b"h" * 300)), "malformed"),
        (Reply("t", None, _JSON, b'{"a@b": 1e999}'), "malformed"),
        (Reply("t", None, _JSON, b'{"a@b": [' + b"{}," * 1_000_000 + b"0]}"), "too_large"),
        (Reply("t", None, _JSON, b'{"a@b": "%s"}' % (b"x" * MAX_BYTES)), "too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.body[:12]),
)
def test_a_reply_that_is_not_read(reply: Reply, reason: str) -> None:
    """It is discarded with its reason, and costs no more than its size."""
    tracemalloc.start()
    found = read(reply)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == reason
    assert peak < 1 << 20


_GOOD = {"body": "e30=", "headers": {"ticket": "t"}, "properties": {"body_encoding": "base64"}, "content-type": _JSON}


@pytest.mark.parametrize(
    ("envelope", "expected"),
    [
        (_GOOD, Reply("t", None, _JSON, b"{}")),
        (_GOOD | {"properties": {"body_encoding": "BASE64", "delivery_tag": [], "delivery_info": 5}}, b"{}"),
        (_GOOD | {"properties": {"body_encoding": None}}, b"e30="),
        (_GOOD | {"properties": {"body_encoding": "utf-8"}}, b"e30="),
        (_GOOD | {"properties": {"body_encoding": "rot13"}}, "malformed"),
        (_GOOD | {"properties": {"__type__": "decimal", "__value__": "x"}}, b"e30="),
        (_GOOD | {"properties": None}, "malformed"),
        (_GOOD | {"properties": [1]}, "malformed"),
        (_GOOD | {"headers": []}, "malformed"),
        (_GOOD | {"headers": "x"}, "malformed"),
        (_GOOD | {"headers": {"ticket": 5}}, "malformed"),
        (_GOOD | {"headers": {"compression": "bzip2"}}, Reply(None, "bzip2", _JSON, b"{}")),
        (_GOOD | {"body": 5}, "malformed"),
        (_GOOD | {"body": "x"}, "malformed"),
        ([], "malformed"),
        (None, "malformed"),
        ("[" * 50_000, "malformed"),
        ({}, "malformed"),
    ],
    ids=str,
)
def test_envelopes(envelope: object, expected: Reply | bytes | str) -> None:
    """Only the used parts of an envelope are read, and an invalid one is reported."""
    found = unwrap(json.dumps(envelope).encode())
    assert (found.body if isinstance(found, Reply) and isinstance(expected, bytes) else found) == expected
    assert unwrap(b"[" * 100_000) == "malformed"
    assert unwrap(b"\xff") == "malformed"
    assert unwrap(b" " * (3 * MAX_BYTES)) == "too_large"


def _publish_raw(url: str, routing_key: str, headers: bytes) -> None:
    """A reply with these bytes as its header table."""

    def frame(kind: int, payload: bytes) -> bytes:
        return pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"

    def short(text: str) -> bytes:
        return bytes([len(text)]) + text.encode()

    method = pack(">HHH", 60, 40, 0) + short("reply.celery.pidbox") + short(routing_key) + b"\x00"
    header = pack(">HHQH", 60, 0, 2, 0x2000) + pack(">I", len(headers)) + headers
    with Connection(url) as connection:
        connection.default_channel.connection.sock.sendall(frame(1, method) + frame(2, header) + frame(3, b"{}"))
        connection.default_channel.queue_declare("answers-after-the-publish", exclusive=True)


def _raw_headers(url: str, address: str) -> None:
    """A timestamp outside of any calendar, as the value of a header."""
    _publish_raw(url, address, b"\x06ticketT" + pack(">Q", 2**64 - 1))


def _publish(url: str, address: str, body: bytes, **options: Any) -> None:
    with Connection(url) as connection:
        options = {"content_type": _JSON, "content_encoding": "utf-8"} | options
        connection.Producer().publish(body, exchange="reply.celery.pidbox", routing_key=address, **options)


def _push(url: str, address: str, *data: bytes | str) -> None:
    with Connection(url) as connection:
        connection.default_channel.client.lpush(address, *data)


def _garbage(url: str, address: str) -> None:
    """Every kind of message that can arrive in a mailbox."""
    bomb = {"compression": "bzip2", "ticket": "t"}
    if url.startswith("amqp"):
        _publish(url, address, b"no zlib", headers={"compression": "zlib"})
        _publish(url, address, _BOMB, headers=bomb)
        _publish(url, address, b"x" * (10 << 20))
        _publish(url, address, b"", headers={"ticket": ["x"], "a": {"b": [None]}}, content_type="")
        _raw_headers(url, address)
        return
    envelope = _GOOD | {"headers": bomb, "body": b64encode(_BOMB).decode()}
    broken = _GOOD | {"headers": {"compression": "zlib"}, "body": "eA=="}
    _push(url, address, json.dumps(envelope), json.dumps(broken), "x" * (10 << 20), "", "", "[]", b"\xff\xfe")
    _push(url, address, *("{}" for _ in range(500)))


def test_garbage_costs_nothing(broker_url: str, start: Start, tmp_path: Path) -> None:
    """Whatever arrives in the mailbox, the connection stays open, and valid answers are used."""
    start(CeleryWorker(tmp_path / "worker", broker_url))
    fleet = BrokerFleet(BrokerSettings(url=broker_url))
    wait_until(lambda: fleet.ping(0.5), 60)
    line = fleet._control._connection
    assert line is not None
    address = line.reply_queue.address["routing_key"]
    before = _resident()

    def hostile() -> None:
        for _ in range(5):
            _garbage(broker_url, address)

    thread = threading.Thread(target=hostile)
    thread.start()
    while thread.is_alive():
        fleet.ping(0.05)
    thread.join()
    wait_until(lambda: fleet.ping(0.5) == {"celery@worker"}, 60)
    assert fleet._control._connection is line
    assert fleet.discarded["too_large"] >= 5 or fleet.discarded["malformed"] > 5
    assert _resident() - before < 200 << 20
    fleet.close()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize(
    ("answer", "solo"),
    [
        ({"pool": {"implementation": "celery.concurrency.solo:TaskPool"}}, True),
        ({"pool": {"implementation": "celery.concurrency.prefork:TaskPool"}}, False),
        ({"pool": {"implementation": ["solo"] * 3}}, True),
        ({"pool": {}}, False),
        ({"pool": "solo"}, False),
        ("solo", False),
        (None, False),
    ],
)
def test_workers_that_cannot_answer_during_a_task(answer: object, solo: bool) -> None:  # noqa: FBT001  # a column
    """The name of their pool shows it, if they report it."""
    assert _is_solo(answer) == solo


def test_a_worker_is_named_as_in_its_events() -> None:
    """A hostname that cannot be shown has one form, in events and replies."""
    reply = Reply("t", None, "application/json", json.dumps({"w\n1@box": {"ok": "pong"}}).encode())
    assert read(reply) == ("w\ufffd1@box", {"ok": "pong"})
