"""Questions about the broker that change nothing on it."""

import time
from dataclasses import dataclass
from typing import Final

from celery_monitor.adapters.broker.dial import CONNECT_TIMEOUT, Dialer
from celery_monitor.adapters.broker.faults import FOREIGN, lost
from celery_monitor.adapters.broker.session import Session
from celery_monitor.settings.broker import BrokerSettings

_ANSWER_WITHIN: Final = 5.0


@dataclass(frozen=True, slots=True)
class QueueFound:
    """The monitor's queue as it is on the broker."""

    messages: int
    consumers: int


class BrokerCheckup:
    """One connection. Methods raise SourceLostError."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Does no I/O."""
        self._settings = settings
        self._dialer = Dialer(settings)
        self.acknowledges = self._dialer.kind == "amqp"
        """The transport has exchanges and queues that can be looked at."""
        self._session: Session | None = None

    def connect(self) -> float:
        """Connect and log in; the seconds that it took."""
        began = time.monotonic()
        try:
            self._session = Session(self._dialer, began + CONNECT_TIMEOUT)
            if not self.acknowledges:
                self._session.channel.queue_declare(self._settings.queue.name, passive=True)
        except FOREIGN as exc:
            raise lost(exc, "cannot connect to the broker") from exc
        return time.monotonic() - began
