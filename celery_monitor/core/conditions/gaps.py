"""Periods that were not watched: their events are lost, or nothing was polled."""

from collections import deque
from typing import Final

MAX_GAPS: Final = 200


class Gaps:
    """The newest unwatched periods, in Unix seconds."""

    def __init__(self) -> None:
        """Start empty."""
        self._gaps: deque[tuple[float, float]] = deque(maxlen=MAX_GAPS)
        self.end = 0.0
        """End of the newest gap; 0 if there was none."""

    def add(self, since: float, until: float) -> None:
        """Add a gap. A gap that has not ended yet may be added in parts."""
        if until <= since:
            return
        if self._gaps and since <= self._gaps[-1][1] + 1:
            since = min(since, self._gaps.pop()[0])
        self._gaps.append((since, until))
        self.end = until

    def forget(self, now: float) -> None:
        """Forget those that end after ``now``, because the clock was set back."""
        while self._gaps and self._gaps[-1][1] > now:
            self._gaps.pop()
        self.end = self._gaps[-1][1] if self._gaps else 0.0

    def clock_set_back(self, seconds: float, now: float) -> None:
        """The machine's clock was set back by ``seconds`` to ``now``: move the periods that end after that."""
        for index, (since, until) in enumerate(self._gaps):
            if until > now:
                self._gaps[index] = since - seconds, until - seconds
        self.end = self._gaps[-1][1] if self._gaps else 0.0

    def within(self, since: float, until: float) -> float:
        """Unwatched seconds between two times."""
        return sum(max(0.0, min(end, until) - max(start, since)) for start, end in self._gaps)
