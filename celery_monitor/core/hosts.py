"""The label ``hostname`` of the task metrics: which hosts are known, and which have gone.

Those that send tasks are hosts as well as the workers, and nothing but their events tells of them. A host goes when no
worker is on it any more and nothing was heard of it for as long as a worker is kept: else the pods of every release of
a web server would stay for ever.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from celery_monitor.core.text import OTHER, host_of

MAX_HOSTS: Final = 10_000


class Hosts:
    """Not thread-safe: it belongs to the monitor. ``purge`` in seconds, ``now`` as for ``Workers``."""

    def __init__(self, *, purge: float, overflows: Counter[str] | None = None) -> None:
        """Start empty; ``restore`` fills it. ``overflows``: where is counted what the bound has cut."""
        self._purge = purge
        self._overflows = overflows if overflows is not None else Counter()
        self._last_received_at: dict[str, float] = {}

    def __len__(self) -> int:
        """How many are known."""
        return len(self._last_received_at)

    def restore(self, hosts: Iterable[str], now: float) -> None:
        """Take over the hosts of stored series; they have until ``now`` + purge to be heard of."""
        self._last_received_at |= dict.fromkeys(hosts, now)

    def hear(self, hostname: str, now: float) -> str:
        """The label for an event of ``hostname``: the part after ``@``, ``other`` when there are too many of them."""
        host = host_of(hostname)
        if host not in self._last_received_at and len(self._last_received_at) >= MAX_HOSTS:
            self._overflows["hosts"] += 1
            host = OTHER
        self._last_received_at[host] = now
        return host

    def tick(self, workers: Iterable[str], now: float) -> set[str]:
        """Forget and return the hosts that have gone. ``workers``: hostnames of those that are known.

        ``other`` never goes: it has the totals of hosts that may still be there.
        """
        purged = {host for host, at in self._last_received_at.items() if now - at > self._purge and host != OTHER}
        if purged:
            purged -= {host_of(hostname) for hostname in workers}
        for host in purged:
            del self._last_received_at[host]
        return purged
