"""Real SMTP servers on 127.0.0.1: one with scripted answers, and ones that violate the protocol."""

import socket
import ssl
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import TYPE_CHECKING, Any, Literal, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from celery_monitor.adapters.channels.email.session import SmtpServer
from tests.servers.certificate import Certificate
from tests.servers.ports import free_port

if TYPE_CHECKING:
    import asyncio

USER, PASSWORD = "monitor", "pa55word"


@dataclass
class MailServer:
    """Keeps accepted mails; the deques contain answers that are given once each, instead of a positive one."""

    certificate: Certificate | None = None
    security: Literal["starttls", "tls", "none"] = "none"
    login: bool = False
    port: int = field(default_factory=free_port)
    mails: list[tuple[list[str], bytes]] = field(default_factory=list)
    """(recipients, content) of each mail that was taken."""
    refusals: dict[str, str] = field(default_factory=dict)
    """Address → answer to it, as long as it is here."""
    sender: deque[str] = field(default_factory=deque)
    data: deque[str] = field(default_factory=deque)
    """Answers to the next mails; "drop" cuts the connection after the mail was read."""
    logins: int = 0
    stage: Callable[[str], None] = lambda _: None
    """Called with MAIL, RCPT and DATA before each is answered."""

    def server(self, password: str | None = PASSWORD, user: str | None = USER) -> SmtpServer:
        """The address and login for a client."""
        trusted = ssl.create_default_context(cafile=self.certificate.certificate) if self.certificate else None
        return SmtpServer(
            "127.0.0.1", self.port, self.security, user if self.login else None, lambda: password, trusted
        )

    def message(self, index: int = -1) -> EmailMessage:
        """An accepted mail."""
        return message_from_bytes(self.mails[index][1], policy=default)

    # --- what aiosmtpd calls ---
    async def handle_MAIL(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, mail_options: list[str]
    ) -> str:
        self.stage("MAIL")
        if self.sender:
            return self.sender.popleft()
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> str:
        self.stage("RCPT")
        if address in self.refusals:
            return self.refusals[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's name
        self.stage("DATA")
        answer = self.data.popleft() if self.data else "250 OK queued as 4711"
        if answer == "drop":
            cast("asyncio.Transport", server.transport).abort()
        elif answer.startswith("250"):
            self.mails.append((list(envelope.rcpt_tos), cast("bytes", envelope.original_content)))
        return answer

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        """Accept the only user."""
        assert isinstance(data, LoginPassword)
        good = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        self.logins += good
        return AuthResult(success=good, handled=False)

    def run(self) -> Controller:
        """Start serving, in a thread."""
        controller = _Controller(self, hostname="127.0.0.1", port=self.port, ready_timeout=60.0)
        controller.start()
        return controller

    def smtp_options(self) -> dict[str, Any]:
        """Options for aiosmtpd's SMTP."""
        options: dict[str, Any] = {"hostname": "mail.example"}
        if self.security == "starttls":
            options |= {"tls_context": self._tls(), "require_starttls": True}
        if self.login:
            # TLS from the first byte is below aiosmtpd, which takes it for clear text.
            encrypted = self.security == "starttls"
            options |= {"authenticator": self.authenticate, "auth_required": True, "auth_require_tls": encrypted}
        return options

    def tls(self) -> ssl.SSLContext | None:
        """For a server that uses TLS from the first byte."""
        return self._tls() if self.security == "tls" else None

    def _tls(self) -> ssl.SSLContext:
        assert self.certificate is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate.certificate, self.certificate.key)
        return context


class _Controller(Controller):
    def __init__(self, server: MailServer, **options: Any) -> None:
        super().__init__(server, ssl_context=server.tls(), **options)

    def factory(self) -> SMTP:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Requiring AUTH while not requiring TLS")
            return SMTP(self.handler, **self.handler.smtp_options())


@contextmanager
def serving(server: MailServer) -> Iterator[MailServer]:
    """Run the server during the block."""
    controller = server.run()
    try:
        yield server
    finally:
        controller.stop()


def silent(connection: socket.socket, over: threading.Event) -> None:
    """Accept and send nothing."""
    over.wait()


def dripping(connection: socket.socket, over: threading.Event) -> None:
    """An endless greeting, a byte at a time."""
    while not over.wait(0.02):
        connection.sendall(b"2")


def hanging_up(connection: socket.socket, over: threading.Event) -> None:
    """Close immediately."""


def speaking(*answers: bytes) -> Callable[[socket.socket, threading.Event], None]:
    """Send answers in turn, the first unasked; then nothing."""

    def speak(connection: socket.socket, over: threading.Event) -> None:
        for answer in answers:
            connection.sendall(answer)
            connection.recv(65_536)
        over.wait()

    return speak
