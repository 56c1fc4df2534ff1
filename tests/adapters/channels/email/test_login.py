"""Servers with various login mechanisms, and the errors if none works."""

import base64
import socket
import ssl
import threading

import pytest

from celery_monitor.adapters.channels.email.session import SmtpServer
from celery_monitor.adapters.channels.email.smtp import deliver
from celery_monitor.errors import RetryableError
from tests.adapters.channels.email.mail_server import PASSWORD, USER
from tests.adapters.channels.email.test_recipients import Talk
from tests.servers.certificate import Certificate
from tests.servers.scripted import misbehaving

PLAIN = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
NAME, SECRET = (base64.b64encode(text.encode()).decode() for text in (USER, PASSWORD))


def send(talk: Talk) -> None:
    """A mail as the only user."""
    with misbehaving(talk.speak) as port:
        server = SmtpServer("127.0.0.1", port, "none", USER, lambda: PASSWORD)
        deliver(server, "m@shop.example", ["ann@shop.example"], lambda _: b"Subject: a\r\n\r\nb\r\n", deadline=30.0)


@pytest.mark.parametrize(
    ("offered", "answers"),
    [
        ("AUTH PLAIN", {f"AUTH PLAIN {PLAIN}": b"235 OK\r\n"}),
        ("auth plain", {f"AUTH PLAIN {PLAIN}": b"235 OK\r\n"}),
        ("AUTH=LOGIN", {f"AUTH LOGIN {NAME}": b"334 UGFzc3dvcmQ6\r\n", SECRET: b"235 OK\r\n"}),
        ("AUTH NTLM XOAUTH2 PLAIN", {f"AUTH PLAIN {PLAIN}": b"235 OK\r\n"}),
        # offers CRAM-MD5, and has no passwords in clear for it
        ("AUTH CRAM-MD5 PLAIN", {"AUTH CRAM": b"535 5.7.8 bad\r\n", f"AUTH PLAIN {PLAIN}": b"235 OK\r\n"}),
        # older than RFC 4954
        ("AUTH PLAIN", {"AUTH PLAIN ": b"501 5.5.2 syntax\r\n", "AUTH PLAIN": b"334 \r\n", PLAIN: b"235 OK\r\n"}),
    ],
)
def test_each_way_to_log_in_with_a_password(offered: str, answers: dict[str, bytes]) -> None:
    """The mail is sent, whatever else the server offers."""
    talk = Talk(answers, offered)
    send(talk)
    assert len(talk.mails) == 1


@pytest.mark.parametrize("encrypted", [False, True])
def test_cram_md5_is_first_only_where_others_send_the_password_in_clear(
    certificate: Certificate, *, encrypted: bool
) -> None:
    """A server that offers it and has no passwords for it counts a refused login each time, and may block us."""
    answers = {"AUTH CRAM": b"535 5.7.8 bad\r\n", f"AUTH PLAIN {PLAIN}": b"235 OK\r\n"}
    talk = Talk(answers, "AUTH CRAM-MD5 LOGIN PLAIN")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)

    def speak(connection: socket.socket, over: threading.Event) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            talk.speak(secure, over)

    with misbehaving(speak if encrypted else talk.speak) as port:
        trusted = ssl.create_default_context(cafile=certificate.certificate)
        server = SmtpServer(
            "127.0.0.1", port, "tls" if encrypted else "none", USER, lambda: PASSWORD, trusted if encrypted else None
        )
        deliver(server, "m@shop.example", ["ann@shop.example"], lambda _: b"Subject: a\r\n\r\nb\r\n", deadline=30.0)
    tried = [line.split()[1] for line in talk.lines if line.startswith("AUTH")]
    assert tried == (["PLAIN"] if encrypted else ["CRAM-MD5", "PLAIN"])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"454 4.7.0 Temporary authentication failure\r\n", "cannot check the login now"),
        (b"421 4.7.0 Too many failed logins\r\n", "cannot check the login now"),
        (b"535 5.7.8 bad\r\n", "refused the user name or the password"),
    ],
)
def test_a_server_that_cannot_check_passwords_now_is_not_told_as_a_wrong_password(answer: bytes, expected: str) -> None:
    """Its answer is kept though it offers another mechanism and disconnects; neither kind is retried soon."""
    talk = Talk({"AUTH": answer}, "AUTH PLAIN LOGIN")
    with pytest.raises(RetryableError, match=expected) as caught:
        send(talk)
    assert answer.decode().strip() in str(caught.value)
    assert (caught.value.after or 0) >= 60
    assert ("password" in (caught.value.remedy or "")) == ("password" in expected)
    logins = [line for line in talk.lines if line.startswith("AUTH")]
    assert len(logins) == (2 if answer.startswith(b"5") else 1)


@pytest.mark.parametrize("then", [b"", b"421 4.7.0 Too many errors\r\n", b"503 5.5.1 authentication disabled\r\n"])
def test_a_refused_login_is_reported_whatever_the_server_says_to_the_next_mechanism(then: bytes) -> None:
    """Not the closed connection. No mail is attempted, and the login is not retried soon."""
    talk = Talk({"AUTH PLAIN": b"535 5.7.8 bad\r\n", "AUTH LOGIN": then}, "AUTH PLAIN LOGIN")
    with pytest.raises(RetryableError, match=r"refused the user name or the password \(535 5\.7\.8 bad\)") as caught:
        send(talk)
    assert (caught.value.after or 0) >= 60
    assert not any(line.startswith("MAIL") for line in talk.lines)


@pytest.mark.parametrize("offered", ["AUTH PLAIN", "AUTH PLAIN LOGIN"])
def test_a_server_that_closes_the_connection_within_its_refusal(offered: str) -> None:
    """It is a refused login like a complete answer, and is not retried soon."""

    def speak(connection: socket.socket, over: threading.Event) -> None:
        del over
        lines = connection.makefile("rb")
        for answer in (b"220 mail.example\r\n", f"250-mail\r\n250 {offered}\r\n".encode(), b"535-5.7.8 bad\r\n535-5.7"):
            connection.sendall(answer)
            if not answer.startswith(b"535"):
                lines.readline()

    with misbehaving(speak) as port:
        server = SmtpServer("127.0.0.1", port, "none", USER, lambda: PASSWORD)
        with pytest.raises(RetryableError, match=r"refused the user name .* \(535 5\.7\.8") as caught:
            deliver(server, "m@shop.example", ["ann@shop.example"], lambda _: b"Subject: a\r\n\r\nb\r\n", deadline=30.0)
    assert (caught.value.after or 0) >= 60


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        ("AUTH XOAUTH2 GSSAPI", "only XOAUTH2 GSSAPI.*user name and a password"),
        ("STARTTLS", "AUTH.*set email.security to starttls"),
        ("HELP", "AUTH.*submission port"),
    ],
)
def test_a_server_without_a_way_to_log_in(offered: str, expected: str) -> None:
    """The error lists the offered mechanisms and the remedy."""
    talk = Talk({}, offered)
    with pytest.raises(RetryableError, match=expected) as caught:
        send(talk)
    assert caught.value.remedy is not None
    assert talk.mails == []


@pytest.mark.parametrize(
    ("answers", "remedy"),
    [
        ({"MAIL": b"530 5.7.0 Must issue a STARTTLS command first\r\n"}, "email.security"),
        ({"AUTH": b"538 5.7.11 Encryption required\r\n"}, "email.security"),
    ],
)
def test_a_server_that_wants_tls_first(answers: dict[str, bytes], remedy: str) -> None:
    """The remedy names the setting."""
    if "MAIL" in answers:
        answers[f"AUTH PLAIN {PLAIN}"] = b"235 OK\r\n"
    with pytest.raises(RetryableError) as caught:
        send(Talk(answers, "AUTH PLAIN"))
    assert remedy in (caught.value.remedy or "")
