"""Workers and queues."""

from dataclasses import dataclass

import msgspec


class Worker(msgspec.Struct, frozen=True, gc=False):
    """A worker as its heartbeats and events tell it. Stored whole."""

    hostname: str
    """Whole (``celery@box``)."""
    up: bool
    last_heartbeat: float
    active: int
    processed: int
    """Tasks that this run of it has begun, as its heartbeats tell."""
    pid: int
    sw_ident: str = ""
    sw_ver: str = ""
    sw_sys: str = ""
    started_seen: int = 0
    """task-started events seen of this run of the worker."""
    baseline: int = 0
    """processed - started_seen when it was first seen: what it had begun before the monitor was there."""
    unobserved: int = 0
    """Tasks begun and never observed, over all of its runs and those of workers of its host that are gone."""
    processed_before: int = 0
    """Tasks begun by its earlier runs, and by workers of its host that are gone: with ``processed`` it never falls."""
    clock_offset: float = 0.0
    """Seconds that the monitor's clock is ahead of the worker's; 0 when they differ by less than a minute."""
    heartbeats: bool = True
    """False: it sends none; ``last_heartbeat`` is its last sign of life then."""
    began_at: float = 0.0
    """When its present process began at the earliest, in Unix seconds; 0 when that is not known."""
    goodbye_at: float = 0.0
    """When a process of this name last said good-bye, in Unix seconds; 0: none has."""
    goodbye_sign: float = 0.0
    """When that process was last heard before."""
    unfinished: int = 0
    """Tasks that ran at that good-bye, and whose ends have not come."""


@dataclass(frozen=True, slots=True)
class WorkerDetail:
    """What a worker said of itself last, beside what is counted. Not stored; None for what it did not say."""

    queues: tuple[str, ...] = ()
    """Names of those that it consumes."""
    pool: str | None = None
    """Kind of its pool, as Celery names it: ``prefork``."""
    processes: int | None = None
    """Size of its pool."""
    prefetch: int | None = None
    """Messages that it may have fetched and not acknowledged."""
    uptime: float | None = None
    """Seconds since its start, at ``answered_at``."""
    peak_memory: int | None = None
    """Bytes that its main process has had in memory at most, where it runs on Linux."""
    answered_at: float = 0.0
    """Unix seconds of the answer; 0: it has not answered."""
    load: tuple[float, float, float] | None = None
    """Load averages of its machine over 1, 5 and 15 minutes, by its last heartbeat."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What the fleet adapter found in the background."""

    name: str
    length: int | None
    consumers: int | None
    """Processes or connections that consume it, as the broker tells; None where it cannot."""
    workers: int
    """Celery workers that consume it."""
    processes: int
    """Their pool processes together."""
