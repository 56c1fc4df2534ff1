"""One mail over SMTP to many recipients, and what became of it for each of them.

What the server's answers mean is in `answers`. What it does not say at all, after it was given the whole mail, is
unknown: it may have been delivered.
"""

import re
import smtplib
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from celery_monitor.adapters.channels.email.answers import (
    NotAuthorizedError,
    Refusal,
    concerning_client,
    is_positive,
    quote,
    refusal_of,
    smtp_errors,
)
from celery_monitor.adapters.channels.email.login import AFTER_LOGIN
from celery_monitor.adapters.channels.email.session import (
    SmtpServer,
    SmtpSession,
    Timeouts,
    UnansweredError,
    connected,
)
from celery_monitor.adapters.channels.email.text import shorten
from celery_monitor.errors import DeliveryError, RejectedError, RetryableError
from celery_monitor.settings import email_address
from celery_monitor.settings.email_address import EmailAddress

BATCH: Final = 50
"""Recipients of one transaction: many servers take no more than 50 or 100 (RFC 5321, 4.5.3.1.8, asks them for 100)."""

_NO_ADDRESS: Final = 553
_CLOSING: Final = 421
_TOO_MANY: Final = re.compile(rb"\b[45]\.5\.3\b|too many (?:recipients|rcpt)", re.IGNORECASE)
_HOST: Final = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+\.?\Z")

Compose = Callable[[Mapping[str, Refusal]], bytes]
"""Makes the mail, knowing who was refused: the others may be told."""


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
        with smtp_errors(server, conversation.hello):
            conversation.hold(compose, international or compose, Timeouts().within(deadline))
    except DeliveryError as exc:
        interruption = exc
    return conversation.outcome(interruption)


def check_reachable(server: SmtpServer, *, deadline: float | None = None) -> bool:
    """Connect, encrypt and log in as for a mail, and send none. Whether it has SMTPUTF8. Raises RetryableError."""
    hello = server.hello or hello_of(None)
    with smtp_errors(server, hello), connected(server, hello, Timeouts().within(deadline)) as session:
        return bool(session.has_extn("smtputf8"))


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
            if not is_positive(code):
                raise refusal_of(f"the sender {self._sender.address}", code, answer, self._server, of_client=True)
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
            if is_positive(code):
                accepted.append(recipient)
            elif code == _CLOSING:
                raise smtplib.SMTPResponseException(code, answer)
            elif accepted and _TOO_MANY.search(answer):
                break
            elif (error := concerning_client(code, answer, self._server)) is not None:
                raise error
            else:
                self._refused[recipient] = Refusal.of(code, answer)
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
        if is_positive(code):
            self._taken += accepted
            self._reply = quote(code, answer)
        self._settle()
        if not is_positive(code):
            raise refusal_of("the mail", code, answer, self._server)

    def _settle(self) -> None:
        self._journal.settle(self._taken, self._refused, self._unknown)

    def outcome(self, interruption: DeliveryError | None) -> SendResult:
        """What became of it. Raises when nobody has it, and surely not."""
        if self._taken or self._unknown:
            return SendResult(tuple(self._taken), self._refused, self._reply, self._unknown, interruption)
        if interruption is not None:
            raise interruption
        answer = "; ".join(f"{recipient}: {refusal}" for recipient, refusal in self._refused.items())
        if any(refusal.concerns_client for refusal in self._refused.values()):
            raise NotAuthorizedError(f"no recipient was accepted: {answer}")
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
