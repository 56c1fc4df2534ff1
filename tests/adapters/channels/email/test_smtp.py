import contextlib
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from celery_monitor.adapters.channels.email.answers import Refusal
from celery_monitor.adapters.channels.email.session import SmtpServer
from celery_monitor.adapters.channels.email.smtp import SendResult, deliver
from celery_monitor.errors import DeliveryError, RejectedError, RetryableError
from tests.adapters.channels.email.mail_server import (
    MailServer,
    dripping,
    hanging_up,
    serving,
    silent,
    speaking,
)
from tests.servers.certificate import Certificate
from tests.servers.ports import free_port
from tests.servers.scripted import misbehaving

SENDER = "Shop monitor <monitor@shop.example>"
ANN, BOB, CARL = "ann@shop.example", "Bob B. <bob@shop.example>", "carl@shop.example"
BODY = b"Subject: hello\r\n\r\n.one dot\r\n..two\r\n"


def send(server: SmtpServer, *recipients: str, deadline: float = 60.0) -> SendResult:
    """Send BODY."""
    return deliver(server, SENDER, recipients or (ANN,), lambda _: BODY, deadline=deadline)


def test_a_mail_goes_over_tls_with_login(secure_mail: MailServer) -> None:
    """STARTTLS and TLS with AUTH: everybody gets the mail unchanged, and the server's answer is returned."""
    delivery = send(secure_mail.server(), ANN, BOB)
    assert secure_mail.mails == [(["ann@shop.example", "bob@shop.example"], BODY)]
    assert secure_mail.logins == 1
    assert delivery == SendResult((ANN, BOB), {}, "250 OK queued as 4711")


@pytest.mark.parametrize("password", ["wrong", "", None])
def test_a_wrong_password_is_tried_again_later_and_is_not_quoted(secure_mail: MailServer, password: str | None) -> None:
    """It can be corrected in its file: the mail waits, and rare attempts do not lock the account."""
    with pytest.raises(RetryableError, match="refused the user name or the password") as caught:
        send(secure_mail.server(password))
    assert caught.value.after is not None
    assert caught.value.after >= 60
    assert "wrong" not in str(caught.value)
    assert secure_mail.mails == []


def test_a_password_that_cannot_be_sent_does_not_show(secure_mail: MailServer) -> None:
    """Neither the error nor its causes quote a non-ASCII password."""
    with pytest.raises(RetryableError, match="ASCII") as caught:
        send(secure_mail.server("sécret-4711"))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "4711" not in str(caught.value)


def test_an_unknown_certificate_is_refused(certificate: Certificate) -> None:
    """Without a trusted authority the password is not sent, and the error gives the remedy."""
    with serving(MailServer(certificate, "starttls", login=True)) as server:
        with pytest.raises(RetryableError, match="not trusted") as caught:
            send(replace(server.server(), tls=ssl.create_default_context()))
        assert "SSL_CERT_FILE" in (caught.value.remedy or "")
        assert server.logins == 0


def test_a_server_that_requires_a_client_certificate(certificate: Certificate) -> None:
    """The port is right, and the remedy does not say otherwise."""
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    strict.load_cert_chain(certificate.certificate, certificate.key)
    strict.load_verify_locations(certificate.certificate)
    strict.verify_mode = ssl.CERT_REQUIRED

    def shake(connection: socket.socket, over: threading.Event) -> None:
        with contextlib.suppress(ssl.SSLError):
            strict.wrap_socket(connection, server_side=True)
        over.wait(1.0)

    trusted = ssl.create_default_context(cafile=certificate.certificate)
    with misbehaving(shake) as port, pytest.raises(RetryableError) as caught:
        send(SmtpServer("localhost", port, "tls", tls=trusted))
    assert "client certificate" in (caught.value.remedy or "")
    assert "email.security" not in (caught.value.remedy or "")


def test_a_server_without_starttls_gets_nothing(mail: MailServer) -> None:
    """Nothing is sent unencrypted if encryption is configured."""
    with pytest.raises(RetryableError, match="STARTTLS"):
        send(replace(mail.server(), security="starttls"))
    assert mail.mails == []


def test_a_server_without_login_is_an_error(mail: MailServer) -> None:
    """A user name that the server does not support is not ignored silently."""
    with pytest.raises(RetryableError, match="AUTH"):
        send(replace(mail.server(), username="monitor"))


def test_a_refused_recipient_does_not_stop_the_others(mail: MailServer) -> None:
    """The others get the mail, which can list the refused recipient, and the refusal is reported."""
    mail.refusals = {"bob@shop.example": "550 5.1.1 no such user", "carl@shop.example": "452 mailbox full"}
    refusals: list[Mapping[str, Refusal]] = []

    def compose(refused: Mapping[str, Refusal]) -> bytes:
        refusals.append(refused)
        return BODY

    delivery = deliver(mail.server(), SENDER, [ANN, BOB, CARL], compose)
    assert mail.mails == [(["ann@shop.example"], BODY)]
    assert delivery.accepted == (ANN,)
    assert {who: (str(r), r.final) for who, r in delivery.refused.items()} == {
        BOB: ("550 5.1.1 no such user", True),
        CARL: ("452 mailbox full", False),
    }
    assert refusals == [delivery.refused]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        (["550 no", "551 no"], RejectedError),
        (["450 greylisted", "550 no"], RetryableError),
        (["450 greylisted", "451 later"], RetryableError),
    ],
)
def test_all_recipients_refused(mail: MailServer, answers: list[str], error: type[DeliveryError]) -> None:
    """It is permanent only if it is for each of them; the error has each answer."""
    mail.refusals = dict(zip(("ann@shop.example", "bob@shop.example"), answers, strict=True))
    with pytest.raises(error) as caught:
        send(mail.server(), ANN, BOB)
    assert type(caught.value) is error
    assert all(answer in str(caught.value) for answer in answers)


@pytest.mark.parametrize(("answer", "error"), [("451 try later", RetryableError), ("552 too big", RejectedError)])
@pytest.mark.parametrize("stage", ["sender", "data"])
def test_4xx_is_tried_again_and_5xx_is_not(
    mail: MailServer, stage: str, answer: str, error: type[DeliveryError]
) -> None:
    """For the sender and for the mail; the next mail to the same server succeeds."""
    getattr(mail, stage).append(answer)
    with pytest.raises(error, match=answer):
        send(mail.server())
    assert mail.mails == []
    send(mail.server())
    assert len(mail.mails) == 1


def test_a_drop_after_the_mail_is_an_unknown_outcome(mail: MailServer) -> None:
    """The server had all of it and may have delivered it: neither accepted nor refused."""
    mail.data.append("drop")
    delivery = send(mail.server(), ANN, BOB)
    assert (delivery.accepted, delivery.unknown) == ((), (ANN, BOB))
    assert "did not respond" in str(delivery.interruption)


def test_a_whole_mail_has_ten_minutes_for_its_answer(mail: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 5321, 4.5.3.2: a server may take long to accept a mail, and giving up causes a duplicate."""
    sockets: list[socket.socket] = []
    waits: dict[str, float] = {}
    create = socket.create_connection

    def connect(address: tuple[str, int], *options: Any, **more: Any) -> socket.socket:
        sockets.append(create(address, *options, **more))
        return sockets[-1]

    monkeypatch.setattr(socket, "create_connection", connect)
    mail.stage = lambda stage: waits.update({stage: sockets[0].gettimeout() or math.inf})
    deliver(mail.server(), SENDER, [ANN], lambda _: BODY)
    assert 540 < waits["DATA"] <= 600  # the server has read the final dot
    assert 240 < waits["RCPT"] <= 300


@pytest.mark.parametrize("speak", [silent, dripping])
@pytest.mark.parametrize("security", ["none", "tls"])
def test_a_stuck_server_costs_no_more_than_the_deadline(
    speak: Callable[[socket.socket, threading.Event], None], security: str
) -> None:
    """Silence, and slow bytes that never cause a read timeout, end at the deadline."""
    with misbehaving(speak) as port:
        server = SmtpServer("127.0.0.1", port, security)  # type: ignore[arg-type]  # the parameters are these literals
        begun = time.monotonic()
        with pytest.raises(RetryableError):
            send(server, deadline=0.5)
        assert time.monotonic() - begun < 16


@pytest.mark.parametrize(
    "answers",
    [
        [b"554 no service\r\n"],
        [b"421 too busy\r\n"],
        [b"220 hello\r\n", b"500 what\r\n", b"500 what\r\n"],
        [b"220 hello\r\n", b"250 mail\r\n", b"421 closing\r\n"],
        [b"\xff\xfe garbage\r\n"],
        [b"220 hello\r\n", b"no number\r\n"],
        [b"220 " + b"x" * 100_000 + b"\r\n"],
    ],
)
def test_what_a_broken_server_says_is_tried_again(answers: list[bytes]) -> None:
    """Problems of the server are not attributed to the mail."""
    with misbehaving(speaking(*answers)) as port, pytest.raises(RetryableError) as caught:
        send(SmtpServer("127.0.0.1", port, "none"), deadline=1.0)
    assert len(str(caught.value)) < 500


def test_a_server_that_hangs_up_or_is_not_there_is_tried_again() -> None:
    """No connection, no name, no greeting: the mail waits."""
    with misbehaving(hanging_up) as port, pytest.raises(RetryableError):
        send(SmtpServer("127.0.0.1", port, "none"))
    with pytest.raises(RetryableError, match=r"127\.0\.0\.1:\d+.*refused"):
        send(SmtpServer("127.0.0.1", free_port(), "starttls"))
    with pytest.raises(RetryableError):
        send(SmtpServer("no.such.host.invalid", 25, "none"))


def test_a_bad_answer_to_quit_changes_nothing() -> None:
    """An accepted mail stays accepted, whatever the answer to QUIT."""
    answers = [b"220 hello\r\n", b"250 mail\r\n", b"250 OK\r\n", b"250 OK\r\n", b"354 go\r\n", b"250 taken\r\n"]
    for farewell in ([b"451 what\r\n"], []):
        with misbehaving(speaking(*answers, *farewell)) as port:
            assert send(SmtpServer("127.0.0.1", port, "none")).reply == "250 taken"


def test_an_answer_is_shown_without_its_controls(mail: MailServer) -> None:
    """Answers of servers are not trusted either."""
    mail.data.append("552 \x1b[31m" + "x" * 450)
    with pytest.raises(RejectedError) as caught:
        send(mail.server())
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_an_address_outside_of_ascii_is_refused_here(mail: MailServer) -> None:
    """It requires an extension that few servers have; the error says so."""
    with pytest.raises(RejectedError, match="ASCII"):
        send(mail.server(), "jürgen@shop.example")
