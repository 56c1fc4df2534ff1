"""Sends outbox rows as mails: tracks which recipients have a mail or need a retry, and decides the outcome of the row.

A refused recipient does not affect the others. If a refusal is temporary, the row is retried for the recipients that do
not have the mail yet. The state of each recipient is stored in the row (see `progress`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import structlog

from celery_monitor.adapters.channels.email.answers import NotAuthorizedError, Refusal
from celery_monitor.adapters.channels.email.progress import MAX_ATTEMPTS, UNKNOWN_RETRY_DELAY, Progress
from celery_monitor.adapters.channels.email.session import SmtpServer, Timeouts
from celery_monitor.adapters.channels.email.smtp import BATCH, SendResult, deliver
from celery_monitor.core.model import OutboxItem
from celery_monitor.errors import (
    DeliveryError,
    MaybeDeliveredError,
    RejectedError,
    RetryableError,
    StoreUnavailableError,
    UncertainError,
)
from celery_monitor.ports import Sent

_log: Final = structlog.get_logger()


def max_duration(recipients: int) -> float:
    """The maximum duration of one attempt, in seconds, with a server that uses up all timeouts."""
    timeouts = Timeouts()
    return timeouts.connection + timeouts.total + (recipients // BATCH + 2) * timeouts.final


class Compose(Protocol):
    """Composes a mail; the same mail at each attempt."""

    def __call__(self, refused: Mapping[str, str], *, international: bool) -> bytes:
        """``refused``: permanently refused recipients with the answer. ``international``: it is sent with SMTPUTF8."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The mail for a row."""

    compose: Compose
    count: int
    """The number of failures that the mail reports."""
    receipt: str | None = None


class MailSender:
    """Base class of senders of mails. A subclass implements ``draft``, which composes the mail for a row."""

    missing: str = "no recipient is configured"

    def __init__(
        self,
        *,
        channel: str,
        server: SmtpServer,
        sender: str | None,
        to: Sequence[str],
        note: Callable[[OutboxItem, str], None],
        replicated: bool = False,
    ) -> None:
        """``note`` stores a text as the row's ``progress``. ``sender`` and ``to`` are addresses.

        ``replicated``: as in Context.
        """
        self.channel = channel
        self._server = server
        self._from = sender
        self._to = to
        self._note = note
        self._replicated = replicated
        self._progress: dict[int, Progress] = {}
        """The progress of unfinished rows. It is newer than the stored progress if the store was unavailable."""

    def draft(self, item: OutboxItem) -> Draft | Sent:
        """The mail for a row, or the result for a row that needs no mail. Raises the errors of ``Sender.send``."""
        raise NotImplementedError

    def rate_limit_key(self, item: OutboxItem) -> str | None:
        """The server; None if there are no recipients."""
        del item
        return str(self._server) if self._to else None

    def stop(self) -> None:
        """Do nothing: aborting a mail in progress would leave its outcome unknown."""

    def send(self, item: OutboxItem) -> Sent:
        """Send the mail of the row. See Sender."""
        draft = self.draft(item)
        if isinstance(draft, Sent):
            return draft
        progress = self._progress.setdefault(item.id, self._progress_of(item))
        progress.begin(item.attempts)
        self._conclude(progress, self._attempt(item, draft, progress))
        del self._progress[item.id]
        return Sent(draft.count, draft.receipt)

    def deliver(self, compose: Compose, recipients: Sequence[str], journal: Progress | None = None) -> SendResult:
        """Send a mail now. Raises RetryableError or RejectedError if no recipient got it."""
        # Recipients refused at earlier attempts are included, so that each attempt sends the same mail.
        already_refused = {} if journal is None else journal.refused(self._to)

        def make(refused: Mapping[str, Refusal], *, international: bool) -> bytes:
            final = {recipient: str(refusal) for recipient, refusal in refused.items() if refusal.final}
            return compose({**already_refused, **final}, international=international)

        return deliver(
            self._server,
            required(self._from, self._to),
            recipients,
            partial(make, international=False),
            international=partial(make, international=True),
            journal=journal,
        )

    def _attempt(self, item: OutboxItem, draft: Draft, progress: Progress) -> DeliveryError | None:
        """Send the mail to the pending recipients. Returns the error if some of them do not have it."""
        pending = progress.pending(self._to)
        if not pending:
            return None
        try:
            delivery = self.deliver(draft.compose, pending, progress)
        except RejectedError as exc:
            progress.refuse(pending, str(exc))
            error: DeliveryError | None = exc
            refused: object = str(exc)
        except NotAuthorizedError as exc:
            if not progress.accepted(self._to):
                return exc
            progress.refuse(pending, str(exc))  # others have it, so this client may send
            error, refused = None, str(exc)
        except RetryableError as exc:
            return exc
        else:
            error = delivery.interruption
            refused = {recipient: str(refusal) for recipient, refusal in delivery.refused.items() if refusal.final}
            if isinstance(error, RejectedError):
                done = {*delivery.accepted, *delivery.refused, *delivery.unknown}
                progress.refuse([recipient for recipient in pending if recipient not in done], str(error))
            deferred = [
                f"{recipient}: {refusal}" for recipient, refusal in delivery.refused.items() if not refusal.final
            ]
            if deferred and error is None:
                error = RetryableError(f"temporarily refused: {'; '.join(deferred)}")
        if refused:
            _log.error("The mail server refused recipients", channel=item.channel, key=item.key, refused=refused)
        return error

    def _conclude(self, progress: Progress, error: DeliveryError | None) -> None:
        """Raise the error that decides the outcome of the row; return if the row is done."""
        to = self._to
        if still_open := progress.open(to):
            why = f": {error}" if error is not None else ": the monitor stopped before it received the response"
            raise UncertainError(
                f"it is unknown whether {', '.join(still_open)} received it{why}; retrying in "
                f"{UNKNOWN_RETRY_DELAY / 60:.0f} minutes, {MAX_ATTEMPTS} attempts in total",
                UNKNOWN_RETRY_DELAY,
            )
        if isinstance(error, RetryableError) and progress.pending(to):
            others = "the other recipients are done; " if progress.accepted(to) or progress.refused(to) else ""
            raise RetryableError(
                f"{others}{error}", error.after, remedy=error.remedy, needs_repair=error.needs_repair
            ) from error
        if still_open := progress.unknown(to):
            raise MaybeDeliveredError(
                f"may have been delivered to {', '.join(still_open)}: it was sent {MAX_ATTEMPTS} times and the server "
                "never responded; ask the recipients before you resend it with `celery-monitor outbox retry`"
            )
        if not progress.accepted(to):
            raise error if isinstance(error, RejectedError) else RejectedError("every recipient was refused")

    def _progress_of(self, item: OutboxItem) -> Progress:
        keep = partial(self._keep, item)
        return Progress(item.progress, keep, partial(self._must_keep, item) if self._replicated else keep)

    def _must_keep(self, item: OutboxItem, text: str) -> None:
        try:
            self._note(item, text)
        except StoreUnavailableError as exc:
            raise RetryableError(f"not sent, because another replica might send it too: {exc}") from exc

    def _keep(self, item: OutboxItem, text: str) -> None:
        try:
            self._note(item, text)
        except StoreUnavailableError as exc:
            _log.warning(
                "Cannot store which recipients received the mail; kept in memory", key=item.key, error=str(exc)
            )


def required(sender: str | None, to: Sequence[str]) -> str:
    """The sender's address. Raises RejectedError if there is no sender or no recipient."""
    if sender is None or not to:
        raise RejectedError("cannot send mail: set email.from and email.to")
    return sender
