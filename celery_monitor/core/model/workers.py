"""Workers and queues."""

from dataclasses import dataclass

import msgspec


class Worker(msgspec.Struct, frozen=True, gc=False):
    """A worker's state from its heartbeats and events. All fields are stored."""

    hostname: str
    """Full hostname (``celery@box``)."""
    up: bool
    last_heartbeat: float
    active: int
    processed: int
    """Tasks that its present process has started, from its heartbeats."""
    pid: int
    sw_ident: str = ""
    sw_ver: str = ""
    sw_sys: str = ""
    started_seen: int = 0
    """task-started events received from its present process."""
    baseline: int = 0
    """processed - started_seen when it was first seen: tasks it had started before the monitor watched it."""
    unobserved: int = 0
    """Tasks started but never observed, over all its processes and those of dropped workers of its host."""
    processed_before: int = 0
    """Tasks started by its earlier processes and by dropped workers of its host. Plus ``processed``, it never falls."""
    clock_offset: float = 0.0
    """Seconds by which the monitor's clock is ahead of the worker's; 0 if they differ by less than a minute."""
    heartbeats: bool = True
    """Whether it sends heartbeats. If not, ``last_heartbeat`` is its last sign of life."""
    began_at: float = 0.0
    """Earliest time at which its present process may have begun, in Unix seconds; 0 if unknown."""
    goodbye_at: float = 0.0
    """Time of the last worker-offline of this name, in Unix seconds; 0 without one."""
    goodbye_sign: float = 0.0
    """Time of that process's last event before it."""
    unfinished: int = 0
    """Tasks that were active at that worker-offline and have not ended yet."""


@dataclass(frozen=True, slots=True)
class WorkerDetail:
    """A worker's latest answers about itself. Not stored; None for unknown values."""

    queues: tuple[str, ...] = ()
    """Names of the queues that it consumes."""
    pool: str | None = None
    """Its pool implementation, such as ``prefork``."""
    processes: int | None = None
    """Size of its pool."""
    prefetch: int | None = None
    """Its prefetch count: the maximum number of unacknowledged messages."""
    uptime: float | None = None
    """Seconds since its start, at ``answered_at``."""
    peak_memory: int | None = None
    """Peak memory of its main process in bytes, on Linux."""
    answered_at: float = 0.0
    """Unix seconds of the answer; 0 if it has not answered."""
    load: tuple[float, float, float] | None = None
    """Load averages of its machine over 1, 5 and 15 minutes, from its last heartbeat."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The state of a queue, as the fleet adapter measured it."""

    name: str
    length: int | None
    consumers: int | None
    """Consumers according to the broker; None if it cannot report them."""
    workers: int
    """Number of Celery workers that consume it."""
    processes: int
    """Total number of their pool processes."""
