"""Posts outbox rows to an incoming webhook: one message when an incident opens, and one when it resolves.

A webhook returns no ID of the message, so it can neither be changed nor be searched for: updates are omitted, and a
message whose outcome is unknown is posted again.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from celery_monitor.adapters.channels.slack.api import OK, THROTTLED, refusal
from celery_monitor.adapters.channels.slack.render import message
from celery_monitor.adapters.http.exchange import retry_after
from celery_monitor.adapters.http.faults import origin
from celery_monitor.adapters.http.request import ask, post
from celery_monitor.adapters.http.sender import HttpSender
from celery_monitor.core.model import Incident, MessageKind, OutboxItem
from celery_monitor.errors import RejectedError, RetryableError
from celery_monitor.ports import Clock, Sent
from celery_monitor.settings import SecretSource


class SlackWebhook(HttpSender):
    """Sender of a channel with an incoming webhook."""

    missing: str = "no webhook_url is configured"
    hidden: str = "[webhook]"

    def __init__(
        self,
        *,
        channel: str,
        url: SecretSource,
        incident: Callable[[str], Incident | None],
        clock: Clock,
        timeout: float,
        external_url: str | None = None,
    ) -> None:
        super().__init__(channel=channel, incident=incident, clock=clock, timeout=timeout, external_url=external_url)
        self._url = url

    def rate_limit_key(self, item: OutboxItem) -> str | None:
        """One key, because there is one webhook; None without its URL."""
        del item
        url = self._url.get()
        return None if url is None else origin(url)

    def send(self, item: OutboxItem) -> Sent:
        """Like ``Sender.send``. Sends one HTTP request and takes at most ``timeout`` + 0.5 s."""
        incident, kind = self.incident_of(item), item.kind
        if kind is MessageKind.UPDATED:
            return Sent(0, item.receipt, skipped=True)
        if kind is MessageKind.RESOLVED and item.receipt is None:
            return Sent(0)  # no message was sent when it opened
        self.post(message(incident, kind, self.external_url))
        return Sent(0 if kind is MessageKind.RESOLVED else incident.count, item.receipt or item.event_id)

    def post(self, content: Mapping[str, Any]) -> None:
        """Send one request. Raises RetryableError, RejectedError or InterruptedSendError if it was not accepted."""
        url = self._url.get()
        if url is None:
            raise RejectedError(self.missing)
        self.receiver = f"Slack ({origin(url)})"
        request = post(url, json.dumps({**content, "unfurl_links": False, "unfurl_media": False}).encode(), {})
        answer = self.run(partial(ask, request=request, url=url, timeout=self.timeout, channel=self.channel), url)
        if answer.status == OK:
            return
        if answer.status == THROTTLED or answer.status >= 500:  # noqa: PLR2004 - RFC 9110, 15.6
            throttled = f"{self.receiver} responded with {answer.status}{self.reply(answer)}"
            raise RetryableError(throttled, retry_after(answer.retry_after, self.clock.now()))
        reply = " ".join(answer.text.split())
        reason = f"{answer.status}{self.reply(answer)}"
        raise refusal(reply, "a message", self.channel, answered=reason)

    def secrets(self) -> Iterable[str]:
        """See HttpSender. Servers and proxies repeat the path of the URL."""
        url = self._url.get()
        return () if url is None else (url, url.partition("://")[2].partition("/")[2])
