"""The lease is renewed in a thread of its own, so that neither a long flush nor a quiet stream lets it run out."""

import threading
from collections.abc import Callable
from typing import Final

import structlog

from celery_monitor.core.leadership import Leadership
from celery_monitor.core.model import OutboxItem
from celery_monitor.errors import LeaseLostError, StoreUnavailableError
from celery_monitor.ports import Clock, Store

PARTS: Final = 3
"""Renewals in the time for which a lease runs."""
RETRY: Final = 0.5
"""Seconds until a renewal is tried again that the store did not take."""

_log = structlog.get_logger()


class HeldLease:
    """What the parts of a leader ask, and the loop that keeps the answer right. Safe from several threads."""

    def __init__(self, store: Store, clock: Clock, asked_at: float, *, alone: bool = False) -> None:
        """``asked_at``: monotonic time at which the store was asked for the lease that it gave.

        ``alone``: nobody waits to take over, so an outage of the store is no reason to stop. The fence of the store
        holds all the same.
        """
        self.contested = store.shared and not alone
        """Another process takes over where this one is silent."""
        self._store = store
        self._clock = clock
        self._term = Leadership(store.lease_ttl if self.contested else float("inf"), asked_at)
        self._unreachable = False

    @property
    def end_reason(self) -> str | None:
        """Why it has ended; None while it is held, as far as is known."""
        return self._term.end_reason

    def end(self, reason: str) -> None:
        """Another process leads."""
        self._term.end(reason)

    def may_consume(self) -> bool:
        """Whether messages may be held that another process could wait for."""
        return self._term.may_consume(self._clock.monotonic())

    def may_send(self, item: OutboxItem | None, *, idempotent: bool) -> bool:
        """Whether this notification may be sent; None: one that repeats what was sent.

        One that the store could not take (it has no row) is also sent while nobody can ask the store, where the
        receiver knows what it has had: nobody else can send it, but for a leader that got the same messages.
        """
        if self._term.may_send(self._clock.monotonic()):
            return True
        return idempotent and item is not None and item.id <= 0 and self._term.unreachable()

    def run(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        """Renew it until ``stop`` is set. Raises LeaseLostError."""
        while not stop.is_set():
            heartbeat()
            # A renewal holds from when it was asked for: after a slow answer the next one is due at once.
            due_at = self._clock.monotonic() + self._store.lease_ttl / PARTS
            stop.wait(max(0.0, due_at - self._clock.monotonic()) if self.renew() else RETRY)

    def renew(self) -> bool:
        """Once; False where the store did not answer. Raises LeaseLostError."""
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
    """Renews a lease that has just been taken, while what the leader goes on from is read. A context manager."""

    def __init__(self, store: Store) -> None:
        """Does nothing where no other process can take it."""
        self._store = store
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keep-alive", daemon=True)

    def __enter__(self) -> None:
        """Begin."""
        if self._store.shared:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        """End; the lease is the caller's now."""
        self._done.set()
        if self._store.shared:
            self._thread.join(self._store.lease_ttl)

    def _run(self) -> None:
        while not self._done.wait(self._store.lease_ttl / PARTS):
            try:
                self._store.renew()
            except (LeaseLostError, StoreUnavailableError):
                continue  # not taken yet, or about to be told to the caller
