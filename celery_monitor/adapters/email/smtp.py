"""One mail over SMTP, within a time, and what the server said of each recipient.

What concerns the server or the account (unreachable, no TLS, a wrong password) is a RetryableError: a person repairs
it, and the mail is not lost meanwhile. What the server says of this mail or of its addresses is final when it is a
5xx.
"""

import base64
import io
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parseaddr
from typing import Any, Final, Literal

from celery_monitor.adapters.email.text import shorten
from celery_monitor.errors import DeliveryError, RejectedError, RetryableError
from celery_monitor.network import Fault, fault_of, remedy, told
from celery_monitor.network import Server as Wording

TIMEOUT: Final = 20.0
"""Seconds for one answer."""
DEADLINE: Final = 60.0
"""Seconds for all of it, so that a server that drips bytes holds nothing."""
AFTER_LOGIN: Final = 300.0
"""Seconds between two attempts to log in with what was refused: providers lock accounts that are tried too often."""
_FAREWELL: Final = 2.0
_OK: Final = 250
_FORWARDED: Final = 251
_FINAL: Final = 500
_REPLY_WIDTH: Final = 200
_MOST_READ: Final = 1_048_576
"""Bytes of all answers together: smtplib keeps an answer of many lines until its last one comes."""
_PASSWORD: Final = b"[password]"
_WORDING: Final = Wording(
    address="email.host and email.port",
    protocol="email.security must be what the port speaks: usually starttls on 587, tls on 465, none on 25",
    trust="email.host must be the name in the certificate; SSL_CERT_FILE names other authorities",
)


@dataclass(frozen=True, slots=True)
class Server:
    """How the server is reached. ``password`` is asked at each login."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    username: str | None = None
    password: Callable[[], str | None] = lambda: None
    tls: ssl.SSLContext | None = None
    """None: the system's certificate authorities (or SSL_CERT_FILE), with the host's name checked."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The server's answer to one recipient."""

    code: int
    text: str

    @property
    def final(self) -> bool:
        """Trying again is of no use."""
        return self.code >= _FINAL

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """The server has the mail for ``taken`` (at least one) and answered ``reply``."""

    taken: tuple[str, ...]
    refused: Mapping[str, Refusal]
    reply: str


def deliver(
    server: Server,
    sender: str,
    recipients: Sequence[str],
    compose: Callable[[Mapping[str, Refusal]], bytes],
    *,
    deadline: float = DEADLINE,
) -> Delivery:
    """Send one mail to all recipients that the server takes.

    Args:
        server: Where to.
        sender: An address, with or without a name, as are the recipients.
        recipients: At least one.
        compose: Makes the mail, with CRLF, knowing who was refused: the others may be told.
        deadline: Seconds for all of it.

    Raises:
        RetryableError: Nobody has it (or nobody knows: the connection broke after the last byte).
        RejectedError: Nobody has it, and nobody will.
    """
    with _told(server):
        envelope = {recipient: _address(recipient) for recipient in recipients}
        with _session(server, time.monotonic() + deadline) as session:
            return _transaction(session, _address(sender), envelope, compose)


def reach(server: Server, *, deadline: float = DEADLINE) -> None:
    """Connect, encrypt and log in as for a mail, and send none. Raises RetryableError."""
    with _told(server), _session(server, time.monotonic() + deadline):
        pass


@contextmanager
def _told(server: Server) -> Iterator[None]:
    """What went wrong, in words: RetryableError, but for what is final."""
    try:
        yield
    except smtplib.SMTPAuthenticationError as exc:
        raise RetryableError(
            f"{server} refused the user name or the password ({_said(exc.smtp_code, exc.smtp_error)})",
            AFTER_LOGIN,
            remedy="check email.username and email.password, and whether the provider wants a password for programs",
        ) from exc
    except smtplib.SMTPDataError as exc:
        raise _refusal("the mail", exc.smtp_code, exc.smtp_error) from exc
    except smtplib.SMTPResponseException as exc:
        raise RetryableError(f"{server} answered {_said(exc.smtp_code, exc.smtp_error)}") from exc
    except ssl.SSLCertVerificationError as exc:
        raise RetryableError(
            f"the certificate of {server} is not trusted ({exc.verify_message})",
            remedy=remedy(Fault.CERTIFICATE, _WORDING),
        ) from exc
    except (OSError, smtplib.SMTPException) as exc:
        # Every SMTPException is an OSError; the other order hides nothing and reads as what it is.
        text = shorten(told(exc) or str(exc), _REPLY_WIDTH) or type(exc).__name__
        raise RetryableError(f"{server}: {text}", remedy=remedy(_fault(exc), _WORDING)) from exc
    except ValueError as exc:
        # smtplib's of an answer that it cannot decode, and of what it cannot send: they may quote the password.
        raise RetryableError(f"{server}: {type(exc).__name__}") from None


def _fault(exc: BaseException) -> Fault:
    if isinstance(exc, smtplib.SMTPNotSupportedError):
        return Fault.TLS
    return fault_of(exc) or Fault.CLOSED


def _transaction(
    session: smtplib.SMTP,
    sender: str,
    envelope: Mapping[str, str],
    compose: Callable[[Mapping[str, Refusal]], bytes],
) -> Delivery:
    code, reply = session.mail(sender)
    if code != _OK:
        raise _refusal(f"the sender {sender}", code, reply)
    refused = {}
    for recipient, address in envelope.items():
        code, reply = session.rcpt(address)
        if code not in {_OK, _FORWARDED}:
            refused[recipient] = Refusal(code, _text(reply))
    taken = tuple(recipient for recipient in envelope if recipient not in refused)
    if not taken:
        said = "; ".join(f"{recipient}: {refusal}" for recipient, refusal in refused.items())
        if all(refusal.final for refusal in refused.values()):
            raise RejectedError(f"every recipient was refused: {said}")
        raise RetryableError(f"no recipient was accepted: {said}")
    code, reply = session.data(compose(refused))
    if code != _OK:
        raise _refusal("the mail", code, reply)
    return Delivery(taken, refused, _said(code, reply))


@contextmanager
def _session(server: Server, deadline: float) -> Iterator["_Timed"]:
    """Connected, encrypted and logged in as configured; closed in any case."""
    _check_name(server.host)
    tls = server.tls or (ssl.create_default_context() if server.security != "none" else None)
    password = server.password() or "" if server.username is not None else ""
    hidden = _forms(server.username or "", password)
    if server.security == "tls":
        session: _Timed = _Encrypted(server, deadline, hidden, context=tls)
    else:
        session = _Plain(server, deadline, hidden)
    try:
        if server.security == "starttls":
            session.starttls(context=tls)
        session.ehlo_or_helo_if_needed()
        if server.username is not None:
            _log_in(session, server.username, password)
        yield session
    finally:
        # The answer to QUIT changes nothing: the mail is with the server, or it is not.
        session.limit(time.monotonic() + _FAREWELL)
        with suppress(OSError, ValueError):
            session.quit()
        session.close()


def _check_name(host: str) -> None:
    try:
        host.encode("idna")
    except UnicodeError:
        raise RetryableError(f"{shorten(host)} is not a host's name: a part of it is empty or too long") from None


def _log_in(session: "_Timed", username: str, password: str) -> None:
    try:
        session.login(username, password)
    except UnicodeError:
        # Without its cause, which quotes the password.
        raise RetryableError("user name and password can only be sent in ASCII", AFTER_LOGIN) from None


class _Timed(smtplib.SMTP):
    """smtplib's own timeout is for each read; this one holds for all of them together.

    smtplib reads by a buffered file and writes by ``send``: both get what is left of the time before each operation.
    """

    def __init__(
        self,
        server: Server,
        deadline: float,
        hidden: Sequence[bytes],
        **options: Any,  # noqa: ANN401  # SMTP_SSL's context
    ) -> None:
        """``hidden`` is taken out of what the server says: some repeat what they refuse, and that is shown."""
        self._deadline = deadline
        self._hidden = hidden
        name = socket.gethostname()
        # Without a name smtplib asks the resolver for one, for as long as the resolver likes.
        hello = name if "." in name else "[127.0.0.1]"
        super().__init__(server.host, server.port, local_hostname=hello, timeout=self._left(), **options)

    def limit(self, deadline: float) -> None:
        """Bring the end forward, monotonic seconds."""
        self._deadline = min(self._deadline, deadline)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out: the whole conversation took too long")
        return min(TIMEOUT, left)

    def send(self, s: Any) -> None:  # noqa: ANN401  # smtplib's signature
        """As smtplib's, within what is left."""
        if self.sock is not None:
            self.sock.settimeout(self._left())
        super().send(s)

    def getreply(self) -> tuple[int, bytes]:
        """As smtplib's, within what is left."""
        if self.file is None and self.sock is not None:
            self.file = io.BufferedReader(_Reader(self.sock, self._left))
        code, said = super().getreply()
        for secret in self._hidden:
            said = said.replace(secret, _PASSWORD)
        return code, said


class _Plain(_Timed):
    pass


class _Encrypted(_Timed, smtplib.SMTP_SSL):
    pass


class _Reader(io.RawIOBase):
    """A socket's bytes, each read within ``left()`` seconds."""

    def __init__(self, sock: socket.socket, left: Callable[[], float]) -> None:
        self._sock = sock
        self._left = left
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # any writable buffer
        self._sock.settimeout(self._left())
        read = self._sock.recv_into(buffer)
        self._read += read
        if self._read > _MOST_READ:
            raise OSError("the server says more than an answer can be")
        return read


def _forms(username: str, password: str) -> list[bytes]:
    """A password as it is sent."""
    if not password:
        return []
    plain = password.encode()
    return [plain, base64.b64encode(plain), base64.b64encode(f"\0{username}\0".encode() + plain)]


def _address(mailbox: str) -> str:
    address = parseaddr(mailbox)[1]
    if not address.isascii() or any(char.isspace() for char in address):
        raise RejectedError(f"{shorten(mailbox)} cannot be written to: only ASCII addresses are supported")
    return address


def _refusal(what: str, code: int, reply: bytes | str) -> DeliveryError:
    kind = RejectedError if code >= _FINAL else RetryableError
    return kind(f"{what} was refused: {_said(code, reply)}")


def _said(code: int, reply: bytes | str) -> str:
    return f"{code} {_text(reply)}"


def _text(reply: bytes | str) -> str:
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
    return shorten(" ".join(text.split()), _REPLY_WIDTH)
