"""Whom to ask, and when: a question that a worker cannot read is an error in that worker's log.

``accept_content = ["pickle"]`` is enough for it. So a single kind of question goes out until somebody has answered, and
that one ever more rarely while workers are heard and none of them does. Does no I/O; times are monotonic.
"""

import math
from collections.abc import Container, Iterable
from typing import Final

UNANSWERED_BACKOFF: Final = (0.0, 0.0, 0.0, 0.0, 60.0, 300.0, 900.0, 3600.0)
"""Least seconds after the last question, by how many were left unanswered; the last one for all that follow."""
IDLE_FLEET_INTERVAL: Final = 300.0
"""Seconds between questions while no worker is heard either, after the first ones."""
BUSY_BACKOFF: Final = 60.0
"""As above, for workers that have answered before: they are busy, and can read questions."""
MAX_UNANSWERED_BUSY: Final = 20
MAX_UNANSWERED_PROVEN: Final = 80
"""Unanswered questions in a row after which it means nothing that somebody answered once."""
RETRY_DELAYS: Final = (1.0, 2.0, 5.0, 15.0)
"""Seconds after a worker came at which it is asked again, until it answers: it is online before it takes questions."""
UNRESPONSIVE_AFTER: Final = 8
"""Rounds of questions that a worker may leave unanswered while others answer."""
NO_EVENTS_AFTER: Final = 120.0
"""Seconds in which workers answer and send no event at all; by default each sends a heartbeat every 2 s."""


class InspectBackoff:
    """Whether questions are worth asking."""

    def __init__(self) -> None:
        self.proven = False
        """Somebody answers."""
        self._asked_at = -math.inf
        self._unanswered = 0
        self._unheard = 0

    def allows(self, now: float, *, active_workers: bool) -> bool:
        """Whether to ask; ``active_workers``: some worker sends events."""
        if not active_workers:
            wait = 0.0 if self._unheard < len(UNANSWERED_BACKOFF) // 2 else IDLE_FLEET_INTERVAL
        elif self.proven:
            wait = 0.0 if self._unanswered < MAX_UNANSWERED_BUSY else BUSY_BACKOFF
        else:
            wait = UNANSWERED_BACKOFF[min(self._unanswered, len(UNANSWERED_BACKOFF) - 1)]
        return now - self._asked_at >= wait

    def note_inspection(self, now: float, *, active_workers: bool, answered: bool) -> None:
        """A question went out to everybody."""
        self._asked_at = now
        if answered:
            self.proven, self._unanswered, self._unheard = True, 0, 0
        elif active_workers:
            self._unanswered += 1
            self.proven = self.proven and self._unanswered < MAX_UNANSWERED_PROVEN
        else:
            self._unheard += 1

    def worker_arrived(self) -> None:
        """A worker is new or back: if none was there before, what was not answered means nothing."""
        self._unheard = 0

    @property
    def is_backed_off(self) -> bool:
        """Workers are heard, none ever answers, and questions are rare for that reason."""
        return not self.proven and self._unanswered >= len(UNANSWERED_BACKOFF) // 2


class NewWorkers:
    """Workers that came and have not said yet that they send task events."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[float, int]] = {}
        """Hostname → when it came, and how often it was asked."""

    def add(self, hostnames: Iterable[str], now: float) -> None:
        """They are new or back."""
        self._waiting |= dict.fromkeys(hostnames, (now, 0))

    def due(self, now: float, limit: int) -> list[str]:
        """Who is to be asked now, counted as asked."""
        due_hostnames = []
        for hostname, (arrived_at, times) in list(self._waiting.items()):
            if times and now < arrived_at + RETRY_DELAYS[times - 1]:
                continue
            due_hostnames.append(hostname)
            if times < len(RETRY_DELAYS):
                self._waiting[hostname] = arrived_at, times + 1
            else:
                del self._waiting[hostname]
            if len(due_hostnames) == limit:
                break
        return due_hostnames

    def remove(self, hostnames: Iterable[str]) -> None:
        """They need not be asked again."""
        for hostname in hostnames:
            self._waiting.pop(hostname, None)

    @property
    def any_waiting(self) -> bool:
        """Somebody is to be asked."""
        return bool(self._waiting)


class UnresponsiveWorkers:
    """Workers that are heard and have never answered, while others do."""

    def __init__(self) -> None:
        self._missed: dict[str, float] = {}
        """Hostname → questions in a row that it left unanswered. Without number for one that has answered before."""

    def round(self, active_workers: Iterable[str], answered: Container[str]) -> None:
        """All were asked."""
        self._missed = {
            hostname: -math.inf if hostname in answered else self._missed.get(hostname, 0) + 1
            for hostname in active_workers
        }

    def names(self) -> list[str]:
        """Their hostnames, in order."""
        return sorted(hostname for hostname, missed in self._missed.items() if missed >= UNRESPONSIVE_AFTER)


class MissingEvents:
    """Whether workers answer questions while none of their events has ever arrived."""

    def __init__(self) -> None:
        self.found = False
        self._received = False
        self._since: float | None = None
        self._before: int | None = None

    def round(self, now: float, sent: int | None) -> None:
        """Workers have answered. ``sent``: messages from the fleet so far; None while the stream may be behind."""
        if self._received:
            return
        if sent is None:
            self._since = None
            return
        self._received = self._before is not None and sent != self._before
        self._before = sent
        self._since = now if self._since is None else self._since
        self.found = not self._received and now - self._since >= NO_EVENTS_AFTER
