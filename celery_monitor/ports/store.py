"""The store: what it keeps for the process that leads."""

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
    """Bytes left before the limit or the end of the disk; None while it is not known, or without an end."""
    short: bool = False
    """Samples, groups or old counts are being given up."""
    given_up: Mapping[str, int] = field(default_factory=dict)
    """samples, groups, buckets → how many, since the process began."""


@dataclass(frozen=True, slots=True)
class LeaseState:
    """Who leads, as the database has it and by its clock."""

    holder: str
    """The name of the process that leads, or led last; empty for none."""
    term: int
    """Grows by one with each process that begins to lead."""
    expires_in: float
    """Seconds until another process may take the lease; 0 or less: it is free."""


class Store(Protocol):
    """Where everything is kept. A public method is one transaction. Safe from several threads.

    Every method raises StoreUnavailableError when it cannot be done now; nothing is applied then. Every method that
    writes, those of the Outbox included, raises LeaseLostError once another process has taken the lease.
    """

    lease_ttl: float
    """Seconds for which a lease runs after it was taken or renewed. Each commit renews it."""
    shared: bool
    """Another process can open the same store, wait, and take over. Else the lease is always there to be taken."""

    def lead(self, holder: str) -> Restored | None:
        """Take the lease under a name, migrate, and read what the monitor goes on from.

        None: another process leads; reading is possible meanwhile. Raises StoreUnusableError too. What is read may take
        longer than the lease runs: ``renew`` may be called from another thread meanwhile.
        """

    def renew(self) -> None:
        """Extend the lease. An expired one that nobody has taken is still held."""

    def resign(self) -> None:
        """Let another process take over at once; nothing can be written any more. Raises nothing, and is bounded."""

    def lease(self) -> LeaseState:
        """Who leads. Only reads, and works without leading.

        Raises StoreUnavailableError also while a newer version leads: this process could not take over.
        """

    def position(self) -> str | None:
        """``Changes.position`` of the last flush that had one. Only reads, and works without leading."""

    def commit(self, changes: Changes) -> None:
        """Write a flush. Applying a sequence that was applied before has no effect.

        Raises StoreUnusableError when the sequence is not the next one.
        """

    def prune(self, now: float) -> None:
        """Delete what is older than the retention, in bounded portions.

        Where space is short, also the oldest of what can be given up.
        """

    def space(self) -> StoreSpace:
        """From memory; raises nothing."""

    def stop(self) -> None:
        """Resign, and close all connections."""


class SilenceBook(Protocol):
    """Silences, which people add and end. Methods as in Store."""

    def add(self, silence: Silence) -> None:
        """Keep a new silence. Raises TooManySilencesError."""

    def end(self, silence_id: str, now: float) -> Silence | None:
        """End it now; as it is then. None when there is none with this ID that has not ended."""

    def current(self, now: float) -> list[Silence]:
        """Those that have not ended, the first to end first."""

    def ended(self, now: float) -> list[Silence]:
        """Those that have ended within the retention, the last to end first; at most 200."""
