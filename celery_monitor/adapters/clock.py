"""The only reader of the wall clock."""

import time


class SystemClock:
    """The machine's clocks (a Clock)."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back, for timeouts."""
        return time.monotonic()
