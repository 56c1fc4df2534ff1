"""Values of the label ``hostname`` of the task metrics: the hosts that are known, and when one is dropped.

Clients that send tasks are hosts too, and only their events show them. A host is dropped when it has no workers and no
event came from it for as long as a silent worker is kept; otherwise the pods of every release of a web server would
stay for ever.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from celery_monitor.core.text import OTHER, host_of

MAX_HOSTS: Final = 10_000


class Hosts:
    """Not thread-safe: it belongs to the monitor. ``purge`` in seconds, ``now`` as for ``Workers``."""

    def __init__(self, *, purge: float, overflows: Counter[str] | None = None) -> None:
        """Start empty; ``restore`` fills it. ``overflows`` counts events of hosts beyond the bound."""
        self._purge = purge
        self._overflows = overflows if overflows is not None else Counter()
        self._last_received_at: dict[str, float] = {}

    def __len__(self) -> int:
        """Number of known hosts."""
        return len(self._last_received_at)

    def restore(self, hosts: Iterable[str], now: float) -> None:
        """Load the hosts of stored series; they are dropped without an event until ``now`` + purge."""
        self._last_received_at |= dict.fromkeys(hosts, now)

    def record(self, hostname: str, now: float) -> str:
        """Record an event of ``hostname``. Returns its label: the part after ``@``, or ``other`` beyond the bound."""
        host = host_of(hostname)
        if host not in self._last_received_at and len(self._last_received_at) >= MAX_HOSTS:
            self._overflows["hosts"] += 1
            host = OTHER
        self._last_received_at[host] = now
        return host

    def tick(self, workers: Iterable[str], now: float) -> set[str]:
        """Drop and return the hosts that are gone. ``workers``: hostnames of the known workers.

        ``other`` is never dropped: it contains the totals of hosts that may still be active.
        """
        purged = {host for host, at in self._last_received_at.items() if now - at > self._purge and host != OTHER}
        if purged:
            purged -= {host_of(hostname) for hostname in workers}
        for host in purged:
            del self._last_received_at[host]
        return purged
