"""Which of several broker URLs is tried next.

All connections of a process share what is known: each dead address is waited for once, and with two Redis servers the
probe goes to the one that the stream reads. An address on which nothing arrived is not trusted: the next one is tried.
"""

from collections.abc import Sequence


class KnownAddress:
    """The address on which a connection was opened last. For any thread."""

    def __init__(self) -> None:
        self.index = 0
        """Its place in the list of URLs."""


class Rotation:
    """The addresses that one party tries, in turn. For one thread."""

    def __init__(self, known: KnownAddress) -> None:
        self._known = known
        self._tried: set[int] = set()
        """Since something worked: each address is tried once before one is tried again."""
        self._current = 0

    def next(self, addresses: Sequence[str]) -> str:
        """The address to try now: the known one, or those that follow it if that one was tried in vain."""
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
        """The last one was connected to: others begin with it."""
        self._known.index = self._current

    def proven(self) -> None:
        """Something arrived from it: if this connection is lost, it is tried first."""
        self._tried.clear()
