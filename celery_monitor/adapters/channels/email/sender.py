"""Sends the outbox rows of the daily mail."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from celery_monitor.adapters.channels.email import message
from celery_monitor.adapters.channels.email.delivery import Draft, MailSender, required
from celery_monitor.adapters.channels.email.session import SmtpServer
from celery_monitor.adapters.channels.email.smtp import SendResult, deliver, hello_of
from celery_monitor.core.model import OutboxItem
from celery_monitor.core.summary import Summary
from celery_monitor.errors import RejectedError
from celery_monitor.ports import Sent
from celery_monitor.settings import EmailSettings, email_address


class EmailSender(MailSender):
    """Sends one mail for each row, which is a date, to all recipients. The mail lists the refused recipients."""

    def __init__(
        self,
        settings: EmailSettings,
        summarise: Callable[[dt.date, float], Summary],
        external_url: str | None = None,
        server: SmtpServer | None = None,
        note: Callable[[OutboxItem, str], None] = lambda _item, _text: None,
        *,
        replicated: bool = False,
    ) -> None:
        """``summarise`` returns the summary of a date as of a time. ``server`` overrides that of the settings."""
        super().__init__(
            channel="email",
            server=server or server_of(settings),
            sender=settings.from_,
            to=settings.to,
            note=note,
            replicated=replicated,
        )
        self._settings = settings
        self._summarise = summarise
        self._external_url = external_url

    def draft(self, item: OutboxItem) -> Draft | Sent:
        """The report for the row's date."""
        try:
            date = dt.date.fromisoformat(item.key)
        except ValueError as exc:
            raise RejectedError("the row's key is not a date") from exc
        # As of the row's creation, so that a retry sends the same mail.
        summary = self._summarise(date, item.created_at)
        if summary.quiet and not self._settings.send_when_quiet:
            return Sent(0)
        return Draft(self._compose(summary), summary.day.failed)

    def resend(self, summary: Summary) -> SendResult:
        """Send a report on request, as a separate mail.

        Raises RetryableError or RejectedError if no recipient got it.
        """
        return self.deliver(self._compose(summary, again=True), self._settings.to)

    def _compose(self, summary: Summary, *, again: bool = False) -> partial[bytes]:
        return partial(_compose, summary, self._settings, self._external_url, again=again)


def send_test(
    settings: EmailSettings,
    fleet: str,
    server: SmtpServer | None = None,
    *,
    to: Sequence[str] | None = None,
    content: str = message.DAILY,
) -> SendResult:
    """Send a test mail to all recipients. Raises RetryableError or RejectedError if no recipient got it.

    ``to`` overrides the recipients of the settings; ``content`` is what the settings' sender will send them.
    """
    to = settings.to if to is None else to
    sender = required(settings.from_, to)
    trial = partial(message.trial, fleet=fleet, sender=sender, recipients=to, content=content)
    return deliver(
        server or server_of(settings),
        sender,
        to,
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
    """The outcome of a mail, for a terminal: one line for the accepted recipients, and one for each other recipient."""
    lines = [f"{server} accepted it for {', '.join(delivery.accepted)}: {delivery.reply}"] if delivery.accepted else []
    lines += [f"{server} refused {recipient}: {refusal}" for recipient, refusal in delivery.refused.items()]
    lines += [
        f"{server} may have accepted it for {recipient}: {delivery.interruption}" for recipient in delivery.unknown
    ]
    if delivery.interruption is not None and not delivery.unknown:
        lines.append(f"the other recipients did not receive it: {delivery.interruption}")
    return "\n".join(lines)


def _compose(
    summary: Summary,
    settings: EmailSettings,
    external_url: str | None,
    refused: Mapping[str, str],
    *,
    again: bool,
    international: bool,
) -> bytes:
    notes = tuple(
        f"The server refused {recipient} ({refused[recipient]}): the report is not delivered to this address."
        for recipient in settings.to
        if recipient in refused
    )
    return message.report(
        summary,
        sender=required(settings.from_, settings.to),
        recipients=settings.to,
        external_url=external_url,
        notes=notes,
        again=again,
        international=international,
    )
