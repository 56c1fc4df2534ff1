"""Servers that violate the protocol: for any answer, the page waits or is given up, and the notifier lives."""

import gzip
import random
import socket
import threading
import time
from contextlib import suppress

import pytest

from celery_monitor.adapters.channels.pagerduty.send import PagerDuty
from celery_monitor.adapters.http.exchange import BODY_LIMIT
from celery_monitor.core.model import Action
from celery_monitor.errors import DeliveryError, RetryableError
from celery_monitor.settings.secret import Secret, SecretSource
from tests.adapters.channels.pagerduty.incidents import AT, KEY, an_incident, an_item
from tests.fakes import ManualClock
from tests.servers.scripted import misbehaving, talking

ANSWERS = 100
GOOD = b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
STATUS = (
    b"HTTP/1.1 429 Too Many",
    b"HTTP/1.1 503",
    b"HTTP/1.1 400 No",
    b"HTTP/1.1 407 Proxy",
    b"HTTP/1.1 302 Found",
    b"HTTP/1.1 401",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 101 Switching",
    b"HTTP/1.1 199 Odd",
    b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 999 x",
    b"HTTP/1.1 1000 x",
    b"HTTP/1.1 -1 x",
    b"HTTP/1.1 abc",
    b"HTTP/1.1",
    b"HTTP/0.9 503 a",
    b"HTTP/2 503",
    b"ICY 200 \x1b[31m",
    b"ICY 200 OK",
    b"",
    b"\x00\xff",
    b"HTTP/1.1 503 " + b"x" * 100_000,
    b"HTTP/1.1 503 \xff\xfe\x1b[31m",
    b"HTTP/1.1 \xd9\xa5\xd9\xa0\xd9\xa3 x",
)
HEADERS = (
    b"Retry-After: Mon, 01 Jan 2024 00:00:00 +99999999999999999",
    b"Retry-After: 1e999",
    b"Retry-After: \xff",
    b"Retry-After: " + b"9" * 5_000,
    b"Retry-After: Mon, 01 Jan 0001 00:00:00 +2359",
    b"Retry-After: 1\r\nRetry-After: x",
    b"Retry-After: Fri, 31 Dec 9999 23:59:59 -2359",
    b"Retry-After: -1e308",
    b"Retry-After: Mon, 01 Jan 99999999 00:00:00 GMT",
    b"Content-Length: abc",
    b"Content-Length: -5",
    b"Content-Length: 5, 6",
    b"Content-Length: " + b"9" * 30,
    b"Content-Length: 5\r\nContent-Length: 7",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked, gzip",
    b"Content-Encoding: gzip",
    b"Content-Encoding: deflate",
    b"Content-Encoding: gzip, gzip, gzip, gzip, gzip, gzip, gzip",
    b"Content-Encoding: br, zstd",
    b"Content-Type: text/html; charset=\xff",
    b"Content-Type: ;;;=",
    b"Set-Cookie: \xff=;;expires=x",
    b"Set-Cookie: a=b; expires=Mon, 99 Foo 99999 99:99:99 GMT; max-age=1e9",
    b"Location: http://[::1",
    b"Location: //\xff",
    b"no colon",
    b": no name",
    b" folded",
    b"X: " + b"x" * 100_000,
    b"X: y\r\n" * 200,
    b"Connection: keep-alive",
    b"X\x00: \x00",
)
BODIES = (
    b"",
    b"{}",
    b"no",
    b"\xff\xfe\x00",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"zz\r\n",
    b"-5\r\nhello",
    b"f" * 5_000,
    b"FFFFFFFFFFFFFFFFFF\r\n",
    b"5;" + b"x" * 100_000 + b"\r\nhello",
    b"1\r\n\xff\r\n" * 5_000,
    gzip.compress(b"x" * 5_000_000),
    gzip.compress(b"ab")[:-9],
    b"\x1f\x8b" + b"\xff" * 100,
    b"x" * 1_000_000,
)


def pagerduty(port: int, timeout: float = 60.0) -> PagerDuty:
    """A sender to that port."""
    return PagerDuty(
        url=f"http://127.0.0.1:{port}",
        keys={"": SecretSource(Secret(KEY))},
        incident=lambda _: an_incident(),
        clock=ManualClock(time=AT),
        timeout=timeout,
    )


def garbage(chance: random.Random) -> bytes:
    """An answer."""
    head = [chance.choice(STATUS), *chance.choices(HEADERS, k=chance.randint(0, 4))]
    answer = (
        b"\r\n".join(head) + chance.choice((b"\r\n\r\n", b"\r\n\r\n", b"\n\n", b"\r\n", b"")) + chance.choice(BODIES)
    )
    kind = chance.random()
    if kind < 0.6:
        return answer
    if kind < 0.8:
        answer = GOOD if kind < 0.7 else answer
        flipped = bytearray(answer)
        for _ in range(chance.randint(1, 5)):
            flipped[chance.randrange(min(len(flipped), 300))] = chance.randrange(256)
        return bytes(flipped)
    return answer[: chance.randrange(len(answer))]


@pytest.mark.parametrize("seed", range(4))
def test_garbage_for_an_answer(seed: int) -> None:
    """For any answer and any end of it, the page is accepted or the error is one of the notifier's."""
    chance = random.Random(seed)
    item = an_item(an_incident(), Action.TRIGGER)
    errors: list[DeliveryError] = []
    for _ in range(ANSWERS):
        with misbehaving(talking(b"", garbage(chance))) as port:
            try:
                pagerduty(port).send(item)
            except DeliveryError as exc:
                errors.append(exc)
    assert len(errors) > ANSWERS / 2
    for error in errors:
        assert len(str(error)) < 500
        assert str(error).isprintable()


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n" * 3,
    ],
)
def test_interim_answers_are_skipped(interim: bytes) -> None:
    """The final answer counts. Otherwise the event would be sent again and again."""
    accepted = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"
    with misbehaving(talking(b"", interim + accepted)) as port:
        pagerduty(port).send(an_item(an_incident(), Action.TRIGGER))
    refused = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    with misbehaving(talking(b"", interim + refused)) as port, pytest.raises(RetryableError, match="429") as caught:
        pagerduty(port).send(an_item(an_incident(), Action.TRIGGER))
    assert caught.value.after == 7


def test_interim_answers_without_end() -> None:
    """They take no longer than the timeout."""

    def speak(connection: socket.socket, over: threading.Event) -> None:
        with suppress(OSError):
            connection.recv(65_536)
            while not over.wait(0.01):
                connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")

    with misbehaving(speak) as port, pytest.raises(RetryableError, match=r"no answer within 0\.5 s"):
        pagerduty(port, timeout=0.5).send(an_item(an_incident(), Action.TRIGGER))


@pytest.mark.parametrize("before", [b"", b"ICY 200 ", b"x" * 180, b"HTTP/1.1 -1 "])
def test_a_broken_answer_that_repeats_the_key(before: bytes) -> None:
    """The key is not passed on, not even a part of it at the cut."""
    answer = before + KEY.encode() + b"\r\n\r\n"
    with misbehaving(talking(b"", answer)) as port, pytest.raises(RetryableError) as caught:
        pagerduty(port).send(an_item(an_incident(), Action.TRIGGER))
    assert KEY[:8] not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize(
    "head", [b"Content-Length: 999999999999\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n", b"X: "]
)
def test_an_answer_without_end_is_not_kept(head: bytes) -> None:
    """For an endless body or header, only its beginning is read."""
    sent = []

    def speak(connection: socket.socket, over: threading.Event) -> None:
        # Else the kernel may take megabytes that nobody reads, and they would count as sent.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        with suppress(OSError):
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 503 Away\r\n" + head)
            while not over.is_set():
                sent.append(connection.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n"))

    began = time.monotonic()
    with misbehaving(speak) as port, pytest.raises(RetryableError) as caught:
        pagerduty(port).send(an_item(an_incident(), Action.TRIGGER))
    assert time.monotonic() - began < 30
    assert len(str(caught.value)) < 500
    # What lies in the sockets' buffers is not much either.
    assert sum(sent) < 1000 * BODY_LIMIT
