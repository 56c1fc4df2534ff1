"""Whether the worker of a run is gone: it is silent, it said good-bye, or another process has its name."""

from collections.abc import Collection, Container
from typing import Final

from celery_monitor.core.workers import Workers

OFFLINE_GRACE: Final = 10.0
"""Watched seconds after a worker's good-bye, or after its next process has begun, in which its last events may come."""
MAX_ANSWERS: Final = 20_000


class WorkerSigns:
    """Signs of life of the workers, their answers included. Not thread-safe. Times in watched seconds."""

    def __init__(self, workers: Workers, purge: float) -> None:
        """``purge``: seconds of silence after which ``workers`` does not know a worker any more."""
        self._workers = workers
        self._purge = purge
        self._answered: dict[str, float] = {}
        self._busy: Container[str] = frozenset()
        self.any_answered = False
        """Some worker has answered since the start."""

    def answered(self, hostnames: Collection[str], busy: Container[str], watched: float) -> None:
        """These workers have answered; ``busy``: those that can neither answer nor send heartbeats during a task."""
        if len(self._answered) > MAX_ANSWERS:
            self._answered.clear()
        self._answered.update(dict.fromkeys(hostnames, watched))
        self._busy = busy
        self.any_answered |= bool(hostnames)

    def lost_at(self, hostname: str, began: float, silent_for: float, watched: float) -> float | None:
        """When the worker of a run that began then was last there, in Unix seconds; None while it is not gone."""
        life = self._workers.life(hostname)
        if life is None:
            return None
        if began < life.began_at and not life.is_shared(watched) and watched - life.began >= OFFLINE_GRACE:
            return life.began_at
        heard = max(life.heard, self._answered.get(hostname, -1.0))
        silence = watched - heard
        if life.said_goodbye and watched - life.heard >= OFFLINE_GRACE and life.heard >= heard:
            return life.last_sign
        if hostname in self._busy or (life.mute and hostname not in self._answered):
            return None
        return life.last_sign if silence >= min(silent_for, 0.9 * self._purge) else None
