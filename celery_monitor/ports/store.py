"""The store, as the leading process uses it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from celery_monitor.core.model import Changes, Restored, Silence


@dataclass(frozen=True, slots=True)
class StoreSpace:
    """How much space the store has, as of its last flush. Bytes."""

    used: int = 0
    limit: int | None = None
    """``store.max_bytes``; None without a limit."""
    room: int | None = None
    """Bytes left until the limit or the end of the disk; None if unknown or unlimited."""
    short: bool = False
    """Whether samples, groups or old counts are deleted to free space."""
    given_up: Mapping[str, int] = field(default_factory=dict)
    """``samples``, ``groups`` or ``buckets`` → how many were deleted for space since the process started."""


@dataclass(frozen=True, slots=True)
class LeaseState:
    """The lease as recorded in the database, by the database's clock."""

    holder: str
    """Name of the process that leads, or led last; empty if none ever did."""
    term: int
    """Incremented each time a process begins to lead."""
    expires_in: float
    """Seconds until another process may take the lease; zero or negative if it is free."""


class Store(Protocol):
    """The database. Each public method is one transaction. Safe from several threads.

    Every method raises StoreUnavailableError if the store cannot be used now; nothing is applied then. Every method
    that writes, including those of the Outbox, raises LeaseLostError once another process has taken the lease.
    """

    lease_ttl: float
    """Seconds for which the lease is valid after it was taken or renewed. Each commit renews it."""
    shared: bool
    """Whether other processes can open the same store and stand by. If not, the lease is always available."""

    def lead(self, holder: str) -> Restored | None:
        """Take the lease in the name of ``holder``, migrate the schema, and read the state to continue from.

        Returns None if another process leads; reads are possible nevertheless. Also raises StoreUnusableError. Reading
        may take longer than the lease is valid, so ``renew`` may be called from another thread meanwhile.
        """

    def renew(self) -> None:
        """Extend the lease, even an expired one if no other process has taken it."""

    def resign(self) -> None:
        """Release the lease so that another process can take over at once. Raises nothing; bounded in time."""

    def lease(self) -> LeaseState:
        """The current lease. Only reads, and does not require the lease.

        Also raises StoreUnavailableError while a newer version leads, because this process could not take over.
        """

    def position(self) -> str | None:
        """``Changes.position`` of the last flush that had one. Only reads, and does not require the lease."""

    def commit(self, changes: Changes) -> None:
        """Write a flush. A flush whose sequence was already applied has no effect.

        Raises StoreUnusableError if its sequence is not the next one.
        """

    def prune(self, now: float) -> None:
        """Delete rows older than the retention, a bounded number at a time.

        If space is short, also the oldest samples, groups and counts.
        """

    def space(self) -> StoreSpace:
        """The space used, from memory; raises nothing."""

    def stop(self) -> None:
        """Resign and close all connections."""


class SilenceBook(Protocol):
    """The silences, which people add and end. Methods behave as in Store."""

    def add(self, silence: Silence) -> None:
        """Store a new silence. Raises TooManySilencesError."""

    def end(self, silence_id: str, now: float) -> Silence | None:
        """End a silence now and return it; None if no silence with this ID is active or pending."""

    def current(self, now: float) -> list[Silence]:
        """Active and pending silences, the first to end first."""

    def effective(self, now: float, since: float) -> list[Silence]:
        """All silences that may cover an event from between ``since`` and now: also those that have ended since then.

        The first to end first; of the ended ones at most the newest MAX_SILENCES.
        """

    def ended(self, now: float) -> list[Silence]:
        """Ended silences within the retention, the last to end first; at most 200."""
