"""What a process may do with its lease on the store, as far as its own clock can tell.

The store's clock decides who leads. A process knows a lower bound: a renewal holds for at least ``ttl`` from the
moment at which it was requested, however long the answer took. Sending stops some time before that, so that a request
that has just begun is finished when another process may take the lease. All times are monotonic seconds.
"""

import math
from typing import Final

TRUST: Final = 0.75
"""Fraction of the lease for which a process may send notifications without a new renewal."""

UNREADY_WAIT: Final = 2.0
"""Seconds for which a free lease is left to a process that can take over without a gap."""


class Candidate:
    """Decides when a waiting process may request the lease."""

    def __init__(self) -> None:
        self._free_since: float | None = None

    def unavailable(self) -> None:
        """The store does not answer, so the leader cannot renew its lease either."""
        self._free_since = None

    def may_lead(self, expires_in: float, now: float, *, ready: bool) -> bool:
        """Whether to request the lease. ``ready``: a takeover now would miss no messages.

        ``expires_in``: seconds until the lease is free, by the store's clock; zero or negative once it is. A process
        that is not ready leaves a free lease for a while to one that is, and to the leader that could not renew it.
        """
        if expires_in > 0:
            self._free_since = None
            return False
        if self._free_since is None:
            self._free_since = now
        return ready or now - self._free_since >= UNREADY_WAIT


class Leadership:
    """One term, from taking the lease until it is lost or given up. A term never restarts."""

    def __init__(self, ttl: float, asked_at: float) -> None:
        """``ttl``: seconds for which a renewal holds; infinite if no other process can take the lease."""
        self.ttl = ttl
        self.end_reason: str | None = None
        """Why the term has ended; None while it lasts."""
        self._renewed_at = asked_at
        self._failed_at = -math.inf

    def renewed(self, asked_at: float) -> None:
        """The store has extended the lease; ``asked_at``: when the renewal was requested."""
        self._renewed_at = max(self._renewed_at, asked_at)

    def failed(self, now: float) -> None:
        """The store has not answered, so it is unknown who leads."""
        self._failed_at = max(self._failed_at, now)

    def end(self, reason: str) -> None:
        """End the term: another process leads, or the lease was given up. The first reason is kept."""
        self.end_reason = self.end_reason or reason

    def may_send(self, now: float) -> bool:
        """Whether notifications may be sent: no other process can become leader for some time."""
        return self.end_reason is None and now < self._renewed_at + TRUST * self.ttl

    def may_consume(self, now: float) -> bool:
        """Whether messages may be held: no other process can be leader yet."""
        return self.end_reason is None and now < self._renewed_at + self.ttl

    def unreachable(self) -> bool:
        """Whether the store has failed to answer since the last renewal stopped being trusted."""
        return self.end_reason is None and self._failed_at >= self._renewed_at + TRUST * self.ttl
