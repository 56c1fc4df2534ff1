"""Decides which workers to ask for the names of their registered tasks. Does no I/O; times are monotonic."""

import math
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final

MAX_INSPECTED_PER_ROUND: Final = 20
"""Workers asked at a time: an answer has tens of kilobytes."""


class RegisteredTasks:
    """Tracks which workers' registered tasks are known."""

    def __init__(self) -> None:
        self._renewed = False
        self._known: set[str] = set()
        self._inspected_at: dict[str, float] = {}
        """Hostname → when it was last asked."""

    def renew(self) -> None:
        """Ask all workers again: one that came back may run different code. From any thread."""
        self._renewed = True

    def due(self, hostnames: AbstractSet[str], now: float) -> list[str]:
        """Some of these workers to ask now; counts them as asked.

        Those asked longest ago come first, so a worker that never answers does not block others.
        """
        if self._renewed:
            self._renewed = False
            self._known.clear()
        self._known &= hostnames
        unknown = [hostname for hostname in hostnames if hostname not in self._known]
        if not unknown:
            return []
        unknown.sort(key=lambda hostname: self._inspected_at.get(hostname, -math.inf))
        due = unknown[:MAX_INSPECTED_PER_ROUND]
        inspected_at = {hostname: at for hostname, at in self._inspected_at.items() if hostname in hostnames}
        self._inspected_at = inspected_at | dict.fromkeys(due, now)
        return due

    def learned(self, hostnames: Iterable[str]) -> None:
        """These workers have answered."""
        self._known |= set(hostnames)
