"""When nobody watched: times whose events are lost, or in which nothing was asked."""

from collections import deque
from typing import Final

MAX_GAPS: Final = 200


class Gaps:
    """The newest times that were not watched. Unix seconds."""

    def __init__(self) -> None:
        """Start without any."""
        self._gaps: deque[tuple[float, float]] = deque(maxlen=MAX_GAPS)
        self.end = 0.0
        """Of the newest one; 0 when there was none."""

    def add(self, since: float, until: float) -> None:
        """Add a gap; a gap that is still open is added in parts."""
        if until <= since:
            return
        if self._gaps and since <= self._gaps[-1][1] + 1:
            since = min(since, self._gaps.pop()[0])
        self._gaps.append((since, until))
        self.end = until

    def within(self, since: float, until: float) -> float:
        """Seconds between two times that were not watched."""
        return sum(max(0.0, min(end, until) - max(start, since)) for start, end in self._gaps)
