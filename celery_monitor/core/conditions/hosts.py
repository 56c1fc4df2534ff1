"""Whether the worker of a run is gone: it is silent, or another process has its name.

A worker that is shut down in order (SIGTERM) says good-bye first, and then finishes its tasks: while it does so it
sends no heartbeat, answers nothing, and keeps the ends of tasks back until 24 have ended or the last one has (measured
with Celery 5.4 and 5.7). So after a good-bye its silence says nothing. Neither does the next process of the same name:
where containers share a name it may begin before the one before has finished. A process that is killed while it
finishes is known by time alone: the rule's ``finishing_for``.

Heartbeats and good-byes say how many tasks run. When they say none, or as many have ended since a good-bye as ran then,
whatever began before has ended, whether or not an event tells of it: a task that raises ``Ignore`` ends without one.
"""

import math
from collections.abc import Collection, Container
from typing import Final

from celery_monitor.core.worker import Liveness
from celery_monitor.core.workers import Workers

NEW_PROCESS_GRACE: Final = 10.0
"""Watched seconds after the next process of a worker has begun in which the last events of the one before may come."""
HEARTBEATS_APART: Final = 10.0
"""Seconds: what began so shortly after the last sign before a good-bye began before the good-bye, unless the next
process had begun by then."""
MAX_ANSWERS: Final = 20_000


class WorkerLiveness:
    """Signs of life of the workers, their answers included. Not thread-safe. Times in watched seconds."""

    def __init__(self, workers: Workers, purge: float) -> None:
        """``purge``: seconds of silence after which ``workers`` has forgotten a worker."""
        self._workers = workers
        self._purge = purge
        self._answered: dict[str, float] = {}
        self._busy: Container[str] = frozenset()
        self._goodbyes: dict[str, tuple[float, float]] = {}
        """Worker → watched time of its good-bye, and the unix time of its last sign before."""
        self.any_answered = False
        """Some worker has answered since the start."""

    def note_answers(self, hostnames: Collection[str], busy: Container[str], watched: float) -> None:
        """These workers have answered; ``busy``: those that can neither answer nor send heartbeats during a task."""
        if len(self._answered) > MAX_ANSWERS:
            self._answered.clear()
        self._answered.update(dict.fromkeys(hostnames, watched))
        self._busy = busy
        self.any_answered |= bool(hostnames)

    def has_ended(self, hostname: str, started_at: float, watched: float, *, denied_at: float | None) -> bool:
        """Whether the process of a run that began then has said that it runs nothing, or not this run.

        ``denied_at``: when a worker of this name answered that it does not hold it. It was the process of the run when
        no other one has been heard for some time after.
        """
        liveness = self._workers.liveness(hostname)
        if liveness is None or liveness.mute or liveness.is_shared(watched):
            return False
        if started_at < liveness.began_at:
            return started_at < liveness.idle_before
        denied = denied_at is not None and watched - denied_at >= NEW_PROCESS_GRACE
        return denied or started_at < liveness.idle_at

    def lost_at(
        self, hostname: str, started_at: float, silent_for: float, watched: float, *, finishing_for: float
    ) -> float | None:
        """When the worker of a run that began then was last there, in Unix seconds; None while it is not gone.

        ``silent_for``, ``finishing_for``: as in a rule.
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
        if self._never_heard(hostname, liveness):
            return None
        silence = watched - max(liveness.last_seen, self._answered.get(hostname, -1.0))
        return liveness.last_sign if silence >= min(silent_for, 0.9 * self._purge) else None

    def safe_after(self, hostname: str, silent_for: float, watched: float) -> float:
        """A start time after which no run of this worker can have ended or be lost; infinite if any may be.

        For a run that began later, ``has_ended`` without a denial is False, and ``lost_at`` with at least this
        ``silent_for`` is None. In Unix seconds.
        """
        liveness = self._workers.liveness(hostname)
        if liveness is not None and liveness.goodbye > -math.inf:
            self._note_goodbye(hostname, liveness)
        latest = self._goodbyes.get(hostname, (0.0, -math.inf))[1] + HEARTBEATS_APART
        if liveness is None:
            return latest
        silence = watched - max(liveness.last_seen, self._answered.get(hostname, -1.0))
        if silence >= min(silent_for, 0.9 * self._purge) and not self._never_heard(hostname, liveness):
            return math.inf
        return max(latest, liveness.began_at, liveness.idle_at)

    def _never_heard(self, hostname: str, liveness: Liveness) -> bool:
        """Whether its silence means nothing."""
        return hostname in self._busy or (liveness.mute and hostname not in self._answered)

    def _note_goodbye(self, hostname: str, liveness: Liveness) -> None:
        if len(self._goodbyes) > MAX_ANSWERS:
            self._goodbyes.clear()
        self._goodbyes[hostname] = liveness.goodbye, liveness.goodbye_sign
