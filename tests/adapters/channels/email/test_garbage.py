"""Servers that violate the protocol: for any answer and any end, the mail waits and the notifier lives."""

import random
import socket
import threading
from base64 import b64encode
from contextlib import suppress

import pytest

from celery_monitor.adapters.channels.email.session import SmtpServer
from celery_monitor.adapters.channels.email.smtp import SendResult, deliver
from celery_monitor.errors import DeliveryError, RetryableError
from tests.servers.scripted import misbehaving, talking

PASSWORD = "s3cret-4711"
DIALOGUES = 100
GOOD = (
    b"220 mail.example\r\n",
    b"250-mail.example\r\n250-AUTH CRAM-MD5 PLAIN LOGIN\r\n250 SIZE 1000000\r\n",
    b"334 PDEyMzRAbWFpbC5leGFtcGxlPg==\r\n",
    b"235 welcome\r\n",
    b"250 sender\r\n",
    b"250 recipient\r\n",
    b"354 go on\r\n",
    b"250 taken\r\n",
    b"221 bye\r\n",
)
"""A whole dialogue, each answer after what it answers."""

CODES = (
    b"", b"-1", b"0", b"099", b"150", b"199", b"250", b"299", b"334", b"354", b"399", b"421", b"535", b"550", b"999",
    b"9999", b"2 5", "٢٥٠".encode(),
)  # fmt: skip
SAID = (
    b"", b" ok", b"-", b"- more", b" ===", b" A", b" AB=C", b" AUTH", b" AUTH=CRAM-MD5", b" " + bytes(range(128, 256)),
    b" \x00\x1b[31m", b" \xed\xa0\x80", b" " + b"x" * 7_000, b" " + b"x" * 100_000, b"-x\r\n" * 500,
    b" " + PASSWORD.encode(), b" " + b64encode(PASSWORD.encode()),
)  # fmt: skip


def send(port: int, *, deadline: float = 5.0, host: str = "127.0.0.1") -> SendResult:
    """Send one mail with a login."""
    server = SmtpServer(host, port, "none", "monitor", lambda: PASSWORD)
    return deliver(
        server, "monitor@shop.example", ["ann@shop.example"], lambda _: b"Subject: a\r\n\r\nb\r\n", deadline=deadline
    )


def garbage(chance: random.Random, good: bytes) -> bytes:
    """Data that replaces a valid answer."""
    code = chance.choice(CODES)
    line = chance.choice(SAID) + chance.choice((b"", b"", chance.randbytes(200)))
    flipped = bytearray(good)
    flipped[chance.randrange(len(flipped))] = chance.randrange(256)
    end = chance.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""))
    return chance.choice(
        (code + line + end, code + line + end, bytes(flipped), good[: chance.randrange(len(good))], good * 3)
    )


def test_the_dialogue_is_a_good_one() -> None:
    """Without garbage the mail is accepted."""
    with misbehaving(talking(*GOOD, quiet=60.0)) as port:
        assert send(port, deadline=60.0).reply == "250 taken"


@pytest.mark.parametrize("seed", range(4))
def test_garbage_at_each_step(seed: int) -> None:
    """For any garbage and any end of the connection, the mail is accepted or the error is one of the notifier's."""
    chance = random.Random(seed)
    errors: list[DeliveryError] = []
    for number in range(DIALOGUES):
        step = number % len(GOOD)
        rest = GOOD[step + 1 :] if chance.random() < 0.7 else [garbage(chance, good) for good in GOOD[step + 1 :]]
        answers = [*GOOD[:step], garbage(chance, GOOD[step]), *rest]
        with misbehaving(talking(*answers[: chance.choice((step + 1, len(answers)))])) as port:
            try:
                send(port)
            except DeliveryError as exc:
                errors.append(exc)
    assert 0 < len(errors) < DIALOGUES
    for error in errors:
        text = f"{error} {error.__cause__!r}"
        assert PASSWORD not in text
        assert b64encode(PASSWORD.encode()).decode()[:-1] not in text
        assert str(error).isprintable()
        assert len(str(error)) < 500


@pytest.mark.parametrize("challenge", [b"334 A\r\n", b"334 =\r\n", b"334 \xff\xfe\r\n"])
def test_a_broken_challenge_is_tried_again(challenge: bytes) -> None:
    """An invalid base64 challenge is the server's fault; the error does not quote the credentials."""
    with misbehaving(talking(*GOOD[:2], challenge)) as port, pytest.raises(RetryableError) as caught:
        send(port)
    assert PASSWORD not in str(caught.value)


def test_an_answer_without_end_is_not_kept() -> None:
    """An endless answer does not use up memory: a megabyte is the limit."""

    def speak(connection: socket.socket, over: threading.Event) -> None:
        with suppress(OSError):
            while not over.is_set():
                connection.sendall(b"220-hello\r\n" * 1000)

    with misbehaving(speak) as port, pytest.raises(RetryableError, match="response is too long"):
        send(port, deadline=60.0)


@pytest.mark.parametrize("host", ["mail..corp", "a" * 70 + ".corp", "mail.corp." + "x" * 64, "\udcff.corp"])
def test_a_name_that_no_host_can_have_is_tried_again(host: str) -> None:
    """Somebody has to correct it: the mail waits, and the error says what is wrong."""
    with pytest.raises(RetryableError, match="not a host name"):
        send(25, host=host)


def test_a_password_that_is_no_text_is_not_quoted() -> None:
    """Bytes of the environment that are not UTF-8."""
    with misbehaving(talking(*GOOD)) as port, pytest.raises(RetryableError) as caught:
        deliver(
            SmtpServer("127.0.0.1", port, "none", "monitor", lambda: "s3cret\udcff"),
            "a@b.example",
            ["c@d.example"],
            lambda _: b"",
        )
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__!r}"
