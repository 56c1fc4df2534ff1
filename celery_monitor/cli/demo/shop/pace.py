"""Simulates how long work takes and which parts are broken; a real shop has no such switches."""

import threading
from collections.abc import Callable, Collection
from typing import Final

WAREHOUSE: Final = "warehouse"
"""The warehouse's server refuses connections."""
GATEWAY: Final = "gateway"
"""The payment gateway does not answer."""
DEPLOY: Final = "deploy"
"""A release reads addresses that many orders do not have."""

Broken = Callable[[], Collection[str]]


class Pace:
    """The switches."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        """Set to make all running tasks end at once."""
        self.instant = False
        """Whether tasks take no time."""
        self.broken: Broken = tuple

    def work(self, seconds: float) -> None:
        """Simulate work that takes ``seconds``."""
        if not self.instant:
            self.stopping.wait(seconds)


pace: Final = Pace()
