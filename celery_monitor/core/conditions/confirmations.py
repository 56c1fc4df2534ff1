"""Whether a run that has been under way for long still is: its worker is asked (Celery's inspect).

Some tasks end without an event, and events can be lost. A worker that answers, and does not name a run, does not have
it any more. Where a worker leaves several questions unanswered while it is heard (remote control is off, or the only
thread is busy), what the events say is believed, unless events of its time are lost.
"""

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from typing import Final

CONFIRMED_FOR: Final = 120.0
"""Watched seconds after which the worker is asked again."""
UNANSWERED: Final = 3
"""Questions without an answer after which the events are believed."""
MAX_HOSTS_AT_ONCE: Final = 100
MAX_PENDING: Final = 100_000

_Run = tuple[str, float]
"""When it began goes with the ID: the same ID can be run again."""


class Confirmations:
    """What workers have said of the runs that they hold. Not thread-safe."""

    def __init__(self) -> None:
        """Start without any answer."""
        self._held: dict[str, float] = {}
        """Task ID → watched time of the newest answer that named it."""
        self._over: dict[_Run, float] = {}
        """Runs that their workers no longer hold → watched time of the answer."""
        self._pending: dict[str, dict[_Run, None]] = {}
        """Worker → what it is to be asked for."""
        self._unanswered: Counter[str] = Counter()

    def holds(self, uuid: str, host: str, started_at: float, watched: float, *, gap_end: float) -> bool | None:
        """Whether the worker still has the run; None while it is not known, and the worker is going to be asked.

        ``started_at``: unix time; of what began before ``gap_end`` nothing but an answer tells.
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
        """Watched time at which a worker of this name said that it no longer holds the run; None if it did not."""
        return self._over.get((uuid, started_at))

    def drop(self, uuid: str) -> None:
        """Earlier answers about the task no longer prove anything."""
        self._held.pop(uuid, None)

    def confirmed(self, uuid: str) -> bool:
        """Whether a worker has said since the last gap that it holds it."""
        return uuid in self._held

    def to_ask(self) -> list[str]:
        """Workers that are to be asked what they hold."""
        return list(self._pending)[:MAX_HOSTS_AT_ONCE]

    def note_answers(self, hosts: Iterable[str], held: Mapping[str, Collection[str]], watched: float) -> None:
        """What the workers have said: hostname → the IDs of all that it holds. Who is missing has not answered."""
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
        """IDs of runs that some worker holds."""
        self._held.update(dict.fromkeys(held, watched))

    def gap(self) -> None:
        """Events were lost, so earlier answers no longer prove anything."""
        self._held.clear()

    def forget(self, known: Container[str]) -> None:
        """Forget tasks that have ended."""
        self._held = {uuid: at for uuid, at in self._held.items() if uuid in known}
        self._over = {run: at for run, at in self._over.items() if run[0] in known}
        if len(self._unanswered) > MAX_PENDING:
            self._unanswered.clear()
