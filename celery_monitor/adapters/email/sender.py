"""The outbox's rows of the daily mail, sent."""

import datetime as dt
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import structlog

from celery_monitor.adapters.email import message
from celery_monitor.adapters.email.smtp import Delivery, Refusal, Server, deliver
from celery_monitor.core.model import Channel, OutboxItem
from celery_monitor.core.summary import Summary
from celery_monitor.errors import RejectedError, RetryableError
from celery_monitor.settings import EmailSettings

_log: Final = structlog.get_logger()


class EmailSender:
    """Sends one mail for each row, a date, to all recipients. Implements ports.Sender.

    A recipient that the server refuses does not stop the others, who read in the same mail who was refused. When it
    may be tried again the row is retried, for those only who do not have the mail yet. Who has it is known while the
    process lives: after a crash in between, the same mail (the same Message-ID) goes to all again, as it does after a
    crash between the server's answer and its record.
    """

    channel: str = Channel.EMAIL

    def __init__(
        self,
        settings: EmailSettings,
        summarise: Callable[[dt.date, float], Summary],
        external_url: str | None = None,
        server: Server | None = None,
    ) -> None:
        """``summarise`` gives a date's summary as of a time; ``server`` takes the place of the settings' one."""
        self._settings = settings
        self._summarise = summarise
        self._external_url = external_url
        self._server = server or server_of(settings)
        self._settled: dict[int, set[str]] = {}
        """Row → recipients that have its mail (one at least) or were refused for good."""

    def lane(self, item: OutboxItem) -> str | None:
        """The server; None when there is nobody to write to."""
        del item
        return str(self._server) if self._settings.to else None

    def send(self, item: OutboxItem) -> int:
        """Send the report of the row's date; the failures in it."""
        try:
            date = dt.date.fromisoformat(item.key)
        except ValueError as exc:
            raise RejectedError("the row's key is no date") from exc
        # Made as of the row's own time, so that a retry sends the same mail.
        summary = self._summarise(date, item.created_at)
        if summary.quiet and not self._settings.send_when_quiet:
            return 0
        settled = self._settled.pop(item.id, set())
        try:
            self._send_to_rest(summary, settled)
        except RetryableError:
            self._settled[item.id] = settled
            raise
        return summary.day.failed

    def _send_to_rest(self, summary: Summary, settled: set[str]) -> None:
        rest = [recipient for recipient in self._settings.to if recipient not in settled]
        if not rest:
            return
        try:
            delivery = self._deliver(summary, rest)
        except RejectedError as exc:
            if not settled:
                raise
            _log.error("Recipients of the report were refused", date=str(summary.date), refused=str(exc))
            return
        except RetryableError as exc:
            if not settled:
                raise
            raise RetryableError(f"the others are done; {exc}", exc.after, remedy=exc.remedy) from exc
        final = {who: str(refusal) for who, refusal in delivery.refused.items() if refusal.final}
        if final:
            _log.error("Recipients of the report were refused", date=str(summary.date), refused=final)
        settled.update(delivery.taken, final)
        later = [f"{who}: {refusal}" for who, refusal in delivery.refused.items() if not refusal.final]
        if later:
            raise RetryableError(f"the others are done; refused for now: {'; '.join(later)}")

    def _deliver(self, summary: Summary, recipients: list[str], *, again: bool = False) -> Delivery:
        settings = self._settings
        sender = _sender(settings)
        compose = partial(_compose, summary, settings, self._external_url, again=again)
        return deliver(self._server, sender, recipients, compose)

    def send_again(self, summary: Summary) -> str:
        """Send a report that a person asks for, as a mail of its own; what the server said.

        Raises RetryableError or RejectedError.
        """
        return describe(self._deliver(summary, list(self._settings.to), again=True), self._server)


def send_test(settings: EmailSettings, fleet: str, server: Server | None = None) -> str:
    """Send a test mail to all recipients; what the server said, a line for each refused recipient.

    Raises RetryableError or RejectedError.
    """
    server = server or server_of(settings)
    sender = _sender(settings)
    body = message.trial(fleet=fleet, sender=sender, recipients=settings.to)
    return describe(deliver(server, sender, settings.to, lambda _: body), server)


def server_of(settings: EmailSettings) -> Server:
    """The server of the settings."""
    return Server(
        settings.host,
        settings.port,
        settings.security,
        settings.username,
        settings.password_source().get,
    )


def describe(delivery: Delivery, server: Server) -> str:
    """What became of a mail, for a terminal."""
    lines = [f"{server} took it for {', '.join(delivery.taken)}: {delivery.reply}"]
    lines += [f"{server} refused {recipient}: {refusal}" for recipient, refusal in delivery.refused.items()]
    return "\n".join(lines)


def _sender(settings: EmailSettings) -> str:
    if settings.from_ is None or not settings.to:
        raise RejectedError("no mail can be sent: set email.from and email.to")
    return settings.from_


def _compose(
    summary: Summary,
    settings: EmailSettings,
    external_url: str | None,
    refused: Mapping[str, Refusal],
    *,
    again: bool,
) -> bytes:
    notes = tuple(
        f"The server refused {recipient} ({refusal}): the report does not reach them."
        for recipient, refusal in refused.items()
        if refusal.final
    )
    return message.report(
        summary,
        sender=_sender(settings),
        recipients=settings.to,
        external_url=external_url,
        notes=notes,
        again=again,
    )
