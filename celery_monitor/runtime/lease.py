"""Renews the leader's lease in a thread of its own, so that neither a long flush nor a quiet stream lets it expire."""

import threading
from collections.abc import Callable
from typing import Final

import structlog

from celery_monitor.core.leadership import Leadership
from celery_monitor.core.model import OutboxItem
from celery_monitor.errors import LeaseLostError, StoreUnavailableError
from celery_monitor.ports import Clock, Store

PARTS: Final = 3
"""Renewals per lease duration."""
RETRY: Final = 0.5
"""Seconds until a failed renewal is retried."""

_log = structlog.get_logger()


class HeldLease:
    """The lease of a leading process: renews it, and says what it permits. Safe from several threads."""

    def __init__(self, store: Store, clock: Clock, asked_at: float, *, alone: bool = False) -> None:
        """``asked_at``: monotonic time at which the lease was requested from the store.

        ``alone``: there is no standby, so an outage of the store is no reason to stop. The store still refuses writes
        once another process has taken the lease.
        """
        self.contested = store.shared and not alone
        """Whether another process takes over when this one does not renew the lease."""
        self._store = store
        self._clock = clock
        self._term = Leadership(store.lease_ttl if self.contested else float("inf"), asked_at)
        self._unreachable = False

    @property
    def end_reason(self) -> str | None:
        """Why the lease has ended; None while it is held as far as is known."""
        return self._term.end_reason

    def end(self, reason: str) -> None:
        """Another process leads."""
        self._term.end(reason)

    def may_consume(self) -> bool:
        """Whether this process may hold unacknowledged messages, which no other leader can receive meanwhile."""
        return self._term.may_consume(self._clock.monotonic())

    def may_send(self, item: OutboxItem | None, *, idempotent: bool) -> bool:
        """Whether this notification may be sent. None: resending open incidents.

        A page without a row (the store was unavailable) may also be sent while the store is unreachable, if the
        receiver deduplicates: no other process can send it, except a new leader that received the same messages.
        """
        if self._term.may_send(self._clock.monotonic()):
            return True
        return idempotent and item is not None and item.id <= 0 and self._term.unreachable()

    def run(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        """Renew it until ``stop`` is set. Raises LeaseLostError."""
        while not stop.is_set():
            heartbeat()
            # A renewal counts from when it was requested: after a slow answer the next one is due at once.
            due_at = self._clock.monotonic() + self._store.lease_ttl / PARTS
            stop.wait(max(0.0, due_at - self._clock.monotonic()) if self.renew() else RETRY)

    def renew(self) -> bool:
        """Renew it once; False if the store did not answer. Raises LeaseLostError."""
        asked_at = self._clock.monotonic()
        try:
            self._store.renew()
        except StoreUnavailableError as exc:
            self._term.failed(self._clock.monotonic())
            if not self._unreachable:
                then = "another replica takes over if it can" if self.contested else "continuing"
                _log.warning(f"Cannot renew the lease; {then}", error=str(exc))
            self._unreachable = True
            return False
        self._term.renewed(asked_at)
        if self._unreachable:
            _log.info("The lease is renewed again")
        self._unreachable = False
        return True


class KeepAlive:
    """Context manager that renews a lease that was just acquired, while the stored state is read."""

    def __init__(self, store: Store) -> None:
        """Does nothing if no other process can take the lease."""
        self._store = store
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keep-alive", daemon=True)

    def __enter__(self) -> None:
        """Start to renew."""
        if self._store.shared:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        """Stop; from now on the caller renews the lease."""
        self._done.set()
        if self._store.shared:
            self._thread.join(self._store.lease_ttl)

    def _run(self) -> None:
        while not self._done.wait(self._store.lease_ttl / PARTS):
            try:
                self._store.renew()
            except (LeaseLostError, StoreUnavailableError):
                continue  # not acquired yet, or the caller is about to learn that it was lost
