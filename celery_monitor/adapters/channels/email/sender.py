"""The outbox's rows of the daily mail, sent."""

import datetime as dt
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import structlog

from celery_monitor.adapters.channels.email import message
from celery_monitor.adapters.channels.email.progress import MAX_ATTEMPTS, UNKNOWN_RETRY_DELAY, Progress
from celery_monitor.adapters.channels.email.session import SmtpServer, Timeouts
from celery_monitor.adapters.channels.email.smtp import BATCH, Refusal, SendResult, deliver, hello_of
from celery_monitor.core.model import OutboxItem
from celery_monitor.core.summary import Summary
from celery_monitor.errors import (
    DeliveryError,
    MaybeDeliveredError,
    RejectedError,
    RetryableError,
    StoreUnavailableError,
    UncertainError,
)
from celery_monitor.ports import Sent
from celery_monitor.settings import EmailSettings, email_address

_log: Final = structlog.get_logger()


def longest(settings: EmailSettings) -> float:
    """The most seconds that one attempt takes with a server that uses all of its time."""
    patience = Timeouts()
    batches = len(settings.to) // BATCH + 2
    return patience.connection + patience.whole + batches * patience.final


class EmailSender:
    """Sends one mail for each row, a date, to all recipients. Implements ports.Sender.

    A recipient that the server refuses does not stop the others, who read in the same mail who was refused. When it
    may be tried again the row is retried, for those only who do not have the mail yet. Who has it, and for whom that is
    unknown, is kept in the row (see `progress`).
    """

    channel: str = "email"
    missing: str = "no recipient is configured"

    def __init__(
        self,
        settings: EmailSettings,
        summarise: Callable[[dt.date, float], Summary],
        external_url: str | None = None,
        server: SmtpServer | None = None,
        note: Callable[[OutboxItem, str], None] = lambda _item, _text: None,
        *,
        takes_turns: bool = False,
    ) -> None:
        """``summarise`` gives a date's summary as of a time; ``server`` takes the place of the settings' one.

        ``note`` keeps a text with the row, to be found in its ``progress``. ``takes_turns``: as in Context.
        """
        self._settings = settings
        self._summarise = summarise
        self._external_url = external_url
        self._server = server or server_of(settings)
        self._note = note
        self._takes_turns = takes_turns
        self._progress: dict[int, Progress] = {}
        """Of rows that were tried and are not done: newer than what the store has, should that not have taken it."""

    def rate_limit_key(self, item: OutboxItem) -> str | None:
        """The server; None when there is nobody to write to."""
        del item
        return str(self._server) if self._settings.to else None

    def stop(self) -> None:
        """A mail under way is not cut off: nobody would know whether it was delivered."""

    def send(self, item: OutboxItem) -> Sent:
        """Send the report of the row's date. See Sender."""
        try:
            date = dt.date.fromisoformat(item.key)
        except ValueError as exc:
            raise RejectedError("the row's key is not a date") from exc
        # Made as of the row's own time, so that a retry sends the same mail.
        summary = self._summarise(date, item.created_at)
        if summary.quiet and not self._settings.send_when_quiet:
            return Sent(0)
        progress = self._progress.setdefault(item.id, self._progress_of(item))
        progress.begin(item.attempts)
        self._conclude(progress, self._attempt(summary, progress))
        del self._progress[item.id]
        return Sent(summary.day.failed)

    def _attempt(self, summary: Summary, progress: Progress) -> DeliveryError | None:
        """Send it to those who are to be tried now; why somebody of them is to be tried again, or never."""
        pending = progress.pending(self._settings.to)
        if not pending:
            return None
        try:
            delivery = self._deliver(summary, pending, progress)
        except RejectedError as exc:
            progress.refuse(pending, str(exc))
            error: DeliveryError | None = exc
            refused: object = str(exc)
        except RetryableError as exc:
            return exc
        else:
            error = delivery.left
            refused = {who: str(refusal) for who, refusal in delivery.refused.items() if refusal.final}
            if isinstance(error, RejectedError):
                done = {*delivery.taken, *delivery.refused, *delivery.unknown}
                progress.refuse([who for who in pending if who not in done], str(error))
            later = [f"{who}: {refusal}" for who, refusal in delivery.refused.items() if not refusal.final]
            if later and error is None:
                error = RetryableError(f"temporarily refused: {'; '.join(later)}")
        if refused:
            _log.error("The mail server refused recipients of the report", date=str(summary.date), refused=refused)
        return error

    def _conclude(self, progress: Progress, error: DeliveryError | None) -> None:
        """Raise what is to become of the row; nothing when it is done."""
        to = self._settings.to
        if found := progress.open(to):
            why = f": {error}" if error is not None else ": the monitor stopped before it received the response"
            raise UncertainError(
                f"it is unknown whether {', '.join(found)} received it{why}; retrying in "
                f"{UNKNOWN_RETRY_DELAY / 60:.0f} minutes, {MAX_ATTEMPTS} attempts in total",
                UNKNOWN_RETRY_DELAY,
            )
        if isinstance(error, RetryableError) and progress.pending(to):
            others = "the other recipients are done; " if progress.taken(to) or progress.refused(to) else ""
            raise RetryableError(f"{others}{error}", error.after, remedy=error.remedy) from error
        if found := progress.unknown(to):
            raise MaybeDeliveredError(
                f"may have been delivered to {', '.join(found)}: it was sent {MAX_ATTEMPTS} times and the server "
                "never responded; ask the recipients before you resend it with `celery-monitor outbox retry`"
            )
        if not progress.taken(to):
            raise error if isinstance(error, RejectedError) else RejectedError("every recipient was refused")

    def _progress_of(self, item: OutboxItem) -> Progress:
        keep = partial(self._keep, item)
        return Progress(item.progress, keep, partial(self._must_keep, item) if self._takes_turns else keep)

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
                "Cannot store which recipients received the report; kept in memory", key=item.key, error=str(exc)
            )

    def _deliver(
        self, summary: Summary, recipients: list[str], journal: Progress | None = None, *, again: bool = False
    ) -> SendResult:
        settings = self._settings
        # Who was refused at an earlier attempt is told as well: each attempt sends the same mail.
        known = {} if journal is None else journal.refused(settings.to)
        compose = partial(_compose, summary, settings, self._external_url, known, again=again)
        return deliver(
            self._server,
            _sender(settings),
            recipients,
            partial(compose, international=False),
            international=partial(compose, international=True),
            journal=journal,
        )

    def send_again(self, summary: Summary) -> SendResult:
        """Send a report that a person asks for, as a mail of its own.

        Raises RetryableError or RejectedError when nobody got it.
        """
        return self._deliver(summary, list(self._settings.to), again=True)


def send_test(settings: EmailSettings, fleet: str, server: SmtpServer | None = None) -> SendResult:
    """Send a test mail to all recipients. Raises RetryableError or RejectedError when nobody got it."""
    server = server or server_of(settings)
    trial = partial(message.trial, fleet=fleet, sender=_sender(settings), recipients=settings.to)
    return deliver(
        server,
        _sender(settings),
        settings.to,
        lambda _: trial(international=False),
        international=lambda _: trial(international=True),
    )


def server_of(settings: EmailSettings) -> SmtpServer:
    """The server of the settings."""
    return SmtpServer(
        settings.host,
        settings.port,
        settings.security,
        settings.username,
        settings.password_source().get,
        hello=settings.hello or hello_of(email_address.parse(settings.from_) if settings.from_ else None),
    )


def describe(delivery: SendResult, server: SmtpServer) -> str:
    """What became of a mail, for a terminal: a line for those who got it, and one for each who did not."""
    lines = [f"{server} accepted it for {', '.join(delivery.taken)}: {delivery.reply}"] if delivery.taken else []
    lines += [f"{server} refused {recipient}: {refusal}" for recipient, refusal in delivery.refused.items()]
    lines += [f"{server} may have accepted it for {recipient}: {delivery.left}" for recipient in delivery.unknown]
    if delivery.left is not None and not delivery.unknown:
        lines.append(f"the other recipients did not receive it: {delivery.left}")
    return "\n".join(lines)


def _sender(settings: EmailSettings) -> str:
    if settings.from_ is None or not settings.to:
        raise RejectedError("cannot send mail: set email.from and email.to")
    return settings.from_


def _compose(
    summary: Summary,
    settings: EmailSettings,
    external_url: str | None,
    known: Mapping[str, str],
    refused: Mapping[str, Refusal],
    *,
    again: bool,
    international: bool,
) -> bytes:
    final = {**known, **{recipient: str(refusal) for recipient, refusal in refused.items() if refusal.final}}
    notes = tuple(
        f"The server refused {recipient} ({final[recipient]}): they do not receive this report."
        for recipient in settings.to
        if recipient in final
    )
    return message.report(
        summary,
        sender=_sender(settings),
        recipients=settings.to,
        external_url=external_url,
        notes=notes,
        again=again,
        international=international,
    )
