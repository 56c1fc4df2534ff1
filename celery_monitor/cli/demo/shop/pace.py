"""How long work takes, and what is out of order: a real shop has no such switches."""

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
        """Whatever is under way ends at once."""
        self.instant = False
        """Nothing takes any time."""
        self.broken: Broken = tuple

    def work(self, seconds: float) -> None:
        """Something that takes so long."""
        if not self.instant:
            self.stopping.wait(seconds)


pace: Final = Pace()
