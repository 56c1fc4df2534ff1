"""One mail over SMTP to many recipients, and what became of it for each of them.

What concerns the server, the account, or this client (unreachable, no TLS, a wrong password, a name that the server
does not like) is a RetryableError: a person repairs it, and the mail is not lost meanwhile. What the server says of
this mail or of its addresses is final when it is a 5xx. What it does not say at all, after it was given the whole
mail, is unknown: it may have been delivered.
"""

import re
import smtplib
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from celery_monitor.adapters.channels.email.session import (
    AFTER_LOGIN,
    HelloRefusedError,
    SmtpServer,
    SmtpSession,
    Timeouts,
    UnansweredError,
    connected,
)
from celery_monitor.adapters.channels.email.text import shorten
from celery_monitor.errors import DeliveryError, MonitorError, RejectedError, RetryableError
from celery_monitor.network import Fault, ServerTerms, explain, fault_of, remedy
from celery_monitor.settings import email_address
from celery_monitor.settings.email_address import EmailAddress

BATCH: Final = 50
"""Recipients of one transaction: many servers take no more than 50 or 100 (RFC 5321, 4.5.3.1.8, asks them for 100)."""
HELLO_REMEDY: Final = "set email.hello to this machine's fully qualified domain name, such as monitor.example.com"

_REPLY_WIDTH: Final = 200
_NO_ADDRESS: Final = 553
_CLOSING: Final = 421
_REPAIRED_BY_A_PERSON: Final = frozenset({500, 502, 503, 504, 530, 534, 535, 538})
"""Answers to MAIL, RCPT and DATA that concern how this client speaks or logs in, and not what it sends."""
_HELLO: Final = re.compile(rb"\b(?:helo|ehlo)\b", re.IGNORECASE)
_TOO_MANY: Final = re.compile(rb"\b[45]\.5\.3\b|too many (?:recipients|rcpt)", re.IGNORECASE)
_HOST: Final = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+\.?\Z")
_WORDING: Final = ServerTerms(
    address="email.host and email.port",
    protocol="email.security must match the port: usually starttls on 587, tls on 465, none on 25",
    trust="email.host must match the certificate; set SSL_CERT_FILE to trust another certificate authority",
)

Compose = Callable[[Mapping[str, "Refusal"]], bytes]
"""Makes the mail, knowing who was refused: the others may be told."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The server's answer to one recipient."""

    code: int
    text: str

    @property
    def final(self) -> bool:
        """Trying again is of no use."""
        return _is_final(self.code)

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


@dataclass(frozen=True, slots=True)
class SendResult:
    """The server has the mail for ``accepted`` and answered ``reply``; it may have it for ``unknown``."""

    accepted: tuple[str, ...]
    refused: Mapping[str, Refusal]
    reply: str
    unknown: tuple[str, ...] = ()
    interruption: DeliveryError | None = None
    """Why those who stand nowhere do not have it yet."""


class Journal:
    """Told of each step, in time to be remembered through a crash. This one remembers nothing."""

    def claim(self, recipients: Sequence[str]) -> None:
        """The whole mail goes out now for these: what becomes of it is unknown until ``settle``."""

    def settle(self, accepted: Sequence[str], refused: Mapping[str, Refusal], unknown: Sequence[str]) -> None:
        """What is known now. Who was claimed and is not in ``unknown`` or ``accepted`` has surely not got it."""


def deliver(
    server: SmtpServer,
    sender: str,
    recipients: Sequence[str],
    compose: Compose,
    *,
    international: Compose | None = None,
    journal: Journal | None = None,
    deadline: float | None = None,
) -> SendResult:
    """Send one mail to all recipients that the server takes, in as many transactions as it needs.

    Args:
        server: Where to.
        sender: An address, with or without a name, as are the recipients.
        recipients: At least one.
        compose: Makes the mail.
        international: Makes it for those whose addresses need SMTPUTF8.
        journal: Is told of each step.
        deadline: Seconds for all of it; None for what RFC 5321 asks for.

    Raises:
        RetryableError: Nobody has it.
        RejectedError: Nobody has it, and nobody will.
    """
    conversation = _Conversation(server, sender, recipients, journal or Journal())
    interruption = None
    try:
        with _smtp_errors(server, conversation.hello):
            conversation.hold(compose, international or compose, Timeouts().within(deadline))
    except DeliveryError as exc:
        interruption = exc
    return conversation.outcome(interruption)


def check_reachable(server: SmtpServer, *, deadline: float | None = None) -> bool:
    """Connect, encrypt and log in as for a mail, and send none. Whether it has SMTPUTF8. Raises RetryableError."""
    hello = server.hello or hello_of(None)
    with _smtp_errors(server, hello), connected(server, hello, Timeouts().within(deadline)) as session:
        return bool(session.has_extn("smtputf8"))


@contextmanager
def _smtp_errors(server: SmtpServer, hello: str) -> Iterator[None]:
    """The boundary: whatever smtplib, TLS, the resolver or a server raises becomes a DeliveryError here."""
    try:
        yield
    except MonitorError:
        raise
    except HelloRefusedError as exc:
        raise RetryableError(
            f"{server} refused the EHLO name {hello}: {_response(exc.code, exc.answer)}; {HELLO_REMEDY}",
            AFTER_LOGIN,
            remedy=HELLO_REMEDY,
        ) from exc
    except smtplib.SMTPAuthenticationError as exc:
        raise RetryableError(
            f"{server} refused the user name or the password ({_response(exc.smtp_code, exc.smtp_error)})",
            AFTER_LOGIN,
            remedy="check email.username and email.password, and whether the provider requires an app password",
        ) from exc
    except smtplib.SMTPDataError as exc:
        raise _refusal("the mail", exc.smtp_code, exc.smtp_error, server) from exc
    except smtplib.SMTPConnectError as exc:
        raise RetryableError(
            f"{server} refused the session: {_response(exc.smtp_code, exc.smtp_error)}",
            AFTER_LOGIN,
            remedy="see its response for the reason: it may be overloaded or block this machine's address; or "
            f"{HELLO_REMEDY}",
        ) from exc
    except smtplib.SMTPResponseException as exc:
        raise RetryableError(f"{server} answered {_response(exc.smtp_code, exc.smtp_error)}") from exc
    except ssl.SSLCertVerificationError as exc:
        raise RetryableError(
            f"the certificate of {server} is not trusted ({exc.verify_message})",
            remedy=remedy(Fault.CERTIFICATE, _WORDING),
        ) from exc
    except OSError as exc:
        # Every SMTPException is one.
        text = shorten(explain(exc) or str(exc), _REPLY_WIDTH) or type(exc).__name__
        raise RetryableError(f"{server}: {text}", remedy=remedy(_fault(exc), _WORDING)) from exc
    except Exception as exc:  # noqa: BLE001 - the boundary: a server can make smtplib raise anything
        # Without its text and its cause, which may quote the password.
        raise RetryableError(f"{server}: {type(exc).__name__}") from None


def _fault(exc: BaseException) -> Fault:
    if isinstance(exc, smtplib.SMTPNotSupportedError):
        return Fault.TLS
    return fault_of(exc) or Fault.CLOSED


class _Conversation:
    """One session with its transactions, and what is known after each."""

    def __init__(self, server: SmtpServer, sender: str, recipients: Sequence[str], journal: Journal) -> None:
        try:
            self._sender = email_address.parse(sender)
        except ValueError as exc:
            raise RejectedError(f"the sender {shorten(sender)} cannot be used: it {exc}") from None
        self._server, self._journal = server, journal
        self._taken: list[str] = []
        self._refused: dict[str, Refusal] = {}
        self._unknown: tuple[str, ...] = ()
        self._reply = ""
        self._recipients: dict[str, EmailAddress] = {}
        self.hello = server.hello or hello_of(self._sender)
        for recipient in recipients:
            try:
                self._recipients[recipient] = email_address.parse(recipient)
            except ValueError as exc:
                self._refused[recipient] = Refusal(_NO_ADDRESS, f"not sent: it {exc}")

    def hold(self, compose: Compose, international: Compose, timeouts: Timeouts) -> None:
        """Send what can be sent."""
        if not self._recipients:
            return
        plain = [
            recipient
            for recipient, box in self._recipients.items()
            if not (box.international or self._sender.international)
        ]
        rest = [recipient for recipient in self._recipients if recipient not in plain]
        with connected(self._server, self.hello, timeouts) as session:
            if rest and not session.has_extn("smtputf8"):
                rest = self._without_extension(rest)
            self._send(session, plain, compose, "")
            if rest:
                session.command_encoding = "utf-8"
                self._send(session, rest, international, " BODY=8BITMIME SMTPUTF8")

    def _without_extension(self, rest: Sequence[str]) -> list[str]:
        if self._sender.international:
            raise RetryableError(
                f"{self._server} accepts only ASCII addresses (no SMTPUTF8): use an ASCII address in email.from",
                AFTER_LOGIN,
            )
        answer = f"not sent: {self._server} accepts only ASCII before the @ (no SMTPUTF8)"
        self._refused |= {recipient: Refusal(_NO_ADDRESS, answer) for recipient in rest}
        return []

    def _send(self, session: SmtpSession, recipients: Sequence[str], compose: Compose, options: str) -> None:
        waiting = deque(recipients)
        while waiting:
            code, answer = session.docmd("MAIL", f"FROM:<{self._sender.address}>{options}")
            if not _is_positive(code):
                raise _refusal(f"the sender {self._sender.address}", code, answer, self._server)
            accepted = self._address(session, waiting)
            if accepted:
                self._transfer(session, accepted, compose(self._refused))
            elif waiting:
                session.rset()

    def _address(self, session: SmtpSession, waiting: deque[str]) -> list[str]:
        """RCPT for some who wait; those of this transaction. Who is too many for it waits for the next one."""
        accepted: list[str] = []
        sent_count = 0
        while waiting and sent_count < BATCH:
            recipient = waiting[0]
            code, answer = session.docmd("RCPT", f"TO:<{self._recipients[recipient].address}>")
            sent_count += 1
            if _is_positive(code):
                accepted.append(recipient)
            elif code == _CLOSING:
                raise smtplib.SMTPResponseException(code, answer)
            elif accepted and _TOO_MANY.search(answer):
                break
            elif (error := _concerning_client(code, answer, self._server)) is not None:
                raise error
            else:
                self._refused[recipient] = Refusal(code, _text(answer))
            waiting.popleft()
        return accepted

    def _transfer(self, session: SmtpSession, accepted: list[str], content: bytes) -> None:
        try:
            code, answer = session.transfer(content, lambda: self._journal.claim(accepted))
        except UnansweredError:
            self._unknown = tuple(accepted)
            self._settle()
            raise RetryableError(f"{self._server} received the whole mail and did not respond") from None
        except Exception:
            self._settle()  # the claim is void; what is no Exception ends the process, and leaves it
            raise
        if _is_positive(code):
            self._taken += accepted
            self._reply = _response(code, answer)
        self._settle()
        if not _is_positive(code):
            raise _refusal("the mail", code, answer, self._server)

    def _settle(self) -> None:
        self._journal.settle(self._taken, self._refused, self._unknown)

    def outcome(self, interruption: DeliveryError | None) -> SendResult:
        """What became of it. Raises when nobody has it, and surely not."""
        if self._taken or self._unknown:
            return SendResult(tuple(self._taken), self._refused, self._reply, self._unknown, interruption)
        if interruption is not None:
            raise interruption
        answer = "; ".join(f"{recipient}: {refusal}" for recipient, refusal in self._refused.items())
        if all(refusal.final for refusal in self._refused.values()):
            raise RejectedError(f"every recipient was refused: {answer}")
        raise RetryableError(f"no recipient was accepted: {answer}")


def hello_of(sender: EmailAddress | None) -> str:
    """The name that a client gives by default.

    Servers refuse one without a dot, and ``[127.0.0.1]``: in place of such a host's name the sender's domain is one
    that they know.
    """
    name = socket.gethostname()
    if _HOST.match(name):
        return name
    return sender.domain if sender is not None else "[127.0.0.1]"


def _concerning_client(code: int, answer: bytes, server: SmtpServer) -> DeliveryError | None:
    """The error where an answer speaks of how this client speaks, whatever it was an answer to."""
    if 400 <= code < 600 and _HELLO.search(answer):  # noqa: PLR2004 - RFC 5321, 4.2.1
        text = f"{server} refused the EHLO name: {_response(code, answer)}; {HELLO_REMEDY}"
        return RetryableError(text, AFTER_LOGIN, remedy=HELLO_REMEDY)
    if code in _REPAIRED_BY_A_PERSON:
        return RetryableError(f"{server} answered {_response(code, answer)}", AFTER_LOGIN)
    if not 400 <= code < 600:  # noqa: PLR2004 - as above
        return RetryableError(f"{server} answered {_response(code, answer)}, which is not a valid SMTP response")
    return None


def _refusal(action: str, code: int, reply: bytes | str, server: SmtpServer) -> DeliveryError:
    answer = reply if isinstance(reply, bytes) else reply.encode("utf-8", "replace")
    if (error := _concerning_client(code, answer, server)) is not None:
        return error
    kind = RejectedError if _is_final(code) else RetryableError
    return kind(f"{action} was refused: {_response(code, reply)}")


def _is_positive(code: int) -> bool:
    return 200 <= code < 300  # noqa: PLR2004 - RFC 5321, 4.2.1


def _is_final(code: int) -> bool:
    return 500 <= code < 600  # noqa: PLR2004 - RFC 5321, 4.2.1


def _response(code: int, reply: bytes | str) -> str:
    return f"{code} {_text(reply)}"


def _text(reply: bytes | str) -> str:
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
    return shorten(" ".join(text.split()), _REPLY_WIDTH)
