"""Whom to ask for the names of the tasks that a worker has registered. Does no I/O; times are monotonic."""

import math
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final

MAX_INSPECTED_PER_ROUND: Final = 20
"""Workers that are asked for the names of their tasks at a time: an answer has tens of kilobytes."""


class RegisteredTasks:
    """Which workers' registered tasks are known."""

    def __init__(self) -> None:
        self._renewed = False
        self._known: set[str] = set()
        self._asked: dict[str, float] = {}
        """When each worker was last asked."""

    def renew(self) -> None:
        """Ask all again: a worker that came may have been there before, with other code. From any thread."""
        self._renewed = True

    def due(self, hostnames: AbstractSet[str], now: float) -> list[str]:
        """Some of these workers to ask now, counted as asked.

        Those that were asked longest ago come first: who does not answer is asked again, and keeps out nobody else.
        """
        if self._renewed:
            self._renewed = False
            self._known.clear()
        self._known &= hostnames
        unknown = [hostname for hostname in hostnames if hostname not in self._known]
        if not unknown:
            return []
        hosts = sorted(unknown, key=lambda hostname: self._asked.get(hostname, -math.inf))[:MAX_INSPECTED_PER_ROUND]
        inspected_at = {hostname: at for hostname, at in self._asked.items() if hostname in hostnames}
        self._asked = inspected_at | dict.fromkeys(hosts, now)
        return hosts

    def learned(self, hostnames: Iterable[str]) -> None:
        """They have answered."""
        self._known |= set(hostnames)
