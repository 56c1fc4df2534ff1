"""How long to wait before another attempt: exponential growth, capped, with full jitter.

Full jitter spreads the attempts of many clients, which all began to wait when the same server went down,
evenly over the whole interval; equal delays would make them come back together.
"""

from typing import Final

BASE: Final = 1.0
"""Seconds within which the first retry falls."""
NOTIFICATION_CAP: Final = 300.0
"""The longest wait of a notification, in seconds: how late a page may be once the receiver is back."""
REPAIR_BASE: Final = 30.0
REPAIR_CAP: Final = 900.0
"""The same for what a person has to repair first, such as a routing key that is refused."""
MAX_RETRY_AFTER: Final = NOTIFICATION_CAP
"""The longest wait that a receiver may ask for, in seconds. Receivers count a sliding minute, so a longer one is a
mistake of a server or a proxy, and every page of the routing key would wait for it. One request in this time does no
harm to anybody."""
MAX_WAIT: Final = 3600.0
"""Seconds that nothing waits longer than, whatever it waits for: a row that is due later was written while the clock
was ahead."""

_MAX_DOUBLINGS: Final = 1000
"""Fewer than what overflows a float; every cap is reached long before."""


def delay(attempt: int, fraction: float, *, base: float = BASE, cap: float = NOTIFICATION_CAP) -> float:
    """Seconds to wait after the ``attempt``-th failed attempt in a row (1 is the first).

    ``fraction`` is a random number in [0, 1): the result is that part of the least of ``cap`` and
    ``base`` doubled with every further failure.
    """
    return fraction * min(cap, base * 2.0 ** min(max(attempt, 1) - 1, _MAX_DOUBLINGS))
