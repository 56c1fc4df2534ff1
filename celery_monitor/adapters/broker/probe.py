"""Publishes the monitor's own events on a second connection, to check that the stream works."""

import time
from typing import Any, Final

from kombu import Producer
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from celery_monitor.adapters.broker.addresses import KnownAddress
from celery_monitor.adapters.broker.dial import Dialer, event_exchange
from celery_monitor.adapters.broker.faults import Boundary, lost, publishers_blocked
from celery_monitor.adapters.broker.session import Session
from celery_monitor.errors import SourceLostError, TasksRefusedError
from celery_monitor.settings.broker import BrokerSettings

ROUTING_KEY: Final = "monitor.probe"
_NO_LIST: Final = "celery-monitor.never-exists"
_REFUSED: Final = ("OOM", "READONLY", "MISCONF", "NOREPLICAS")
_MAX_LENGTH: Final = 200


class BrokerProbe:
    """Publishes to the event exchange (a Probe). For use by one thread."""

    def __init__(self, settings: BrokerSettings, known: KnownAddress | None = None) -> None:
        """Does no I/O. ``known``: see Dialer."""
        self._dialer = Dialer(settings, known)
        self._exchange = settings.exchange
        self._session: Session | None = None
        self._producer: Any = None

    def send(self, body: bytes, timeout: float) -> None:
        """As Probe.send. On AMQP, waits until the broker has confirmed the message."""
        deadline = time.monotonic() + timeout
        if self._session is not None and self._session.outdated:
            self.close()
        with Boundary(self._failed):
            session = self._session or self._open(deadline)
            session.bound(deadline)
            session.publish(
                self._producer,
                body,
                ROUTING_KEY,
                delivery_mode=1,
                content_type="application/json",
                content_encoding="utf-8",
            )
            if not session.acknowledges and self._dialer.kind == "redis":
                self._try_write(session)
            self._dialer.rotation.proven()

    def _try_write(self, session: Session) -> None:
        """Raise TasksRefusedError if Redis rejects writes. Then it accepts no tasks, but still publishes events.

        LPUSHX on a list that does not exist writes nothing, but is rejected like any other write.
        """
        try:
            session.channel.client.lpushx(_NO_LIST, "")
        except ResponseError as exc:
            reason = str(exc)
            if reason.startswith(_REFUSED) or isinstance(exc, ReadOnlyError | OutOfMemoryError):
                self.close()  # the host name may now resolve to another server, which accepts writes
                raise TasksRefusedError(
                    f"the fleet cannot send tasks because Redis rejects writes: {reason[:_MAX_LENGTH]}",
                    hint="OOM: raise maxmemory, or find out what fills it; READONLY: point broker.url and the fleet "
                    "at the master; MISCONF: Redis cannot save to its disk; NOREPLICAS: too few replicas are connected",
                ) from exc

    def _failed(self, exc: Exception) -> SourceLostError:
        session = self._session
        self.close()
        if session is not None and session.blocked:
            return publishers_blocked()
        permissions = None if session is None else session.permissions
        return lost(exc, "cannot publish to the event exchange", permissions, connecting=session is None)

    def _open(self, deadline: float) -> Session:
        amqp = self._dialer.kind == "amqp"
        session = Session(self._dialer, deadline, **({"confirm_publish": True} if amqp else {}))
        # On AMQP, declaring would need a permission. On others, it only informs kombu that the exchange is a fanout.
        exchange = event_exchange(session.client, self._exchange)
        self._producer = Producer(session.channel, exchange, auto_declare=not amqp)
        self._session = session
        return session

    def close(self) -> None:
        """As Probe.close."""
        session, self._session = self._session, None
        self._producer = None
        if session is not None:
            session.cut()
