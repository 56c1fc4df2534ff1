"""Sends outbox rows as alerts to every Alertmanager of a channel and interprets the answers."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

import structlog

from celery_monitor.adapters.channels.alertmanager.render import (
    Alert,
    Labels,
    firing,
    labels_from,
    labels_of,
    receipt_of,
    resolved,
)
from celery_monitor.adapters.http.exchange import retry_after
from celery_monitor.adapters.http.faults import origin
from celery_monitor.adapters.http.request import REPAIRED_BY_A_PERSON, TAKEN, ask, post
from celery_monitor.adapters.http.sender import HttpSender
from celery_monitor.core.model import Incident, MessageKind, OutboxItem
from celery_monitor.errors import DeliveryError, RejectedError, RetryableError
from celery_monitor.ports import Clock, Sent
from celery_monitor.settings import SecretSource

PATH: Final = "/api/v2/alerts"
_REFUSED: Final = frozenset({400, 413, 415, 422})
"""Status codes that reject the alerts themselves."""

MAX_BYTES: Final = 500_000
"""Maximum size of a request with several alerts. Proxies in front of an Alertmanager often accept 1 MB."""
_COOLDOWN: Final = 30.0
"""For this many seconds after a failure, an Alertmanager is tried only if no other accepts the alert."""

_log = structlog.get_logger()


class Alertmanagers(HttpSender):
    """Sender of a channel of this type.

    An alert counts as delivered when one Alertmanager has it. Alertmanagers do not share alerts: one that was down gets
    the alert with the next repetition, and its copy of a resolved alert ends after ``hold`` seconds.
    """

    missing: str = "no Alertmanager is configured"
    hidden: str = "[password]"

    def __init__(
        self,
        *,
        channel: str,
        urls: Sequence[str],
        hold: float,
        labels: Labels,
        username: str | None,
        password: SecretSource,
        incident: Callable[[str], Incident | None],
        clock: Clock,
        timeout: float,
        external_url: str | None = None,
    ) -> None:
        """``hold``: how long an alert fires if it is not sent again, in seconds."""
        super().__init__(channel=channel, incident=incident, clock=clock, timeout=timeout, external_url=external_url)
        self._urls = urls
        self._failed_at: dict[str, float] = {}
        """URL → when it took nothing last, since it took something."""
        self._hold = hold
        self._labels = labels
        self._username = username
        self._password = password

    def rate_limit_key(self, item: OutboxItem) -> str | None:
        """One key: all Alertmanagers share the rate limit."""
        del item
        return self.channel

    def send(self, item: OutboxItem) -> Sent:
        """Like ``Sender.send``. Sends one HTTP request to each Alertmanager."""
        incident = self.incident_of(item)
        labels, labels_before = labels_of(incident, self._labels), labels_from(item.receipt)
        if item.kind is MessageKind.RESOLVED:
            all_labels = labels_before or labels
            # Send it to all: an Alertmanager that is left out would keep the alert firing.
            self._failed_at.clear()
            # Repetitions have the present labels, which may differ from those of the last delivered row.
            ended = [all_labels] if labels == all_labels else [all_labels, labels]
            self.post([resolved(incident, each, item.created_at, self.external_url) for each in ended])
            return Sent(0, item.receipt or receipt_of(all_labels))
        alerts = [self._firing(incident)]
        if labels_before is not None and labels_before != labels:
            # The rule has changed: under other labels it is another alert for Alertmanager.
            alerts.append(resolved(incident, labels_before, self.clock.now(), self.external_url))
        self.post(alerts)
        return Sent(incident.count, receipt_of(labels))

    def repeat(self, incidents: Sequence[Incident]) -> None:
        """See RepeatingSender. Sends as many requests as the size of the alerts requires."""
        rejected: RejectedError | None = None
        for alerts in _batches(_encode(self._firing(incident)) for incident in incidents):
            try:
                self._post_all(alerts)
            except RejectedError as exc:
                rejected = exc  # the others must not expire
        if rejected is not None:
            raise rejected

    def post(self, alerts: Sequence[Alert]) -> list[str]:
        """Send alerts to all, and return those that accepted them. Raises a DeliveryError if none did."""
        return self._post_all([_encode(alert) for alert in alerts])

    def _post_all(self, alerts: Sequence[bytes]) -> list[str]:
        body = b"[" + b",".join(alerts) + b"]"
        accepted_by: list[str] = []
        failed: list[DeliveryError] = []
        for url in sorted(self._urls, key=self._rests):
            if accepted_by and self._rests(url):
                continue  # do not delay other rows by its timeout again; the next repetition reaches it
            try:
                self._post(url, body)
            except (RetryableError, RejectedError) as exc:
                failed.append(exc)
                self._failed_at[url] = self.clock.monotonic()
            else:
                accepted_by.append(url)
                self._failed_at.pop(url, None)
        if not accepted_by:
            # If in doubt, try again.
            raise next((exc for exc in failed if isinstance(exc, RetryableError)), failed[0])
        for problem in failed:
            _log.warning(
                "An Alertmanager did not accept alerts that others accepted", channel=self.channel, error=str(problem)
            )
        return accepted_by

    def secrets(self) -> Iterable[str]:
        """See HttpSender."""
        password = self._password.get()
        return () if password is None else (password, _encoded(self._username, password))

    def _rests(self, url: str) -> bool:
        failed_at = self._failed_at.get(url)
        return failed_at is not None and self.clock.monotonic() - failed_at < _COOLDOWN

    def _firing(self, incident: Incident) -> Alert:
        labels = labels_of(incident, self._labels)
        return firing(incident, labels, self.clock.now() + self._hold, self.external_url)

    def _post(self, url: str, body: bytes) -> None:
        self.receiver = origin(url)
        password = self._password.get()
        login = {} if password is None else {"authorization": f"Basic {_encoded(self._username, password)}"}
        request = post(f"{url}{PATH}", body, login)
        answer = self.run(partial(ask, request=request, url=url, timeout=self.timeout, channel=self.channel))
        if answer.status in TAKEN:
            return
        message = f"{self.receiver} answered {answer.status}{self.reply(answer)}"
        if answer.status in _REFUSED:
            raise RejectedError(message)
        if answer.status in REPAIRED_BY_A_PERSON:
            remedy = f"check urls, username and password of channel {self.channel}; redirects are not followed"
            raise RetryableError(message, remedy=remedy, needs_repair=True)
        raise RetryableError(message, retry_after(answer.retry_after, self.clock.now()))


def _encode(alert: Alert) -> bytes:
    return json.dumps(alert, ensure_ascii=False).encode()


def _batches(alerts: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The alerts in order, in lists of at most MAX_BYTES or one alert."""
    batch: list[bytes] = []
    size = 0
    for alert in alerts:
        if batch and size + len(alert) > MAX_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(alert)
        size += len(alert) + 1  # the comma
    if batch:
        yield batch


def _encoded(username: str | None, password: str) -> str:
    return base64.b64encode(f"{username or ''}:{password}".encode()).decode()
