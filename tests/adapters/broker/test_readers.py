"""The parsers of the two protocols, without a server."""

import binascii
import contextlib
import itertools
import json
import socket
import tracemalloc
from base64 import b64encode
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
from celery_monitor.core.decode import COMPRESSED, TOO_LARGE
from celery_monitor.core.model import HEAD, Delivery
from celery_monitor.core.replay import position_of

MAX_MESSAGE_BYTES = 8 << 20


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
    """For any split of the bytes, also with heartbeats, every message is returned once, whole and in order."""
    stream = b"".join(
        _frame(8, b"", 0) + _delivery(body, tag, redelivered=again, content_type=kind, frame=frame)
        for tag, (body, again, kind) in enumerate(messages, 1)
    )
    reader, found = FrameReader(MAX_MESSAGE_BYTES), list[Delivery]()
    for part in _cut(stream, places):
        reader.feed(part, 1000, found)
    assert found == [Delivery(body, (kind or b"").decode(), again) for body, again, kind in messages]
    assert reader.tag == len(messages)


def test_properties_that_differ() -> None:
    """Each message is read with its own properties, and ever-changing properties do not use memory."""
    reader, found = FrameReader(MAX_MESSAGE_BYTES), list[Delivery]()
    types = [b"%d" % number + b"x" * 200 for number in range(4_000)]
    tracemalloc.start()
    try:
        for kind in (*types, *types[-2:]):
            reader.feed(_delivery(b"body", 1, redelivered=False, content_type=kind, frame=9), 1, found)
            assert found.pop().content_type == kind.decode()
        assert tracemalloc.get_traced_memory()[0] < 1_500_000
    finally:
        tracemalloc.stop()


def _headers(name: bytes, value: bytes) -> bytes:
    table = _short(name) + b"S" + pack(">I", len(value)) + value
    return pack(">I", len(table)) + table


_PROPERTIES = (
    (0x8000, _short(b"application/json")),
    (0xA000, _short(b"application/json") + _headers(b"hostname", b"celery@a")),
    (0xA000, _short(b"application/json") + _headers(b"hostname", b"celery@bb")),
    (0xA000, _short(b"application/json") + _headers(b"compression", b"zlib")),
    (0xA000, _short(b"application/x-msgpack") + _headers(b"hostname", b"c" * 600)),
    (0x0000, b""),
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(_PROPERTIES),
            st.sampled_from((0, 1, 20, 21, 40)),
            st.sampled_from((20, 64)),
            st.sampled_from((b"", b"consumer")),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_frames_at_once_and_byte_by_byte(messages: list[tuple[tuple[int, bytes], int, int, bytes, bool]]) -> None:
    """Complete and partial messages are read in different ways with the same result."""
    stream = b""
    for tag, ((flags, properties), size, frame, consumer, again) in enumerate(messages, 1):
        method = pack(">HH", 60, 60) + _short(consumer) + pack(">QB", tag, again) + _short(b"ex") + _short(b"key")
        parts = [b"x" * min(frame, size - at) for at in range(0, size, frame)]
        stream += _frame(1, method) + _frame(2, pack(">HHQH", 60, 0, size, flags) + properties)
        stream += b"".join(_frame(3, part) for part in parts)
    whole, parted = FrameReader(max_bytes=20), FrameReader(max_bytes=20)
    at_once, one_by_one = list[Delivery](), list[Delivery]()
    whole.feed(stream, 1000, at_once)
    for at in range(len(stream)):
        parted.feed(stream[at : at + 1], 1000, one_by_one)
    assert at_once == one_by_one
    assert len(at_once) == len(messages)
    assert whole.tag == parted.tag == len(messages)
    assert [one.refused for one in at_once] == [
        TOO_LARGE if size > 20 else COMPRESSED if b"compression" in properties else None
        for (_, properties), size, *_ in messages
    ]


def test_frames_limit() -> None:
    """No more than the limit is returned, and the tag is that of the last one."""
    stream = b"".join(_delivery(b"%d" % n, n, redelivered=False, content_type=None, frame=9) for n in range(1, 6))
    reader = FrameReader(MAX_MESSAGE_BYTES)
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
    """Frames that end the stream raise each time; earlier messages are returned once."""
    reader, found = FrameReader(MAX_MESSAGE_BYTES), list[Delivery]()
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
    """For any split of the bytes, in both versions of the protocol, every message is returned once and in order."""
    noise = b"*2\r\n$4\r\npong\r\n$0\r\n\r\n+PONG\r\n:1\r\n_\r\n$-1\r\n"
    stream = b"".join(noise + _pmessage(body, b">" if push else b"*") for body in bodies)
    reader, found = RespReader(MAX_MESSAGE_BYTES), list[Delivery]()
    for part in _cut(stream, places):
        reader.feed(part, 1000, found)
    assert [(one.body, one.content_type) for one in found] == [(body, "") for body in bodies]


def test_resp_subscription() -> None:
    """A confirmed subscription is recognised; messages that arrive with it are not lost."""
    reader, found = RespReader(MAX_MESSAGE_BYTES), list[Delivery]()
    before = reader.subscribed
    reader.feed(b"*3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n" + _pmessage(b"x"), 10, found)
    assert (before, reader.subscribed) == (False, True)
    assert [(one.body, one.content_type) for one in found] == [(b"x", "")]


@pytest.mark.parametrize(
    ("envelope", "tag"),
    [
        (b'{"body": "eA==", "properties": {"delivery_tag": "4f1b-9"}}', "4f1b-9"),
        (b'{"body": "eA==", "properties": {"delivery_tag": 12345}}', "234"),
        (b'{"body": "eA==", "properties": {"delivery_tag": null}}', "ul"),
        (b'{"body": "eA==", "properties": {"delivery_tag": [{}]}}', "{}"),
        (b'{"body": "eA==", "properties": {"delivery_tag": ""}}', None),
        (b'{"body": "eA==", "properties": {"delivery_tag": "' + b"x" * 1000 + b'"}}', None),
        (b'{"body": "eA==", "properties": {}}', None),
        (b'{"body": "eA==", "properties": {"delivery_tag": {}, "body_encoding": 1}}', None),
        (b"no envelope", None),
        (b"y" + b"x" * (MAX_MESSAGE_BYTES * 2), None),
    ],
)
def test_resp_tags(envelope: bytes, tag: str | None) -> None:
    """Each message has a short tag, the same for every subscriber, whatever its sender wrote."""
    found: list[Delivery] = []
    for data in (envelope, envelope, envelope[::-1]):
        RespReader(MAX_MESSAGE_BYTES).feed(_pmessage(data), 10, found)
    first, again, other = map(position_of, found)
    assert first == again
    assert first != other
    assert found[0].tag == (tag or "-")


class _Flood:
    """A Wire with endless data."""

    drained = False

    def __init__(self, stream: bytes) -> None:
        self._stream = stream

    def receive(self, timeout: float) -> bytes | None:
        data, self._stream = self._stream[: 1 << 18], self._stream[1 << 18 :]
        return data or None


@pytest.mark.parametrize("kind", [AmqpLink, RedisLink])
def test_a_poll_is_bounded_in_bytes(kind: type[AmqpLink] | type[RedisLink], monkeypatch: pytest.MonkeyPatch) -> None:
    """Long messages are returned in portions that fit into memory, as are messages longer than a portion."""
    monkeypatch.setattr(f"{kind.__module__}.POLL_BYTES", 1 << 20)
    bodies = [bytes([65 + number]) * (3 << 20 if number == 30 else 100_000) for number in range(50)]
    link: Any = kind.__new__(kind)
    link._limit, link._early, link._ping_interval, link._tick_interval = 2000, [], 10, 0
    link._amqp = SimpleNamespace(bytes_recv=0)
    if kind is AmqpLink:
        link._reader = FrameReader(MAX_MESSAGE_BYTES)
        stream = b"".join(
            _delivery(body, tag, redelivered=False, content_type=None, frame=131_064)
            for tag, body in enumerate(bodies, 1)
        )
    else:
        link._reader = RespReader(MAX_MESSAGE_BYTES)
        stream = b"".join(map(_pmessage, bodies))
    link._wire = _Flood(stream)
    found: list[bytes] = []
    while len(found) < len(bodies):
        chunk = [delivery.body for delivery in link.read(1).deliveries]
        assert sum(len(body) for body in chunk if len(body) < 1 << 20) < 2 << 20
        found += chunk
    assert found == bodies


@pytest.mark.parametrize(
    ("end", "error"),
    [(b"-NOPERM no\r\n", NoPermissionError), (b"HTTP/1.1 400\r\n", InvalidResponse), (b"", ConnectionResetError)],
)
@pytest.mark.parametrize("early", [0, 2])
def test_messages_before_an_error_of_redis(end: bytes, error: type[Exception], early: int) -> None:
    """They are not redelivered: they are returned first, and the next call raises the error."""
    server, client = socket.socketpair()
    with server, client:
        server.sendall(b"".join(_pmessage(b"%d" % number) for number in range(early, 300)) + end)
        server.shutdown(socket.SHUT_WR)
        link = RedisLink.__new__(RedisLink)
        link._limit, link._wire, link._reader = 200, Wire(client), RespReader(MAX_MESSAGE_BYTES)
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
    """Errors of the server, and invalid RESP, raise."""
    with pytest.raises(RedisError):
        RespReader(MAX_MESSAGE_BYTES).feed(data, 10, [])


def _envelope(body: bytes, **fields: Any) -> bytes:
    properties = {"body_encoding": "base64"}
    values = {"body": b64encode(body).decode(), "content-type": "application/json", "properties": properties} | fields
    return json.dumps(values).encode()


_BASE64ISH = st.text("AQZgz9+/=-_ \né\ud800", max_size=9) | st.binary(max_size=20).map(
    lambda body: b64encode(body).decode()
)


@given(_BASE64ISH, st.sampled_from(("base64", "utf-8", None, 1)), st.booleans())
def test_resp_bodies_as_the_standard_library_reads_them(body: str, encoding: object, escaped: bool) -> None:  # noqa: FBT001
    """Base64 and text that resembles it, however the envelope encodes its characters."""
    data = json.dumps({"body": body, "properties": {"body_encoding": encoding}})
    if escaped:
        data = data.replace("A", "\\u0041").replace("=", "\\u003d")
    found: list[Delivery] = []
    RespReader(MAX_MESSAGE_BYTES).feed(_pmessage(data.encode()), 10, found)
    try:
        expected = binascii.a2b_base64(body, strict_mode=True) if encoding == "base64" else body.encode()
    except ValueError:
        expected = data.encode()
    assert [one.body for one in found] == [data.encode() if encoding == 1 else expected]


def test_resp_heads() -> None:
    """Messages with different beginnings, even if one is a prefix of another."""
    channels = b"/0.celeryev/x", b"/0.celeryev/xy", b"/0.celeryev/x", b"/0.celeryev/x"
    messages = [
        b"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$%d\r\n%s\r\n$1\r\n%d\r\n" % (len(channel), channel, number)
        for number, channel in enumerate(channels)
    ]
    reader, found = RespReader(MAX_MESSAGE_BYTES), list[Delivery]()
    reader.feed(b"".join(messages), 10, found)
    assert [one.body for one in found] == [b"0", b"1", b"2", b"3"]


@given(st.lists(st.integers(0, 600), max_size=8), st.lists(st.integers(min_value=0), max_size=12), st.integers(1, 90))
def test_frames_that_are_too_large(sizes: list[int], places: list[int], frame: int) -> None:
    """A body beyond the limit is reported by its header; other messages are complete, for any split."""
    stream = b"".join(
        _delivery(b"x" * size, tag, redelivered=True, content_type=None, frame=frame)
        for tag, size in enumerate(sizes, 1)
    )
    reader, found = FrameReader(300), list[Delivery]()
    for part in _cut(stream, places):
        reader.feed(part, 1000, found)
        assert sum(map(len, reader._body)) <= 300
    assert [(one.refused, len(one.body)) for one in found] == [
        (TOO_LARGE, min(size, frame, HEAD)) if size > 300 else (None, size) for size in sizes
    ] or all(one.refused == (TOO_LARGE if size > 300 else None) for one, size in zip(found, sizes, strict=True))
    assert (reader.tag, reader.is_mid_message) == (len(sizes), False)


@given(st.lists(st.integers(0, 600), max_size=8), st.lists(st.integers(min_value=0), max_size=12))
def test_values_that_are_too_large(sizes: list[int], places: list[int]) -> None:
    """The same on Redis, where the size of the decoded body counts."""
    stream = b"".join(_pmessage(_envelope(b"x" * size)) for size in sizes)
    reader, found = RespReader(300), list[Delivery]()
    for part in _cut(stream, places):
        reader.feed(part, 1000, found)
    assert [one.refused for one in found] == [TOO_LARGE if size > 300 else None for size in sizes]
    assert [len(one.body) for one in found if one.refused is None] == [size for size in sizes if size <= 300]


def test_lengths_that_are_announced_take_no_memory() -> None:
    """No memory is reserved for declared gigabytes, and arriving ones are dropped."""
    frames, resp = FrameReader(MAX_MESSAGE_BYTES), RespReader(MAX_MESSAGE_BYTES)
    found: list[Delivery] = []
    header = _frame(2, pack(">HHQH", 60, 0, 2 << 30, 0x1000) + b"\x01")
    head = b"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nx\r\n$%d\r\n" % (1 << 29)
    tracemalloc.start()
    try:
        frames.feed(_frame(1, pack(">HH", 60, 60) + b"\0" + pack(">QB", 1, 0) + b"\0\0") + header, 10, found)
        resp.feed(head, 10, found)
        part = bytes(1 << 18)
        for _ in range(200):
            frames.feed(_frame(3, part), 10, found)
            resp.feed(part, 10, found)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found, frames.is_mid_message, resp.is_mid_message) == ([], True, True)
    assert peak < 4 << 20


@pytest.mark.parametrize(
    "data",
    [
        b"*1000000\r\n", b"*4\r\n$99999999999999999999\r\n", b"$abc\r\n", b"*1\r\n" * 100_000 + b"$x\r\n",
        b"$" + b"9" * 5000 + b"\r\n", b"+" + b"x" * 100_000, b"HTTP/1.1 200 OK\r\n",
    ],
    ids=lambda data: repr(data[:12]),
)  # fmt: skip
def test_resp_that_no_redis_sends(data: bytes) -> None:
    """It is a protocol error immediately."""
    with pytest.raises(InvalidResponse):
        RespReader(MAX_MESSAGE_BYTES).feed(data, 10, [])


def test_a_frame_that_is_longer_than_agreed() -> None:
    """It is a protocol error before it has arrived."""
    with pytest.raises(AMQPError):
        FrameReader(MAX_MESSAGE_BYTES).feed(pack(">BHI", 3, 1, 2 << 30) + b"x", 10, [])


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_garbage_of_any_kind(parts: list[bytes]) -> None:
    """For any input, the parsers raise an exception or continue."""
    for reader in (FrameReader(300), RespReader(300)):
        with contextlib.suppress(Exception):
            for part in parts:
                reader.feed(part, 10, [])


@given(st.lists(st.sampled_from([
    b"*", b"4\r\n", b"$", b"8\r\n", b"pmessage\r\n", b"-1\r\n", b"0\r\n", b"\r\n", b">", b":", b"+x", b"x", b"1\r\n",
    b"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n", b"$5\r\na\r\nbc\r\n", b"$900\r\n",
])))  # fmt: skip
def test_resp_of_many_kinds(parts: list[bytes]) -> None:
    """The result is the same whether bytes arrive at once or one by one."""
    results = []
    for size in (1, 10_000):
        reader, found, stream = RespReader(300), list[Delivery](), b"".join(parts)
        try:
            for at in range(0, len(stream), size):
                reader.feed(stream[at : at + size], 1000, found)
        except RedisError:
            found.append(Delivery(b"", "error"))
        results.append([(one.content_type, one.refused, one.refused or one.body) for one in found])
    assert results[0] == results[1]


@pytest.mark.parametrize("compression", ["zlib", "bzip2", None, {"a": 1}])
def test_compressed_messages(compression: Any) -> None:
    """Celery does not compress events; compressed messages are refused and not decompressed."""
    reader, found = RespReader(MAX_MESSAGE_BYTES), list[Delivery]()
    reader.feed(_pmessage(_envelope(b"abc", headers={"compression": compression, "hostname": "x"})), 10, found)
    assert [one.refused for one in found] == [None if compression is None else COMPRESSED]
    table = _short(b"compression") + b"S" + pack(">I", 4) + b"zlib"
    header = pack(">HHQH", 60, 0, 3, 0x2000) + pack(">I", len(table)) + table
    method = pack(">HH", 60, 60) + _short(b"c") + pack(">QB", 1, 0) + _short(b"e") + _short(b"k")
    frames = FrameReader(MAX_MESSAGE_BYTES)
    frames.feed(_frame(1, method) + _frame(2, header) + _frame(3, b"abc"), 10, found)
    assert found[1].refused == COMPRESSED


def test_a_channel_with_a_line_end_in_its_name() -> None:
    """Anybody may publish on such a channel; its message and the next one are separate."""
    parts = (b"pmessage", b"/0.celeryev/*", b"/0.celeryev/x\r\n$1\r\ny", _envelope(b"a"))
    odd = b"*4\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
    reader, found = RespReader(MAX_MESSAGE_BYTES), list[Delivery]()
    reader.feed(odd + _pmessage(_envelope(b"b")), 10, found)
    assert [one.body for one in found] == [b"a", b"b"]
