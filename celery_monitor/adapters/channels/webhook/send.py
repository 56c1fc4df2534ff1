"""Outbox rows → HTTP: the id and the kind of an event, and what the answer means."""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Final

from requests import Session

from celery_monitor.adapters.channels.webhook import sign
from celery_monitor.adapters.channels.webhook.render import OPENED, RESOLVED, UPDATED, render
from celery_monitor.adapters.http.exchange import CONNECT_TIMEOUT, Answer, Exchange, prepare, retry_after
from celery_monitor.adapters.http.faults import NoAnswerError, origin, server
from celery_monitor.core.headline import line
from celery_monitor.core.model import FIRST_UPDATE, Action, Incident, OutboxItem
from celery_monitor.errors import InterruptedSendError, RejectedError, RetryableError
from celery_monitor.ports import Clock, Sent
from celery_monitor.settings import SecretSource

TAKEN: Final = range(200, 300)
_REFUSED: Final = frozenset({400, 410, 413, 415, 422})
"""Answers about the event itself; 410 says that the receiver wants no more."""
_REPAIRED_BY_A_PERSON: Final = frozenset({*range(300, 400), 401, 403, 404, 405})
_STOPPING: Final = "the monitor is being stopped"


Request = Callable[[Session, tuple[float, float]], object]
"""Makes one request by a session, with timeouts in seconds for the connection and for each read."""


def ask(exchange: Exchange, request: Request, *, url: str, timeout: float, channel: str) -> Answer:
    """Make a request. Raises RetryableError, without the path of the URL: it may hold a secret."""

    def send() -> None:
        with Session() as session:
            prepare(session, exchange, TAKEN)
            request(session, (min(CONNECT_TIMEOUT, timeout), timeout))

    try:
        return exchange.run(send, url, timeout, server(f"the url of channel {channel}"))
    except NoAnswerError as exc:
        # Without its cause, which may hold the URL.
        raise RetryableError(f"{origin(url)}: {line(str(exc), 200)}", remedy=exc.remedy) from None


def reach(url: str, timeout: float, channel: str) -> int:
    """Ask without sending an event; the status, which is about the question only. Raises RetryableError."""
    return ask(Exchange(), partial(_head, url=url), url=url, timeout=timeout, channel=channel).status


class Webhook:
    """Sender of a channel of this type. ``timeout`` is for a whole request, in seconds."""

    missing: str = "no secret is configured"

    def __init__(
        self,
        *,
        channel: str,
        url: str,
        secret: SecretSource,
        incident: Callable[[str], Incident | None],
        clock: Clock,
        timeout: float,
        external_url: str | None = None,
    ) -> None:
        """``incident`` gives an incident as committed, and may raise StoreUnavailableError."""
        self.channel = channel
        self._url = url
        self._secret = secret
        self._incident = incident
        self._clock = clock
        self._timeout = timeout
        self._external_url = external_url
        self._exchange = Exchange()
        self._stopped = False

    def stop(self) -> None:
        """End a request under way; ``send`` raises InterruptedSendError from now on. From any thread."""
        self._stopped = True
        self._exchange.abort(_STOPPING)

    def rate_limit_key(self, item: OutboxItem) -> str | None:
        """There is one receiver. None without a secret."""
        del item
        return None if self._secret.get() is None else origin(self._url)

    def send(self, item: OutboxItem) -> Sent:
        """As ``Sender.send``; at most ``timeout`` + 0.5 s, and one HTTP request."""
        incident = self._incident(item.key)
        if incident is None:
            raise RejectedError("its incident is older than the retention and no longer stored")
        event_id = id_of(item)
        self.post(event_id, render(kind_of(item), incident, item.created_at, self._external_url))
        return Sent(0 if item.action is Action.RESOLVE else incident.count, item.receipt or event_id)

    def post(self, event_id: str, body: bytes) -> Answer:
        """One request. Raises RetryableError, RejectedError or InterruptedSendError when the event was not taken."""
        secret = self._secret.get()
        if secret is None:
            raise RejectedError(self.missing)
        signed = sign.headers(secret, event_id, int(self._clock.now()), body)
        answer = self._ask(partial(_post, url=self._url, body=body, headers=signed))
        if answer.status not in TAKEN:
            raise self._refusal(answer)
        return answer

    def _ask(self, request: Request) -> Answer:
        if self._stopped:
            raise InterruptedSendError(_STOPPING)
        if self._exchange.alive:
            # It sends nothing any more, but one waiting thread is enough.
            raise RetryableError("the last request still waits for the name server")
        exchange = self._exchange = Exchange()
        if self._stopped:  # else it would not be aborted
            raise InterruptedSendError(_STOPPING)

        try:
            return ask(exchange, request, url=self._url, timeout=self._timeout, channel=self.channel)
        except RetryableError:
            if self._stopped:
                raise InterruptedSendError(_STOPPING) from None
            raise

    def _refusal(self, answer: Answer) -> RetryableError | RejectedError:
        said = line(answer.text, 300)
        message = f"{origin(self._url)} answered {answer.status}" + (f": {said}" if said else "")
        if answer.status in _REFUSED:
            return RejectedError(message)
        remedy = f"check url and secret of channel {self.channel}; redirects are not followed"
        if answer.status in _REPAIRED_BY_A_PERSON:
            return RetryableError(message, remedy=remedy, needs_repair=True)
        return RetryableError(message, retry_after(answer.retry_after, self._clock.now()))


def kind_of(item: OutboxItem) -> str:
    """The type of the event that a row stands for. What the receiver has not had is opened, however it grew."""
    if item.action is Action.RESOLVE:
        return RESOLVED
    opens = 0 <= item.priority < FIRST_UPDATE
    return OPENED if opens or item.receipt is None else UPDATED


def id_of(item: OutboxItem) -> str:
    """The event's id: the same for each attempt, another one when there is more to tell."""
    parts = f"{item.channel}/{item.key}/{item.action}/{item.id}/{item.revision}/{item.created_at!r}"
    return f"msg_{hashlib.blake2b(parts.encode('utf-8', 'replace'), digest_size=16).hexdigest()}"


def _post(session: Session, timeout: tuple[float, float], *, url: str, body: bytes, headers: dict[str, str]) -> None:
    session.post(
        url,
        data=body,
        headers={**headers, "content-type": "application/json", "user-agent": "celery-monitor"},
        timeout=timeout,
        allow_redirects=False,
        stream=True,
    )


def _head(session: Session, timeout: tuple[float, float], *, url: str) -> None:
    session.head(url, headers={"user-agent": "celery-monitor"}, timeout=timeout, allow_redirects=False, stream=True)
