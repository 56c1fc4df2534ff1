"""Sends outbox rows as signed HTTP requests and interprets the answers."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from celery_monitor.adapters.channels.webhook import sign
from celery_monitor.adapters.channels.webhook.render import render
from celery_monitor.adapters.http.exchange import Answer, retry_after
from celery_monitor.adapters.http.faults import origin
from celery_monitor.adapters.http.request import REPAIRED_BY_A_PERSON, TAKEN, ask, post
from celery_monitor.adapters.http.sender import HttpSender
from celery_monitor.core.model import Incident, MessageKind, OutboxItem
from celery_monitor.errors import RejectedError, RetryableError
from celery_monitor.ports import Clock, Sent
from celery_monitor.settings import SecretSource
from celery_monitor.settings.secret import url_parts

_REFUSED: Final = frozenset({400, 410, 413, 415, 422})
"""Status codes that reject the event itself. 410 means that the receiver wants no more events."""


class Webhook(HttpSender):
    """Sender of a channel of this type."""

    missing: str = "no url or no secret is configured"

    def __init__(
        self,
        *,
        channel: str,
        url: SecretSource,
        secret: SecretSource,
        incident: Callable[[str], Incident | None],
        clock: Clock,
        timeout: float,
        external_url: str | None = None,
    ) -> None:
        super().__init__(channel=channel, incident=incident, clock=clock, timeout=timeout, external_url=external_url)
        self._url = url
        self._secret = secret

    def rate_limit_key(self, item: OutboxItem) -> str | None:
        """One key, because there is one receiver; None without its URL or the secret."""
        del item
        url = self._url.get()
        return None if url is None or self._secret.get() is None else origin(url)

    def send(self, item: OutboxItem) -> Sent:
        """Like ``Sender.send``. Sends one HTTP request and takes at most ``timeout`` + 0.5 s."""
        incident, kind = self.incident_of(item), item.kind
        self.post(item.event_id, render(f"incident.{kind}", incident, item.created_at, self.external_url))
        return Sent(0 if kind is MessageKind.RESOLVED else incident.count, item.receipt or item.event_id)

    def post(self, event_id: str, body: bytes) -> Answer:
        """Send one request. Raises RetryableError, RejectedError or InterruptedSendError if it was not accepted."""
        url, secret = self._url.get(), self._secret.get()
        if url is None or secret is None:
            raise RejectedError(self.missing)
        self.receiver = origin(url)
        request = post(url, body, sign.headers(secret, event_id, int(self.clock.now()), body))
        exchange = partial(ask, request=request, url=url, timeout=self.timeout, channel=self.channel)
        answer = self.run(exchange, *_hidden(url, secret))
        if answer.status not in TAKEN:
            raise self._refusal(answer)
        return answer

    def secrets(self) -> Iterable[str]:
        """See HttpSender. Servers repeat the path of a request, and the path may be the credential."""
        return _hidden(self._url.get(), self._secret.get())

    def _refusal(self, answer: Answer) -> RetryableError | RejectedError:
        message = f"{self.receiver} answered {answer.status}{self.reply(answer)}"
        if answer.status in _REFUSED:
            return RejectedError(message)
        remedy = f"check url and secret of channel {self.channel}; redirects are not followed"
        if answer.status in REPAIRED_BY_A_PERSON:
            return RetryableError(message, remedy=remedy, needs_repair=True)
        return RetryableError(message, retry_after(answer.retry_after, self.clock.now()))


def _hidden(url: str | None, secret: str | None) -> tuple[str, ...]:
    """The secret, and the parts of the URL that may be one."""
    # Longest first: replacing a part first would leave the rest of the longer secret in the text.
    path = "" if url is None else url.partition(origin(url))[2]
    of_url = sorted({*url_parts(url or ""), path} - {"", "/"}, key=len, reverse=True)
    return tuple(of_url) if secret is None else (secret, *of_url)
