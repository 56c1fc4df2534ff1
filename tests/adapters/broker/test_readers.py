"""The readers of the two protocols, without a server."""

import itertools
import socket
from struct import pack
from types import SimpleNamespace
from typing import Any

import pytest
from amqp.exceptions import AMQPError, PreconditionFailed
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import InvalidResponse, NoPermissionError, RedisError

from celery_monitor.adapters.broker.amqp import AmqpLink
from celery_monitor.adapters.broker.frames import ConsumerCancelledError, FrameReader, StreamClosedError
from celery_monitor.adapters.broker.redis import RedisLink
from celery_monitor.adapters.broker.resp import RespReader
from celery_monitor.adapters.broker.wire import Wire
from celery_monitor.core.model import Delivery


MOST = 8 << 20


def _frame(kind: int, payload: bytes, channel: int = 1) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def _short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _delivery(body: bytes, tag: int, *, redelivered: bool, content_type: bytes | None, frame: int) -> bytes:
    method = pack(">HH", 60, 60) + _short(b"ctag") + pack(">QB", tag, redelivered) + _short(b"ex") + _short(b"key")
    flags = 0x8000 if content_type is not None else 0
    # delivery_mode, so that there is a property behind the content type, or instead of it
    properties = (_short(content_type) if content_type is not None else b"") + b"\x01"
    header = pack(">HHQH", 60, 0, len(body), flags | 0x1000) + properties
    parts = [body[at : at + frame] for at in range(0, len(body), frame)]
    return _frame(1, method) + _frame(2, header) + b"".join(_frame(3, part) for part in parts)


_messages = st.lists(
    st.tuples(st.binary(max_size=40), st.booleans(), st.one_of(st.none(), st.sampled_from([b"", b"application/json"]))),
    max_size=8,
)


def _cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[begin:end] for begin, end in itertools.pairwise(edges)]


@given(_messages, st.lists(st.integers(min_value=0), max_size=12), st.integers(1, 20))
def test_frames_cut_anywhere(messages: list[tuple[bytes, bool, bytes | None]], places: list[int], frame: int) -> None:
    """However the bytes are cut, and with heartbeats between, every message comes once, whole and in order."""
    stream = b"".join(
        _frame(8, b"", 0) + _delivery(body, tag, redelivered=again, content_type=kind, frame=frame)
        for tag, (body, again, kind) in enumerate(messages, 1)
    )
    reader, found = FrameReader(MOST), list[Delivery]()
    for part in _cut(stream, places):
        reader.feed(part, 1000, found)
    assert found == [Delivery(body, (kind or b"").decode(), again) for body, again, kind in messages]
    assert reader.tag == len(messages)


def test_frames_limit() -> None:
    """No more than the limit is given, and the tag is that of the last one given."""
    stream = b"".join(_delivery(b"%d" % n, n, redelivered=False, content_type=None, frame=9) for n in range(1, 6))
    reader = FrameReader(MOST)
    first: list[Delivery] = []
    reader.feed(stream, 2, first)
    assert ([d.body for d in first], reader.tag) == ([b"1", b"2"], 2)
    rest: list[Delivery] = []
    reader.feed(b"", 10, rest)
    assert ([d.body for d in rest], reader.tag) == ([b"3", b"4", b"5"], 5)


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (_frame(1, pack(">HHHB", 20, 40, 406, 5) + b"wrong" + bytes(4)), PreconditionFailed),
        (_frame(1, pack(">HHHB", 10, 50, 320, 5) + b"later" + bytes(4), 0), AMQPError),
        (_frame(1, pack(">HHHB", 10, 50, 999, 0) + bytes(4), 0), AMQPError),
        (_frame(1, pack(">HH", 60, 30) + _short(b"ctag")), ConsumerCancelledError),
        (_frame(1, pack(">HH", 10, 51), 0), StreamClosedError),
        (_frame(8, b"")[:-1] + b"\x00", AMQPError),
    ],
)
def test_frames_that_end_the_stream(frame: bytes, error: type[Exception]) -> None:
    """What ends the stream raises, each time; what came before it is given once."""
    reader, found = FrameReader(MOST), list[Delivery]()
    message = _delivery(b"x", 1, redelivered=False, content_type=None, frame=9)
    with pytest.raises(error):
        reader.feed(message + frame, 10, found)
    assert len(found) == 1
    with pytest.raises(error):
        reader.feed(b"", 10, found)
    assert len(found) == 1


def _pmessage(data: bytes, push: bytes = b"*") -> bytes:
    parts = (b"pmessage", b"/0.celeryev/*", b"/0.celeryev/x", data)
    return push + b"4\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(min_value=0), max_size=12), st.booleans())
def test_resp_cut_anywhere(bodies: list[bytes], places: list[int], push: bool) -> None:  # noqa: FBT001
    """However the bytes are cut, in both versions of the protocol, every message comes once and in order."""
    noise = b"*2\r\n$4\r\npong\r\n$0\r\n\r\n+PONG\r\n:1\r\n_\r\n$-1\r\n"
    stream = b"".join(noise + _pmessage(body, b">" if push else b"*") for body in bodies)
    reader, found = RespReader(MOST), list[Delivery]()
    for part in _cut(stream, places):
        reader.feed(part, 1000, found)
    assert found == [Delivery(body, "") for body in bodies]


def test_resp_subscription() -> None:
    """A confirmed subscription is known; what comes with it is not lost."""
    reader, found = RespReader(MOST), list[Delivery]()
    before = reader.subscribed
    reader.feed(b"*3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n" + _pmessage(b"x"), 10, found)
    assert (before, reader.subscribed) == (False, True)
    assert found == [Delivery(b"x", "")]


class _Flood:
    """In place of a Wire: there is always more, until the end."""

    drained = False

    def __init__(self, stream: bytes) -> None:
        self._stream = stream

    def receive(self, timeout: float) -> bytes | None:
        data, self._stream = self._stream[: 1 << 18], self._stream[1 << 18 :]
        return data or None


@pytest.mark.parametrize("kind", [AmqpLink, RedisLink])
def test_a_poll_is_bounded_in_bytes(kind: type[AmqpLink] | type[RedisLink], monkeypatch: pytest.MonkeyPatch) -> None:
    """Long messages come in portions that fit into memory, and one that is longer than such a portion comes too."""
    monkeypatch.setattr(f"{kind.__module__}.POLL_BYTES", 1 << 20)
    bodies = [bytes([65 + number]) * (3 << 20 if number == 30 else 100_000) for number in range(50)]
    link: Any = kind.__new__(kind)
    link._limit, link._early, link._ping_every, link._tick_every = 2000, [], 10, 0
    link._amqp = SimpleNamespace(bytes_recv=0)
    if kind is AmqpLink:
        link._reader = FrameReader(MOST)
        stream = b"".join(
            _delivery(body, tag, redelivered=False, content_type=None, frame=131_064)
            for tag, body in enumerate(bodies, 1)
        )
    else:
        link._reader = RespReader(MOST)
        stream = b"".join(map(_pmessage, bodies))
    link._wire = _Flood(stream)
    found: list[bytes] = []
    while len(found) < len(bodies):
        portion = [delivery.body for delivery in link.read(1).deliveries]
        assert sum(len(body) for body in portion if len(body) < 1 << 20) < 2 << 20
        found += portion
    assert found == bodies


@pytest.mark.parametrize(
    ("end", "error"),
    [(b"-NOPERM no\r\n", NoPermissionError), (b"HTTP/1.1 400\r\n", InvalidResponse), (b"", ConnectionResetError)],
)
@pytest.mark.parametrize("early", [0, 2])
def test_messages_before_an_error_of_redis(end: bytes, error: type[Exception], early: int) -> None:
    """They will not come again: they are given first, and the error meets the next call."""
    server, client = socket.socketpair()
    with server, client:
        server.sendall(b"".join(_pmessage(b"%d" % number) for number in range(early, 300)) + end)
        server.shutdown(socket.SHUT_WR)
        link = RedisLink.__new__(RedisLink)
        link._limit, link._wire, link._reader = 200, Wire(client), RespReader(MOST)
        link._early = [Delivery(b"%d" % number, "") for number in range(early)]
        found: list[Delivery] = []
        for _ in range(2):
            batch = link.read(1)
            assert batch is not None
            found += batch.deliveries
        assert [delivery.body for delivery in found] == [b"%d" % number for number in range(300)]
        with pytest.raises(error):
            link.read(1)


@pytest.mark.parametrize("data", [b"-NOPERM no\r\n", b"-ERR no\r\n", b"HTTP/1.1 400\r\n"])
def test_resp_errors(data: bytes) -> None:
    """Errors of the server, and what is not RESP, raise."""
    with pytest.raises(RedisError):
        RespReader(MOST).feed(data, 10, [])
