"""Decides which workers to send remote control requests to, and when.

A worker that cannot read a request (``accept_content = ["pickle"]`` is enough) logs an error for each. So only one kind
of request is sent until a worker has answered, and with increasing intervals while workers send events but none
answers. Does no I/O; times are monotonic.
"""

import math
from collections.abc import Container, Iterable
from typing import Final

UNANSWERED_BACKOFF: Final = (0.0, 0.0, 0.0, 0.0, 60.0, 300.0, 900.0, 3600.0)
"""Minimum seconds after the last request, by the number of unanswered requests; the last value for all further."""
IDLE_FLEET_INTERVAL: Final = 300.0
"""Seconds between requests, after the first few, while no worker sends events either."""
BUSY_BACKOFF: Final = 60.0
"""As above, for workers that have answered before: they can read requests and are probably busy."""
MAX_UNANSWERED_BUSY: Final = 20
MAX_UNANSWERED_PROVEN: Final = 80
"""Consecutive unanswered requests after which an earlier answer no longer proves anything."""
RETRY_DELAYS: Final = (1.0, 2.0, 5.0, 15.0)
"""Seconds after a worker's start at which the request is repeated: it is online before it takes requests."""
UNRESPONSIVE_AFTER: Final = 8
"""Rounds of requests that a worker may leave unanswered while others answer."""
NO_EVENTS_AFTER: Final = 120.0
"""Seconds for which workers answer without any event arriving; by default each sends a heartbeat every 2 s."""


class InspectBackoff:
    """Decides whether a request to all workers is due, by how earlier ones were answered."""

    def __init__(self) -> None:
        self.proven = False
        """Whether workers are known to answer."""
        self._inspected_at = -math.inf
        self._unanswered = 0
        self._unheard = 0

    def allows(self, now: float, *, active_workers: bool) -> bool:
        """Whether to send a request now. ``active_workers``: whether any worker sends events."""
        if not active_workers:
            wait = 0.0 if self._unheard < len(UNANSWERED_BACKOFF) // 2 else IDLE_FLEET_INTERVAL
        elif self.proven:
            wait = 0.0 if self._unanswered < MAX_UNANSWERED_BUSY else BUSY_BACKOFF
        else:
            wait = UNANSWERED_BACKOFF[min(self._unanswered, len(UNANSWERED_BACKOFF) - 1)]
        return now - self._inspected_at >= wait

    def note_inspection(self, now: float, *, active_workers: bool, answered: bool) -> None:
        """A request was sent to all workers. ``answered``: whether any answered."""
        self._inspected_at = now
        if answered:
            self.proven, self._unanswered, self._unheard = True, 0, 0
        elif active_workers:
            self._unanswered += 1
            self.proven = self.proven and self._unanswered < MAX_UNANSWERED_PROVEN
        else:
            self._unheard += 1

    def worker_arrived(self) -> None:
        """A worker started or came back: requests without answer so far may just have found no worker."""
        self._unheard = 0

    @property
    def is_backed_off(self) -> bool:
        """Whether requests are sent rarely, because workers send events but none has answered."""
        return not self.proven and self._unanswered >= len(UNANSWERED_BACKOFF) // 2


class NewWorkers:
    """New workers that have not confirmed yet that they send task events."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[float, int]] = {}
        """Hostname → when it started, and how often it was asked."""

    def add(self, hostnames: Iterable[str], now: float) -> None:
        """These workers started or came back."""
        self._waiting |= dict.fromkeys(hostnames, (now, 0))

    def due(self, now: float, limit: int) -> list[str]:
        """Up to ``limit`` workers to ask now; counts them as asked."""
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
        """These workers need not be asked again."""
        for hostname in hostnames:
            self._waiting.pop(hostname, None)

    @property
    def any_waiting(self) -> bool:
        """Whether any worker still has to be asked."""
        return bool(self._waiting)


class UnresponsiveWorkers:
    """Finds workers that send events but never answer, while others do."""

    def __init__(self) -> None:
        self._missed: dict[str, float] = {}
        """Hostname → consecutive requests without an answer; -inf once it has answered."""

    def round(self, active_workers: Iterable[str], answered: Container[str]) -> None:
        """All workers were asked, and ``answered`` did."""
        self._missed = {
            hostname: -math.inf if hostname in answered else self._missed.get(hostname, 0) + 1
            for hostname in active_workers
        }

    def names(self) -> list[str]:
        """Hostnames of unresponsive workers, sorted."""
        return sorted(hostname for hostname, missed in self._missed.items() if missed >= UNRESPONSIVE_AFTER)


class MissingEvents:
    """Finds whether workers answer requests while none of their events has ever arrived."""

    def __init__(self) -> None:
        self.found = False
        self._received = False
        self._since: float | None = None
        self._before: int | None = None

    def round(self, now: float, sent: int | None) -> None:
        """Workers have answered. ``sent``: event messages received so far; None while the stream may lag."""
        if self._received:
            return
        if sent is None:
            self._since = None
            return
        self._received = self._before is not None and sent != self._before
        self._before = sent
        self._since = now if self._since is None else self._since
        self.found = not self._received and now - self._since >= NO_EVENTS_AFTER
