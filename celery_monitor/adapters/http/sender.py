"""Base class of senders that use HTTP: one request at a time, which is aborted when the program stops."""

from collections.abc import Callable, Iterable

from celery_monitor.adapters.http.exchange import Answer, Exchange
from celery_monitor.adapters.http.faults import NoAnswerError
from celery_monitor.core.headline import line, text
from celery_monitor.core.model import Incident, OutboxItem
from celery_monitor.errors import InterruptedSendError, RejectedError, RetryableError
from celery_monitor.ports import Clock

_STOPPING = "the monitor is shutting down"
_REASON_LIMIT = 200
_REPLY_LIMIT = 300


class HttpSender:
    """Base class of a Sender. A subclass defines ``missing``, ``rate_limit_key`` and ``send``, and calls ``run``."""

    receiver: str
    """The receiver's name in messages, without the path of its URL, which may contain a secret."""
    hidden: str = "[secret]"
    """The replacement for a secret in messages."""

    def __init__(
        self,
        *,
        channel: str,
        incident: Callable[[str], Incident | None],
        clock: Clock,
        timeout: float,
        external_url: str | None = None,
    ) -> None:
        """``incident`` returns the committed state of an incident and may raise StoreUnavailableError.

        ``timeout`` is for a whole request, in seconds; ``external_url`` is the base of links to the page.
        """
        self.channel = channel
        self.clock = clock
        self.timeout = timeout
        self.external_url = external_url
        self._incident = incident
        self._exchange = Exchange()
        self._stopped = False
        self._sent: tuple[str, ...] = ()

    def stop(self) -> None:
        """Abort a request in progress; from now on ``send`` raises InterruptedSendError. Thread-safe."""
        self._stopped = True
        self._exchange.abort(_STOPPING)

    def incident_of(self, item: OutboxItem) -> Incident:
        """The incident of a row. Raises RejectedError if it is no longer stored, and StoreUnavailableError."""
        incident = self._incident(item.key)
        if incident is None:
            raise RejectedError("its incident is older than store.retention and no longer stored")
        return incident

    def run(self, request: Callable[[Exchange], Answer], *request_secrets: str) -> Answer:
        """Send one request. Raises RetryableError if there is no answer, and InterruptedSendError.

        ``request_secrets``: the secrets in it, which may differ from those of ``secrets`` when the answer arrives.
        """
        self._sent = request_secrets
        if self._stopped:
            raise InterruptedSendError(_STOPPING)
        if self._exchange.alive:
            # It no longer sends anything, but one waiting thread is enough.
            raise RetryableError("the previous request is still waiting for DNS")
        exchange = self._exchange = Exchange()
        if self._stopped:  # otherwise it would not be aborted
            raise InterruptedSendError(_STOPPING)
        try:
            return request(exchange)
        except NoAnswerError as exc:
            if self._stopped:
                raise InterruptedSendError(_STOPPING) from None
            reason = line(self.without_secrets(str(exc)), _REASON_LIMIT)
            # Without the cause, which may contain a secret.
            raise RetryableError(f"{self.receiver}: {reason}", remedy=exc.remedy) from None

    def reply(self, answer: Answer) -> str:
        """The receiver's answer, to follow its status: short, printable, and without secrets."""
        reply = text(self.without_secrets(" ".join(answer.text.split())), _REPLY_LIMIT)
        return f": {reply}" if reply else ""

    def without_secrets(self, text: str) -> str:
        """The text without secrets. A server may have repeated those of this or an earlier request."""
        for secret in (*self._sent, *self.secrets()):
            text = text.replace(secret, self.hidden)
        return text

    def secrets(self) -> Iterable[str]:
        """The secrets in requests."""
        return ()
