"""Requests to the workers and the broker's queues."""

from collections.abc import Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from celery_monitor.core.model import FleetTask, QueueStats, WorkerDetail


class FleetControl(Protocol):
    """Celery's remote control, and the broker's queues. Slow; never used by the pump's thread."""

    @property
    def responders(self) -> AbstractSet[str]:
        """Hostnames of the workers that answered the last request to all."""

    @property
    def discarded(self) -> Mapping[str, int]:
        """Number of discarded replies since the start, by reason."""

    def open(self) -> None:
        """Connect, so that the next request is sent at once. Raises SourceLostError."""

    def ping(self, timeout: float) -> AbstractSet[str]:
        """Ping all workers; return the hostnames of those that answered. Raises SourceLostError."""

    def enable_events(self, timeout: float, hostnames: Sequence[str] = ()) -> Mapping[str, bool]:
        """Ask these workers, or all, to send task events. Returns as soon as all ``hostnames`` have answered.

        Returns hostname → whether the worker did not send them before. Raises SourceLostError.
        """

    def tasks(self, timeout: float, hostnames: Sequence[str] = ()) -> Sequence[FleetTask]:
        """Tasks that these workers, or all, hold now (active, reserved, scheduled). Raises SourceLostError."""

    def queues(self, timeout: float, now: float, down: Container[str] = ()) -> Sequence[QueueStats]:
        """Queues that workers consume or did consume, or that the settings name, with lengths and consumers.

        Queues in which tasks were counted before a restart are included once they contain something.

        ``now`` is monotonic, and measures how long a queue has been unused. ``down``: hostnames of workers that are
        known to be down; others may miss a few rounds before they count as gone. Raises SourceLostError.
        """

    def lengths(self, now: float, *, down: Container[str] = ()) -> Sequence[QueueStats]:
        """As ``queues``, without a request to the workers."""

    def registered(self, hostnames: Sequence[str], timeout: float) -> dict[str, list[str]]:
        """Hostname → names of its registered tasks, of those workers that answered. Raises SourceLostError."""

    @property
    def unreported(self) -> Mapping[str, AbstractSet[str]]:
        """Hostname → those of its registered tasks of which it sends no events (``send_events=False``).

        Of those workers that answered the last ``registered``.
        """

    def held_task_ids(
        self, hostnames: Sequence[str], timeout: float, *, fetched: bool
    ) -> Mapping[str, AbstractSet[str]]:
        """Hostname → IDs of the tasks that it runs, of those workers that answered completely. Raises SourceLostError.

        ``fetched``: also tasks that they have prefetched and not started, which may be many.
        """

    @property
    def busy(self) -> AbstractSet[str]:
        """Hostnames of workers that neither answer nor send heartbeats while they run a task (the solo pool)."""

    @property
    def details(self) -> Mapping[str, WorkerDetail]:
        """Hostname → what it reported about itself, of those workers that answered the last ``queues``."""

    def worker_queues(self) -> dict[str, list[str]]:
        """Hostname → names of the queues that it consumes, as of the last calls of ``queues``."""

    def close(self) -> None:
        """Drop all connections; never blocks long."""
