"""A batch → the monitor, in portions: each is what a scrape may have to wait for.

A message of which the process dies would come again at every start, for ever. So a message that is large, or that comes
again, is applied alone, with a mark that outlives the process. A death with a mark is held against that one message;
after two of them it is set aside. A message that was applied is cleared of earlier deaths, so a process that is killed
at any moment, however often, sets nothing aside: it would have to be killed twice within the microseconds of the same
message, with no start in between that gets past it.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

import structlog
from msgspec.structs import replace

from celery_monitor.core.decode import POISON
from celery_monitor.core.fingerprint import fingerprint_of
from celery_monitor.core.model import Delivery
from celery_monitor.core.monitor import Monitor
from celery_monitor.ports import Clock, CrashMarks

MAX_MESSAGES: Final = 200
"""Messages of one portion."""
MAX_BYTES: Final = 256 << 10
"""Of bodies in one portion, but for a single one that is longer: 60 ms at worst, whatever is in them."""
LARGE: Final = 16 << 10
"""Bytes of a message that is applied alone. Celery's messages have a few kilobytes."""
FATAL: Final = 2
"""Deaths of the process after which a message is set aside."""
_SHOWN: Final = 80
"""Bytes of it that the log shows."""
_YIELD_SIZE: Final = 256 << 10
"""Bytes of a message after which whoever waits for the lock has a turn."""
_YIELD_TIME: Final = 0.001

_log = structlog.get_logger()


def chunks(deliveries: Sequence[Delivery]) -> Iterator[Sequence[Delivery]]:
    """All of them, in their order; alone are those that are large or come again."""
    start, size = 0, 0
    for at, delivery in enumerate(deliveries):
        length = len(delivery.body)
        if length > LARGE or delivery.redelivered:
            if start < at:
                yield deliveries[start:at]
            yield deliveries[at : at + 1]
            start, size = at + 1, 0
            continue
        size += length
        if size > MAX_BYTES or at - start == MAX_MESSAGES:
            yield deliveries[start:at]
            start, size = at, length
    if start < len(deliveries):
        yield deliveries[start:]


class Applier:
    """For the pump's thread. ``lock`` is held over each use of the monitor."""

    def __init__(self, monitor: Monitor, lock: threading.Lock, clock: Clock, marks: CrashMarks) -> None:
        self._monitor = monitor
        self._lock = lock
        self._clock = clock
        self._marks = marks

    def apply(self, deliveries: Sequence[Delivery], *, marking: bool) -> None:
        """Apply all of them. ``marking``: what the process dies of comes again."""
        for chunk in chunks(deliveries):
            if marking and len(chunk) == 1 and self._suspect(chunk[0]):
                self._apply_marked(chunk[0])
            else:
                self._receive(chunk)
            if len(chunk[0].body) > _YIELD_SIZE:
                time.sleep(_YIELD_TIME)

    def _receive(self, chunk: Sequence[Delivery]) -> None:
        with self._lock:
            self._monitor.receive(chunk, self._clock.now())

    @staticmethod
    def _suspect(delivery: Delivery) -> bool:
        return (delivery.redelivered or len(delivery.body) > LARGE) and delivery.refused is None

    def _apply_marked(self, delivery: Delivery) -> None:
        fingerprint = fingerprint_of(delivery.body)
        deaths = self._marks.deaths(fingerprint)
        if deaths < FATAL:
            self._marks.begin(fingerprint)
            self._receive((delivery,))
            self._marks.end(fingerprint)
            return
        _log.error(
            "Skipped a poison message: the process died each time it handled this message",
            deaths=deaths,
            size=len(delivery.body),
            begins=repr(delivery.body[:_SHOWN])[2:-1],
        )
        self._receive((replace(delivery, refused=POISON),))
