"""What a process may do by its lease of the store, as far as it can know by its own clock.

The store's clock decides who leads. A process knows a lower bound: a renewal that it asked for at a moment holds for
at least ``ttl`` from that moment on, however long the answer took. Sending is given up some time before that, so that
a request that has just begun is over when another process may take the lease. All times are monotonic seconds.
"""

import math
from typing import Final

TRUST: Final = 0.75
"""Part of the lease for which a process sends notifications without a new renewal."""

UNREADY_WAIT: Final = 2.0
"""Seconds for which a free lease is left to a process that can go on without a gap."""


class Candidate:
    """When a process that waits may ask for the lease."""

    def __init__(self) -> None:
        self._free_since: float | None = None

    def unavailable(self) -> None:
        """The store does not answer, so the leader cannot renew its lease either."""
        self._free_since = None

    def may_lead(self, expires_in: float, now: float, *, ready: bool) -> bool:
        """Whether to ask for it. ``ready``: nothing is missed by taking over now.

        ``expires_in``: seconds, by the store's clock, until it is free; not positive once it is. A process that is not
        ready leaves a free lease to one that is, and to a leader that could not renew it: both have what it lacks.
        """
        if expires_in > 0:
            self._free_since = None
            return False
        if self._free_since is None:
            self._free_since = now
        return ready or now - self._free_since >= UNREADY_WAIT


class Leadership:
    """One term: from the moment the lease was taken until it is lost or resigned; it never begins again."""

    def __init__(self, ttl: float, asked_at: float) -> None:
        """``ttl``: seconds that a renewal holds; infinite where no other process can take the lease."""
        self.ttl = ttl
        self.end_reason: str | None = None
        """Why the term has ended."""
        self._renewed_at = asked_at
        self._failed_at = -math.inf

    def renewed(self, asked_at: float) -> None:
        """The store has extended the lease; ``asked_at`` is when it was asked to."""
        self._renewed_at = max(self._renewed_at, asked_at)

    def failed(self, now: float) -> None:
        """The store has not answered until now: nobody knows who leads."""
        self._failed_at = max(self._failed_at, now)

    def end(self, reason: str) -> None:
        """Another process leads, or the lease was given up. The first reason stays."""
        self.end_reason = self.end_reason or reason

    def may_send(self, now: float) -> bool:
        """Whether a notification may be sent: no other process can lead for a while."""
        return self.end_reason is None and now < self._renewed_at + TRUST * self.ttl

    def may_consume(self, now: float) -> bool:
        """Whether messages may be held: no other process can lead yet, so nobody waits for them."""
        return self.end_reason is None and now < self._renewed_at + self.ttl

    def unreachable(self) -> bool:
        """Whether the store did not answer after the trust in the last renewal had ended."""
        return self.end_reason is None and self._failed_at >= self._renewed_at + TRUST * self.ttl
