"""Decides which of several broker URLs is tried next.

All connections of a process share the last address that worked. So the process waits for each dead address only once,
and with two Redis servers the probe uses the one that the stream uses. An address that accepts connections, but from
which no message arrives or which takes none (such as a Redis replica), is not trusted, so the next one is tried.
"""

from collections.abc import Sequence


class KnownAddress:
    """The address to which a connection was opened last. Thread-safe."""

    def __init__(self) -> None:
        self.index = 0
        """Position in the list of URLs."""


class Rotation:
    """The order in which one dialer tries the addresses. For use by one thread."""

    def __init__(self, known: KnownAddress) -> None:
        self._known = known
        self._tried: set[int] = set()
        """Addresses tried since the last one was proven. Each is tried once before one is tried again."""
        self._current = 0

    def next(self, addresses: Sequence[str]) -> str:
        """The address to try now: the known one, or one that follows it if that failed."""
        count = len(addresses)
        first = self._known.index
        if len(self._tried) >= count:
            self._tried.clear()
            first = self._current + 1
        order = [(first + step) % count for step in range(count)]
        self._current = next(index for index in order if index not in self._tried)
        self._tried.add(self._current)
        return addresses[self._current]

    def opened(self) -> None:
        """A connection to the last address was opened: other dialers try this address first."""
        self._known.index = self._current

    def proven(self) -> None:
        """The last address works (messages arrived or were sent): it is tried first if the connection is lost."""
        self._tried.clear()
