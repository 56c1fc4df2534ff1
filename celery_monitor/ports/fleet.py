"""What the workers and the broker's queues are asked."""

from collections.abc import Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from celery_monitor.core.model import FleetTask, QueueStats, WorkerDetail


class FleetControl(Protocol):
    """Celery's remote control and the broker's queues; slow, and never used by the pump's thread."""

    @property
    def responders(self) -> AbstractSet[str]:
        """Hostnames of the workers that answered when all were asked last."""

    @property
    def discarded(self) -> Mapping[str, int]:
        """Replies that were not used, by reason, since the start."""

    def open(self) -> None:
        """Connect, so that the next question goes out at once. Raises SourceLostError."""

    def ping(self, timeout: float) -> AbstractSet[str]:
        """Ask all workers for a sign; who gave one. Raises SourceLostError."""

    def enable_events(self, timeout: float, hostnames: Sequence[str] = ()) -> Mapping[str, bool]:
        """Ask these workers, or all, to send task events; returns as soon as all of these have answered.

        Hostname → whether the worker sends them only since then. Raises SourceLostError.
        """

    def tasks(self, timeout: float, hostnames: Sequence[str] = ()) -> Sequence[FleetTask]:
        """What these workers, or all, hold now (active, reserved, scheduled). Raises SourceLostError."""

    def queues(self, timeout: float, now: float, down: Container[str] = ()) -> Sequence[QueueStats]:
        """Queues that workers consume or did, or that settings name, with lengths and consumers.

        Those that tasks were counted in before a restart are told from when something is in them.

        ``now`` is monotonic: it tells for how long a queue was of no use to anybody. ``down``: hostnames of workers
        whose silence means that they are gone; others are given some rounds to answer. Raises SourceLostError.
        """

    def lengths(self, now: float, *, down: Container[str] = ()) -> Sequence[QueueStats]:
        """As ``queues``, without asking the workers."""

    def registered(self, hostnames: Sequence[str], timeout: float) -> dict[str, list[str]]:
        """Names of the tasks that these workers know, by hostname, of those that answered. Raises SourceLostError."""

    def held_task_ids(
        self, hostnames: Sequence[str], timeout: float, *, fetched: bool
    ) -> Mapping[str, AbstractSet[str]]:
        """IDs of the tasks that these workers run, by hostname, of those that told all. Raises SourceLostError.

        ``fetched``: also of those that they have fetched and not begun, which may be many.
        """

    @property
    def busy(self) -> AbstractSet[str]:
        """Hostnames of the workers that neither answer nor send heartbeats while they run a task (the solo pool)."""

    @property
    def details(self) -> Mapping[str, WorkerDetail]:
        """What the workers said of themselves, by hostname, of those that answered the last ``queues``."""

    def worker_queues(self) -> dict[str, list[str]]:
        """Hostname → names of the queues it consumes, as of the last ``queues`` calls."""

    def close(self) -> None:
        """Drop all connections; never blocks long."""
