"""How long to wait before the next attempt: capped exponential backoff with full jitter.

Full jitter spreads the attempts of many clients, which all started to wait when the same server went down,
evenly over the whole interval. With equal delays they would all retry at the same moment.
"""

from typing import Final

BASE: Final = 1.0
"""The longest wait before the first retry, in seconds."""
NOTIFICATION_CAP: Final = 300.0
"""The longest wait before a notification is retried, in seconds: how late a page may be once the receiver is back."""
REPAIR_BASE: Final = 30.0
REPAIR_CAP: Final = 900.0
"""The same for errors that a person has to fix first, such as a rejected routing key."""
MAX_RETRY_AFTER: Final = NOTIFICATION_CAP
"""The longest ``Retry-After`` that is obeyed, in seconds. Receivers limit requests per minute, so a longer wait is a
mistake of a server or a proxy, and it would hold back every page of the routing key. One request per this interval
harms no server."""
MAX_WAIT: Final = 3600.0
"""The longest wait of all, in seconds, whatever the reason: a row that is due later was written while the clock was
ahead."""

_MAX_DOUBLINGS: Final = 1000
"""Few enough not to overflow a float; every cap is reached long before."""


def delay(attempt: int, fraction: float, *, base: float = BASE, cap: float = NOTIFICATION_CAP) -> float:
    """Seconds to wait after the ``attempt``-th failed attempt in a row (1 is the first).

    ``fraction``: a random number in [0, 1). The result is this fraction of the smaller of ``cap`` and ``base``, which
    doubles with every further failure.
    """
    return fraction * min(cap, base * 2.0 ** min(max(attempt, 1) - 1, _MAX_DOUBLINGS))
