"""Applies each batch to the monitor in chunks, small enough that a scrape never waits long for the lock.

A message that crashes the process (a poison message) would be redelivered at every start, forever. So a message that
is large or redelivered is applied alone, with a crash mark on disk. If the process dies while the mark is set, the
death is attributed to that message; after two deaths the message is set aside. Applying a message successfully clears
its deaths. A process that is killed at random therefore sets nothing aside: it would have to be killed twice within
the microseconds in which the same message is applied, without ever getting past it in between.
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
"""Messages in one chunk."""
MAX_BYTES: Final = 256 << 10
"""Bytes of message bodies in one chunk, unless a single body is longer. Takes at most 60 ms, whatever they contain."""
LARGE: Final = 16 << 10
"""Bytes above which a message is applied alone. Celery's messages have a few kilobytes."""
FATAL: Final = 2
"""Deaths of the process while a message was applied, after which the message is set aside."""
_SHOWN: Final = 80
"""Bytes of a poison message that the log shows."""
_YIELD_SIZE: Final = 256 << 10
"""Bytes above which the lock is released for a moment after the message, for threads that wait for it."""
_YIELD_TIME: Final = 0.001

_log = structlog.get_logger()


def chunks(deliveries: Sequence[Delivery]) -> Iterator[Sequence[Delivery]]:
    """Split the deliveries, in order, into chunks. A large or redelivered message is a chunk by itself."""
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
    """Belongs to the pump's thread. ``lock`` is held during each use of the monitor."""

    def __init__(self, monitor: Monitor, lock: threading.Lock, clock: Clock, marks: CrashMarks) -> None:
        self._monitor = monitor
        self._lock = lock
        self._clock = clock
        self._marks = marks

    def apply(self, deliveries: Sequence[Delivery], *, marking: bool) -> None:
        """Apply all of them. ``marking``: set crash marks, because the broker redelivers what crashed the process."""
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
