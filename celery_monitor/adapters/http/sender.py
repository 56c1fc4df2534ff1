"""What the senders of channels that speak HTTP share: one request at a time, which ends when the program is stopped."""

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
    """Base of a Sender. A subclass has ``missing``, ``rate_limit_key`` and ``send``, and makes requests by ``run``."""

    receiver: str
    """The receiver in messages, without the path of its URL: that may hold a secret."""
    hidden: str = "[secret]"
    """What stands for a secret in messages."""

    def __init__(
        self,
        *,
        channel: str,
        incident: Callable[[str], Incident | None],
        clock: Clock,
        timeout: float,
        external_url: str | None = None,
    ) -> None:
        """``incident`` gives an incident as committed, and may raise StoreUnavailableError.

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
        """End a request under way; ``send`` raises InterruptedSendError from now on. From any thread."""
        self._stopped = True
        self._exchange.abort(_STOPPING)

    def incident_of(self, item: OutboxItem) -> Incident:
        """The incident of a row. Raises RejectedError when it is gone, and StoreUnavailableError."""
        incident = self._incident(item.key)
        if incident is None:
            raise RejectedError("its incident is older than store.retention and no longer stored")
        return incident

    def run(self, request: Callable[[Exchange], Answer], *request_secrets: str) -> Answer:
        """Make one request. Raises RetryableError when no answer came, and InterruptedSendError.

        ``request_secrets``: secrets in it, which may not be those of ``secrets`` any more when the answer comes.
        """
        self._sent = request_secrets
        if self._stopped:
            raise InterruptedSendError(_STOPPING)
        if self._exchange.alive:
            # It sends nothing any more, but one waiting thread is enough.
            raise RetryableError("the previous request is still waiting for DNS")
        exchange = self._exchange = Exchange()
        if self._stopped:  # else it would not be aborted
            raise InterruptedSendError(_STOPPING)
        try:
            return request(exchange)
        except NoAnswerError as exc:
            if self._stopped:
                raise InterruptedSendError(_STOPPING) from None
            reason = line(self.without_secrets(str(exc)), _REASON_LIMIT)
            # Without its cause, which may hold a secret.
            raise RetryableError(f"{self.receiver}: {reason}", remedy=exc.remedy) from None

    def reply(self, answer: Answer) -> str:
        """What the receiver said, to follow its status: short, printable, and without secrets."""
        reply = text(self.without_secrets(" ".join(answer.text.split())), _REPLY_LIMIT)
        return f": {reply}" if reply else ""

    def without_secrets(self, text: str) -> str:
        """A text in which a server may have repeated what it was sent, now or before."""
        for secret in (*self._sent, *self.secrets()):
            text = text.replace(secret, self.hidden)
        return text

    def secrets(self) -> Iterable[str]:
        """The secrets that requests hold."""
        return ()
