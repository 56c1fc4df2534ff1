"""Sends one mail over SMTP to many recipients and reports the outcome for each.

`answers` interprets the server's answers. If the server does not answer after it received the whole mail, the outcome
is unknown: the mail may have been delivered.
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
"""Recipients per transaction: many servers accept no more than 50 or 100 (RFC 5321, 4.5.3.1.8, requires 100)."""

_NO_ADDRESS: Final = 553
_CLOSING: Final = 421
_TOO_MANY: Final = re.compile(rb"\b[45]\.5\.3\b|too many (?:recipients|rcpt)", re.IGNORECASE)
_HOST: Final = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+\.?\Z")

Compose = Callable[[Mapping[str, Refusal]], bytes]
"""Composes the mail, given the refused recipients, so that the mail can list them."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """The server has the mail for ``accepted`` and answered ``reply``; it may have it for ``unknown``."""

    accepted: tuple[str, ...]
    refused: Mapping[str, Refusal]
    reply: str
    unknown: tuple[str, ...] = ()
    interruption: DeliveryError | None = None
    """Why the recipients that are listed nowhere do not have it yet."""


class Journal:
    """Records each step early enough to survive a crash. This base class records nothing."""

    def claim(self, recipients: Sequence[str]) -> None:
        """Called before the whole mail is sent to these recipients. The outcome is unknown until ``settle``."""

    def settle(self, accepted: Sequence[str], refused: Mapping[str, Refusal], unknown: Sequence[str]) -> None:
        """Record the outcome. Claimed recipients outside of ``unknown`` and ``accepted`` certainly did not get it."""


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
    """Send one mail to all recipients that the server accepts, in as many transactions as needed.

    Args:
        server: The server to send through.
        sender: An address, with or without a name, as are the recipients.
        recipients: At least one.
        compose: Composes the mail.
        international: Composes the mail for recipients whose addresses need SMTPUTF8.
        journal: Records each step.
        deadline: Maximum duration in seconds; None for the timeouts of RFC 5321.

    Raises:
        RetryableError: No recipient has it.
        RejectedError: No recipient has it, and retrying is useless.
    """
    conversation = _Conversation(server, sender, recipients, journal or Journal())
    interruption = None
    try:
        with smtp_errors(server, conversation.hello):
            conversation.send_all(compose, international or compose, Timeouts().within(deadline))
    except DeliveryError as exc:
        interruption = exc
    return conversation.outcome(interruption)


def check_reachable(server: SmtpServer, *, deadline: float | None = None) -> bool:
    """Connect, encrypt and log in without sending a mail. Returns whether it has SMTPUTF8. Raises RetryableError."""
    hello = server.hello or hello_of(None)
    with smtp_errors(server, hello), connected(server, hello, Timeouts().within(deadline)) as session:
        return bool(session.has_extn("smtputf8"))


class _Conversation:
    """One session with its transactions and their outcome."""

    def __init__(self, server: SmtpServer, sender: str, recipients: Sequence[str], journal: Journal) -> None:
        try:
            self._sender = email_address.parse(sender)
        except ValueError as exc:
            raise RejectedError(f"the sender {shorten(sender)} cannot be used: it {exc}") from None
        self._server, self._journal = server, journal
        self._accepted: list[str] = []
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

    def send_all(self, compose: Compose, international: Compose, timeouts: Timeouts) -> None:
        """Send the mail to all recipients with usable addresses."""
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
        """Send RCPT for some of the waiting recipients and return the accepted ones.

        Recipients that exceed the server's limit wait for the next transaction.
        """
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
            self._settle()  # clear the claim; a BaseException ends the process and leaves the claim
            raise
        if is_positive(code):
            self._accepted += accepted
            self._reply = quote(code, answer)
        self._settle()
        if not is_positive(code):
            raise refusal_of("the mail", code, answer, self._server)

    def _settle(self) -> None:
        self._journal.settle(self._accepted, self._refused, self._unknown)

    def outcome(self, interruption: DeliveryError | None) -> SendResult:
        """The outcome. Raises if certainly no recipient has the mail."""
        if self._accepted or self._unknown:
            return SendResult(tuple(self._accepted), self._refused, self._reply, self._unknown, interruption)
        if interruption is not None:
            raise interruption
        answer = "; ".join(f"{recipient}: {refusal}" for recipient, refusal in self._refused.items())
        if any(refusal.concerns_client for refusal in self._refused.values()):
            raise NotAuthorizedError(f"no recipient was accepted: {answer}")
        if all(refusal.final for refusal in self._refused.values()):
            raise RejectedError(f"every recipient was refused: {answer}")
        raise RetryableError(f"no recipient was accepted: {answer}")


def hello_of(sender: EmailAddress | None) -> str:
    """The default EHLO name.

    Servers refuse names without a dot and ``[127.0.0.1]``. If the host has such a name, use the sender's domain, which
    servers know.
    """
    name = socket.gethostname()
    if _HOST.match(name):
        return name
    return sender.domain if sender is not None else "[127.0.0.1]"
