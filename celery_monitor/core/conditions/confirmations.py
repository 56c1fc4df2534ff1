"""Confirms with the worker (Celery's inspect) that a long run is still under way.

Some tasks end without an event, and events can be lost. A worker whose answer does not contain a run no longer has it.
If a worker is alive but leaves several requests unanswered (remote control is off, or its only thread is busy), the
events are trusted, unless events of that time are lost.
"""

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from typing import Final

CONFIRMED_FOR: Final = 120.0
"""Watched seconds after which a run needs another confirmation."""
UNANSWERED: Final = 3
"""Unanswered requests after which the events are trusted."""
MAX_HOSTS_AT_ONCE: Final = 100
MAX_PENDING: Final = 100_000

_Run = tuple[str, float]
"""(task ID, start time): the same ID can run again."""


class Confirmations:
    """The workers' answers about the runs that they hold. Not thread-safe."""

    def __init__(self) -> None:
        """Start empty."""
        self._held: dict[str, float] = {}
        """Task ID → watched time of the newest answer that contained it."""
        self._over: dict[_Run, float] = {}
        """Runs that their workers no longer hold → watched time of the answer."""
        self._pending: dict[str, dict[_Run, None]] = {}
        """Worker → runs that it has to confirm."""
        self._unanswered: Counter[str] = Counter()

    def holds(self, uuid: str, host: str, started_at: float, watched: float, *, gap_end: float) -> bool | None:
        """Whether the worker still has the run; None while unknown, in which case the worker will be asked.

        ``started_at``: Unix time; for a run that started before ``gap_end``, only an answer counts.
        """
        run = uuid, started_at
        if run in self._over:
            return False
        held = self._held.get(uuid)
        if held is None or watched - held > CONFIRMED_FOR:
            pending = self._pending.setdefault(host, {})
            if len(pending) < MAX_PENDING:
                pending[run] = None
            if held is None:
                return True if self._unanswered[host] >= UNANSWERED and started_at >= gap_end else None
        return True

    def over_at(self, uuid: str, started_at: float) -> float | None:
        """Watched time of the answer by which a worker of this name no longer holds the run; None without one."""
        return self._over.get((uuid, started_at))

    def drop(self, uuid: str) -> None:
        """Discard earlier answers about the task."""
        self._held.pop(uuid, None)

    def confirmed(self, uuid: str) -> bool:
        """Whether a worker has confirmed the task since the last gap."""
        return uuid in self._held

    def to_ask(self) -> list[str]:
        """Workers to ask which tasks they hold."""
        return list(self._pending)[:MAX_HOSTS_AT_ONCE]

    def note_answers(self, hosts: Iterable[str], held: Mapping[str, Collection[str]], watched: float) -> None:
        """Apply answers: hostname → the IDs of all tasks that it holds. A missing worker has not answered."""
        for host in hosts:
            pending = self._pending.pop(host, {})
            ids = held.get(host)
            if ids is None:
                self._unanswered[host] += 1
                continue
            self._unanswered.pop(host, None)
            held_ids = frozenset(ids)
            for run in pending:
                if run[0] in held_ids:
                    self._held[run[0]] = watched
                else:
                    self._held.pop(run[0], None)
                    self._over[run] = watched

    def learn(self, held: Iterable[str], watched: float) -> None:
        """Record task IDs that some worker holds."""
        self._held.update(dict.fromkeys(held, watched))

    def gap(self) -> None:
        """Events were lost, so discard earlier answers."""
        self._held.clear()

    def forget(self, known: Container[str]) -> None:
        """Drop tasks that have ended."""
        self._held = {uuid: at for uuid, at in self._held.items() if uuid in known}
        self._over = {run: at for run, at in self._over.items() if run[0] in known}
        if len(self._unanswered) > MAX_PENDING:
            self._unanswered.clear()
