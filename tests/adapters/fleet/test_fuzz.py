"""Random garbage in workers' replies, through real brokers: only the reply itself is affected."""

import json
import random
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from kombu import Connection

from celery_monitor.adapters.broker import BrokerFleet
from celery_monitor.settings.broker import BrokerSettings

_ANSWERS: dict[str, Any] = {
    "active": [{"id": "u", "name": "a.b", "time_start": 1.7e9, "delivery_info": {"exchange": "", "routing_key": "q"}}],
    "reserved": [],
    "scheduled": [{"eta": None, "priority": 6, "request": {"id": "v", "name": "a.c"}}],
    "active_queues": [{"name": "q", "exchange": {"name": "q", "type": "direct"}, "routing_key": "q"}],
    "stats": {"pool": {"max-concurrency": 2, "processes": [1, 2]}, "total": {}},
    "registered": ["a.b", "a.c [rate_limit=1/m]"],
    "conf": {"broker_transport_options": {"sep": ":", "priority_steps": [0, 1, 2]}},
    "enable_events": {"ok": "task events enabled"},
    "ping": {"ok": "pong"},
}
_LEAVES: list[Any] = [
    None,
    True,
    -1,
    0,
    10**30,
    1.5,
    1e308,
    "",
    "x",
    "\ud800",
    "\x00",
    "x" * 5_000,
    [],
    {},
    [[]],
    {"": {}},
    ["q"] * 500,
]
_COMPRESSIONS = [None, "zlib", "bzip2", "lzma", "zstd", "brotli", "nonsense", "application/x-bz2"]
_TYPES = [
    "application/json",
    "application/json",
    "application/x-python-serialize",
    "application/x-yaml",
    "",
    "text/plain",
]


def _mutated(value: Any, rng: random.Random) -> Any:
    """A copy of JSON with something replaced, duplicated, or missing."""
    if rng.random() < 0.15:
        return rng.choice(_LEAVES)
    if isinstance(value, dict):
        return {
            (key if rng.random() < 0.95 else "x"): _mutated(each, rng)
            for key, each in value.items()
            if rng.random() < 0.95
        }
    if isinstance(value, list):
        return [_mutated(each, rng) for each in value for _ in range(rng.choice([0, 1, 1, 1, 3]))]
    return value


def _broken(data: bytes, rng: random.Random) -> bytes:
    """The bytes with some of them changed or cut."""
    if rng.random() < 0.6 or not data:
        return data
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed[: rng.randint(1, len(changed))])


class _Stranger:
    """Publishes to the mailbox of a fleet control, with the tickets of its queries."""

    def __init__(self, url: str, fleet: BrokerFleet, seed: int) -> None:
        self._rng = random.Random(seed)
        self._connection = Connection(url)
        self._redis = url.startswith("redis")
        self._control_connection: Any = fleet._control._connection
        self._address = fleet._control._open(0).reply_queue.address["routing_key"]

    def close(self) -> None:
        self._connection.close()

    def publish(self, number: int) -> None:
        """Publish this many replies to the current query."""
        for ticket, command in list(self._control_connection._tickets.items()):
            for _ in range(number):
                self._publish(ticket, command)

    def _publish(self, ticket: str, command: str) -> None:
        rng = self._rng
        hostname = rng.choice(["celery@a", "celery@b", "", "h" * 400, "x\n\x1b[2J"])
        body = _broken(json.dumps(_mutated({hostname: _ANSWERS[command]}, rng)).encode(), rng)
        headers = {"ticket": ticket, "clock": 1, "compression": rng.choice(_COMPRESSIONS[: rng.choice([1, 8])])}
        content_type = rng.choice(_TYPES[: rng.choice([1, 6])])
        channel = self._connection.default_channel
        if not self._redis:
            extra = {"content_type": content_type, "content_encoding": "utf-8", "headers": headers | {"x": [{"y": 1}]}}
            self._connection.Producer().publish(
                body, exchange="reply.celery.pidbox", routing_key=self._address, **extra
            )
            return
        envelope = {
            "body": b64encode(body).decode(),
            "headers": headers,
            "content-type": content_type,
            "properties": {"body_encoding": "base64", "delivery_info": {}},
        }
        changed = _mutated(envelope, rng) if rng.random() < 0.3 else envelope
        channel.client.lpush(self._address, _broken(json.dumps(changed).encode(), rng))


def _rounds(fleet: BrokerFleet) -> Iterator[object]:
    """Every kind of query, endlessly."""
    now = 1.0
    while True:
        now += 4_000
        yield fleet.ping(0.03)
        yield fleet.enable_events(0.03)
        yield fleet.tasks(0.03)
        yield fleet.registered(["celery@a", "celery@b"], 0.03)
        yield fleet.queues(0.03, now)


def _fuzz(url: str, seed: int, seconds: float) -> None:
    with closing(BrokerFleet(BrokerSettings.model_validate({"url": url}), ["named"])) as fleet:
        fleet.ping(0.05)
        line = fleet._control._connection
        until = time.monotonic() + seconds
        with closing(_Stranger(url, fleet, seed)) as stranger, pytest.MonkeyPatch.context() as patched:
            assert line is not None
            send = type(line)._send

            def sent(self: Any, *args: Any) -> None:
                send(self, *args)
                stranger.publish(5)

            patched.setattr(type(line), "_send", sent)
            for found in _rounds(fleet):
                assert found is not None
                if time.monotonic() > until:
                    break
        assert fleet._control._connection is line
        assert fleet.discarded["malformed"]
        assert fleet.discarded["compressed"]
        assert fleet.worker_queues().keys() <= {"celery@a", "celery@b", "x\ufffd\ufffd[2J", "x"}


def test_garbage_in_replies(broker_url: str) -> None:
    """For any content of replies, the next query uses the same connection."""
    _fuzz(broker_url, 1, 1.5)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(20))
def test_garbage_in_replies_for_long(broker_url: str, seed: int) -> None:
    """The same for half a minute, with other seeds."""
    _fuzz(broker_url, seed, 30)
