"""Decides whether the worker of a run is gone: it is silent, or another process has its name.

A worker that receives SIGTERM first sends worker-offline and then finishes its tasks. Meanwhile it sends no heartbeats,
does not answer, and buffers the events of ended tasks until there are 24 or the last task has ended (measured with
Celery 5.4 and 5.7). So its silence after worker-offline proves nothing. Neither does a new process of the same name: if
containers share a name, it may start before the previous one has finished. A process that is killed while it finishes
can only be detected by a timeout: the rule's ``finishing_for``.

Heartbeats and worker-offline contain the number of active tasks. If it is 0, or if as many tasks have ended since
worker-offline as were active then, all earlier runs have ended, even without an event: a task that raises ``Ignore``
sends none.
"""

import math
from collections.abc import Collection, Container
from typing import Final

from celery_monitor.core.worker import Liveness
from celery_monitor.core.workers import Workers

NEW_PROCESS_GRACE: Final = 10.0
"""Watched seconds after the start of a worker's new process in which the last events of the previous one may arrive."""
HEARTBEATS_APART: Final = 10.0
"""Seconds: a run that started within this time of the last event before worker-offline started before worker-offline,
unless the new process had started by then."""
MAX_ANSWERS: Final = 20_000


class WorkerLiveness:
    """The workers' signs of life, including answers. Not thread-safe. Times in watched seconds."""

    def __init__(self, workers: Workers, purge: float) -> None:
        """``purge``: seconds of silence after which ``workers`` drops a worker."""
        self._workers = workers
        self._purge = purge
        self._answered: dict[str, float] = {}
        self._busy: Container[str] = frozenset()
        self._goodbyes: dict[str, tuple[float, float]] = {}
        """Worker → watched time of its worker-offline, and Unix time of its last event before."""
        self.any_answered = False
        """Whether any worker has answered since the start."""

    def note_answers(self, hostnames: Collection[str], busy: Container[str], watched: float) -> None:
        """Record answers; ``busy``: workers that can neither answer nor send heartbeats while they run a task."""
        if len(self._answered) > MAX_ANSWERS:
            self._answered.clear()
        self._answered.update(dict.fromkeys(hostnames, watched))
        self._busy = busy
        self.any_answered |= bool(hostnames)

    def clock_set_back(self, seconds: float, now: float) -> None:
        """The machine's clock was set back by ``seconds`` to ``now``."""
        self._goodbyes = {
            host: (watched, last_sign - seconds if last_sign > now else last_sign)
            for host, (watched, last_sign) in self._goodbyes.items()
        }

    def has_ended(self, hostname: str, started_at: float, watched: float, *, denied_at: float | None) -> bool:
        """Whether the process of a run that started then has reported that it runs nothing, or not this run.

        ``denied_at``: when a worker of this name answered without the run. The answer came from the run's process if no
        other process of this name appeared for some time after.
        """
        liveness = self._workers.liveness(hostname)
        if liveness is None or liveness.no_heartbeats or liveness.is_shared(watched):
            return False
        if started_at < liveness.began_at:
            return started_at < liveness.idle_before
        denied = denied_at is not None and watched - denied_at >= NEW_PROCESS_GRACE
        return denied or started_at < liveness.idle_at

    def lost_at(
        self, hostname: str, started_at: float, silent_for: float, watched: float, *, finishing_for: float
    ) -> float | None:
        """When the worker of a run that started then was last alive, in Unix seconds; None while it is not gone.

        ``silent_for``, ``finishing_for``: see Rule.
        """
        liveness = self._workers.liveness(hostname)
        if liveness is not None and liveness.goodbye > -math.inf:
            self._note_goodbye(hostname, liveness)
        goodbye_at, last_sign = self._goodbyes.get(hostname, (0.0, -math.inf))
        succeeded = liveness is not None and last_sign < liveness.began_at <= started_at
        if started_at <= last_sign + HEARTBEATS_APART and not succeeded:
            return last_sign if watched - goodbye_at >= finishing_for else None
        if liveness is None:
            return None
        if (
            started_at < liveness.began_at
            and not liveness.is_shared(watched)
            and watched - liveness.began >= NEW_PROCESS_GRACE
        ):
            return liveness.began_at
        if self._never_responds(hostname, liveness):
            return None
        silence = watched - max(liveness.last_seen, self._answered.get(hostname, -1.0))
        return liveness.last_sign if silence >= min(silent_for, 0.9 * self._purge) else None

    def safe_after(self, hostname: str, silent_for: float, watched: float) -> float:
        """A start time after which no run of this worker can have ended or been lost; infinite if any can.

        For a run that started later, ``has_ended`` without ``denied_at`` is False, and ``lost_at`` with at least this
        ``silent_for`` is None. In Unix seconds.
        """
        liveness = self._workers.liveness(hostname)
        if liveness is not None and liveness.goodbye > -math.inf:
            self._note_goodbye(hostname, liveness)
        latest = self._goodbyes.get(hostname, (0.0, -math.inf))[1] + HEARTBEATS_APART
        if liveness is None:
            return latest
        silence = watched - max(liveness.last_seen, self._answered.get(hostname, -1.0))
        if silence >= min(silent_for, 0.9 * self._purge) and not self._never_responds(hostname, liveness):
            return math.inf
        return max(latest, liveness.began_at, liveness.idle_at)

    def _never_responds(self, hostname: str, liveness: Liveness) -> bool:
        """Whether the worker sends no signs of life anyway, so that its silence proves nothing."""
        return hostname in self._busy or (liveness.no_heartbeats and hostname not in self._answered)

    def _note_goodbye(self, hostname: str, liveness: Liveness) -> None:
        if len(self._goodbyes) > MAX_ANSWERS:
            self._goodbyes.clear()
        self._goodbyes[hostname] = liveness.goodbye, liveness.goodbye_sign
