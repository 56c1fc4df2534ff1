"""Outbox rows → PagerDuty: which routing key, what the answer means."""

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from celery_monitor.adapters.channels.pagerduty.exchange import ACCEPTED, post
from celery_monitor.adapters.channels.pagerduty.render import render, render_test
from celery_monitor.adapters.http.exchange import Answer, Exchange, retry_after
from celery_monitor.adapters.http.faults import NoAnswerError, origin
from celery_monitor.core.headline import line, text
from celery_monitor.core.model import Action, Incident, OutboxItem
from celery_monitor.errors import InterruptedSendError, RejectedError, RetryableError
from celery_monitor.ports import Clock, Sent

_INVALID: Final = frozenset({400, 413, 415, 422})
"""Answers about the event itself. Other 4xx come from what stands between (a proxy, a wrong
``pagerduty.url``) and pass when that is repaired; the page must not be lost to it."""

_ABOUT_THE_KEY: Final = frozenset({400, 401, 403, 404, 422})
_KEY: Final = re.compile(r"(?:routing|service|integration)[ _-]?key", re.IGNORECASE)
"""What an answer about the key itself has: "Invalid routing key", "Length of 'routing_key' is incorrect". With an
event that is invalid in another way PagerDuty names the other field. Source: PagerDuty's schema, robusta#571."""
REPAIR_KEY: Final = (
    "set pagerduty.routing_key, or the rule's routing_key, to the integration key of the service's Events API v2 "
    "integration (a key file is reloaded when it changes)"
)

_STOPPING: Final = "the monitor is shutting down"


class KeySource(Protocol):
    """A routing key that may change while the program runs."""

    def get(self) -> str | None:
        """The key as it is now; None when none is configured."""


class PagerDuty:
    """Sender of a channel of this type. ``keys``: route → routing key; "" is the default one.

    ``incident`` gives an incident as committed, and may raise StoreUnavailableError. ``timeout`` is for a whole
    request, in seconds. ``external_url`` is the base of the links.
    """

    missing: str = "no routing key is configured"

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
        self.channel = channel
        self._url = url
        self._keys = dict(keys)
        self._incident = incident
        self._clock = clock
        self._timeout = timeout
        self._external_url = external_url
        self._salt = os.urandom(hashlib.blake2b.SALT_SIZE)
        self._exchange = Exchange()
        self._stopped = False

    def stop(self) -> None:
        """End a request under way; ``send`` raises InterruptedSendError from now on. From any thread."""
        self._stopped = True
        self._exchange.abort(_STOPPING)

    def rate_limit_key(self, item: OutboxItem) -> str | None:
        """A salted hash of the routing key: routes that share a key share its rate limit. None without a key."""
        key = self._key(item.route)
        return None if key is None else hashlib.blake2b(key.encode(), digest_size=8, salt=self._salt).hexdigest()

    def send(self, item: OutboxItem) -> Sent:
        """As ``Sender.send``; at most ``timeout`` + 0.5 s, and one HTTP request."""
        key = self._key(item.route)
        if key is None:
            raise RejectedError(self.missing)
        if item.action is Action.RESOLVE:
            self.post(key, item.action, {"dedup_key": text(item.key)})
            return Sent(0, text(item.key))
        incident = self._incident(item.key)
        if incident is None:
            raise RejectedError("its incident is older than store.retention and no longer stored")
        self.post(key, item.action, render(incident, self._external_url))
        return Sent(incident.count, text(item.key))

    def post(self, key: str, action: str, event: Mapping[str, Any]) -> None:
        """One request. Raises RetryableError, RejectedError or InterruptedSendError when the event was not taken."""
        if self._stopped:
            raise InterruptedSendError(_STOPPING)
        if self._exchange.alive:
            # It sends nothing any more, but one waiting thread is enough.
            raise RetryableError("the previous request is still waiting for DNS")
        exchange = self._exchange = Exchange()
        if self._stopped:  # else it would not be aborted
            raise InterruptedSendError(_STOPPING)
        try:
            answer = post(exchange, self._url, key, action, event, timeout=self._timeout)
        except NoAnswerError as exc:
            if self._stopped:
                raise InterruptedSendError(_STOPPING) from None
            problem = line(self._without_keys(str(exc), key), 200)
            # Without its cause, which may hold the key.
            raise RetryableError(f"PagerDuty ({origin(self._url)}): {problem}", remedy=exc.remedy) from None
        if answer.status != ACCEPTED:
            raise self._refusal(answer, key)

    def _key(self, route: str) -> str | None:
        source = self._keys.get(route) or self._keys.get("")
        return source.get() if source is not None else None

    def _without_keys(self, told: str, sent: str) -> str:
        """What a server told may repeat what it was sent, now or before."""
        for key in (sent, *(source.get() for source in self._keys.values())):
            if key is not None:
                told = told.replace(key, "[routing key]")
        return told

    def _refusal(self, answer: Answer, key: str) -> RetryableError | RejectedError:
        said = text(self._without_keys(" ".join(answer.text.split()), key), 300)
        message = f"PagerDuty responded with {answer.status}" + (f": {said}" if said else "")
        if answer.status in _ABOUT_THE_KEY and _KEY.search(_verdict(answer.text)):
            return RetryableError(f"{message}: {REPAIR_KEY}", remedy=REPAIR_KEY, needs_repair=True)
        if answer.status in _INVALID:
            return RejectedError(message)
        return RetryableError(message, retry_after(answer.retry_after, self._clock.now()))


def _verdict(body: str) -> str:
    """What an answer says of the event, without what it repeats of it."""
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(body)
        if isinstance(said, dict):
            return str([said.get(field) for field in ("status", "message", "error", "errors")])
    return body


def send_test(*, url: str, key: str, fleet: str, clock: Clock, timeout: float) -> str:
    """Open and resolve one marked test incident; what came back, a line for each.

    Raises RetryableError or RejectedError.
    """
    sender = PagerDuty(url=url, keys={}, incident=lambda _: None, clock=clock, timeout=timeout)
    incident = f"celery-monitor-test/{secrets.token_hex(8)}"
    sender.post(key, Action.TRIGGER, render_test(fleet, incident))
    opened = f"{url} accepted the test incident {incident} (severity info)"
    try:
        sender.post(key, Action.RESOLVE, {"dedup_key": incident})
    except RetryableError as exc:
        told = f"{opened}, but did not resolve it: resolve it by hand. {exc}"
        raise RetryableError(told, remedy=exc.remedy) from exc
    return f"{opened}\n{url} accepted its resolution"
