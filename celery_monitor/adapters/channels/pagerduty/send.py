"""Sends outbox rows to PagerDuty: selects the routing key and interprets the answer."""

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from celery_monitor.adapters.channels.pagerduty.exchange import ACCEPTED, post
from celery_monitor.adapters.channels.pagerduty.render import render, render_test
from celery_monitor.adapters.http.exchange import Answer, Exchange, retry_after
from celery_monitor.adapters.http.faults import origin
from celery_monitor.adapters.http.sender import HttpSender
from celery_monitor.core.headline import text
from celery_monitor.core.model import Action, Incident, OutboxItem
from celery_monitor.errors import RejectedError, RetryableError
from celery_monitor.ports import Clock, Sent

_INVALID: Final = frozenset({400, 413, 415, 422})
"""Status codes that reject the event itself. Other 4xx come from something in between (a proxy, a wrong
``pagerduty.url``) and disappear once that is repaired; they must not discard the event."""

_ABOUT_THE_KEY: Final = frozenset({400, 401, 403, 404, 422})
_KEY: Final = re.compile(r"(?:routing|service|integration)[ _-]?key", re.IGNORECASE)
"""Matches answers about the key itself: "Invalid routing key", "Length of 'routing_key' is incorrect". For an event
that is invalid for another reason, PagerDuty names another field. Source: PagerDuty's schema, robusta#571."""
REPAIR_KEY: Final = (
    "set pagerduty.routing_key, or the rule's routing_key, to the integration key of the service's Events API v2 "
    "integration (a key file is reloaded when it changes)"
)


class KeySource(Protocol):
    """A routing key that may change while the program runs."""

    def get(self) -> str | None:
        """The current key; None if none is configured."""


class PagerDuty(HttpSender):
    """Sender of a channel of this type. ``keys``: route → routing key; "" is the default route."""

    missing: str = "no routing key is configured"
    hidden: str = "[routing key]"

    def __init__(
        self,
        *,
        url: str,
        keys: Mapping[str, KeySource],
        incident: Callable[[str], Incident | None],
        clock: Clock,
        timeout: float = 10.0,
        external_url: str | None = None,
        channel: str = "pagerduty",
    ) -> None:
        super().__init__(channel=channel, incident=incident, clock=clock, timeout=timeout, external_url=external_url)
        self.receiver = f"PagerDuty ({origin(url)})"
        self._url = url
        self._keys = dict(keys)
        self._salt = os.urandom(hashlib.blake2b.SALT_SIZE)

    def rate_limit_key(self, item: OutboxItem) -> str | None:
        """A salted hash of the routing key: routes with the same key share its rate limit. None without a key."""
        key = self._key(item.route)
        return None if key is None else hashlib.blake2b(key.encode(), digest_size=8, salt=self._salt).hexdigest()

    def send(self, item: OutboxItem) -> Sent:
        """Like ``Sender.send``. Sends one HTTP request and takes at most ``timeout`` + 0.5 s."""
        key = self._key(item.route)
        if key is None:
            raise RejectedError(self.missing)
        if item.action is Action.RESOLVE:
            self.post(key, item.action, {"dedup_key": text(item.key)})
            return Sent(0, text(item.key))
        incident = self.incident_of(item)
        self.post(key, item.action, render(incident, self.external_url))
        return Sent(incident.count, text(item.key))

    def post(self, key: str, action: str, event: Mapping[str, Any]) -> None:
        """Send one request. Raises RetryableError, RejectedError or InterruptedSendError if it was not accepted."""

        def request(exchange: Exchange) -> Answer:
            return post(exchange, self._url, key, action, event, timeout=self.timeout)

        answer = self.run(request, key)
        if answer.status != ACCEPTED:
            raise self._refusal(answer)

    def _key(self, route: str) -> str | None:
        source = self._keys.get(route) or self._keys.get("")
        return source.get() if source is not None else None

    def secrets(self) -> Iterable[str]:
        """See HttpSender."""
        return [key for key in (source.get() for source in self._keys.values()) if key is not None]

    def _refusal(self, answer: Answer) -> RetryableError | RejectedError:
        message = f"PagerDuty responded with {answer.status}{self.reply(answer)}"
        if answer.status in _ABOUT_THE_KEY and _KEY.search(_verdict(answer.text)):
            return RetryableError(f"{message}: {REPAIR_KEY}", remedy=REPAIR_KEY, needs_repair=True)
        if answer.status in _INVALID:
            return RejectedError(message)
        return RetryableError(message, retry_after(answer.retry_after, self.clock.now()))


def _verdict(body: str) -> str:
    """The part of an answer that describes the error, without the parts of the event that the answer repeats."""
    with contextlib.suppress(ValueError, RecursionError):
        answer_body = json.loads(body)
        if isinstance(answer_body, dict):
            return str([answer_body.get(field) for field in ("status", "message", "error", "errors")])
    return body


def send_test(*, url: str, key: str, fleet: str, clock: Clock, timeout: float) -> str:
    """Open and resolve one marked test incident. Returns the answers, one line for each.

    Raises RetryableError or RejectedError.
    """
    sender = PagerDuty(url=url, keys={}, incident=lambda _: None, clock=clock, timeout=timeout)
    incident = f"celery-monitor-test/{secrets.token_hex(8)}"
    sender.post(key, Action.TRIGGER, render_test(fleet, incident))
    opened = f"{url} accepted the test incident {incident} (severity info)"
    try:
        sender.post(key, Action.RESOLVE, {"dedup_key": incident})
    except RetryableError as exc:
        message = f"{opened}, but did not resolve it: resolve it by hand. {exc}"
        raise RetryableError(message, remedy=exc.remedy) from exc
    return f"{opened}\n{url} accepted its resolution"
