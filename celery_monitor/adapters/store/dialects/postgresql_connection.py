"""PostgreSQL: a connection that limits how long it waits for an answer.

A stopped server, or a network that drops packets, causes no error. The kernel of a stopped server may even acknowledge
what was sent.
"""

import contextlib
import math
import time
from collections.abc import Generator, Iterator
from typing import Any, Final, TypeVar

import psycopg
from psycopg.types.string import BytesBinaryDumper

from celery_monitor.adapters.store.dialects.postgresql_arrays import Array, Bigints, Blobs, Booleans, Doubles, Texts
from celery_monitor.adapters.store.dialects.postgresql_faults import SILENT

T = TypeVar("T")

_STARTING: Final = 60.0
_MIGRATING: Final = 1800.0
_WORKING: Final = 15.0
"""Maximum seconds until an answer. A flush consists of many statements, each of which takes milliseconds."""
_ENDING: Final = 1.0


class AnswerTimeouts:
    """How long the connections of a store wait for an answer."""

    def __init__(self) -> None:
        self.seconds = _WORKING

    def use_for_start(self) -> None:
        """Wait longer: the start reads the whole state."""
        self.seconds = _STARTING

    def use_for_migration(self) -> None:
        """Wait much longer: a migration may rewrite a table."""
        self.seconds = _MIGRATING

    def use_default(self) -> None:
        """Wait no longer than the running program can."""
        self.seconds = _WORKING

    @contextlib.contextmanager
    def short_timeouts(self) -> Iterator[None]:
        """Within the block, wait only briefly: the process is giving up the lease."""
        before, self.seconds = self.seconds, _ENDING
        try:
            yield
        finally:
            self.seconds = before


def _dumper(kind: type[Array]) -> type[BytesBinaryDumper]:
    """A dumper that sends the bytes of the array unchanged."""
    return type(f"{kind.__name__}Dumper", (BytesBinaryDumper,), {"oid": kind.oid})


_DUMPERS: Final = {kind: _dumper(kind) for kind in (Bigints, Blobs, Booleans, Doubles, Texts)}


class BoundedConnection(psycopg.Connection[tuple[Any, ...]]):
    """Closes itself and raises OperationalError if the server does not answer in time."""

    timeouts = AnswerTimeouts()
    deadline = math.inf
    """Monotonic time at which it stops waiting for an answer."""
    silence = math.inf
    """Seconds that it waits for an answer, if less than ``timeouts``."""

    def take_arrays(self) -> None:
        """Accept ``Array`` as a parameter."""
        for kind, dumper in _DUMPERS.items():
            self.adapters.register_dumper(kind, dumper)

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:  # noqa: ANN401 - psycopg's own
        """As in psycopg, which calls this for every operation."""
        return super().wait(self._bounded(gen), *args, **options)

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        last_received_at = time.monotonic()
        try:
            awaited = next(gen)
            while True:
                ready = yield awaited
                now = time.monotonic()
                # psycopg resumes this generator ten times a second, even if nothing was received.
                if ready:
                    last_received_at = now
                elif now >= min(self.deadline, last_received_at + min(self.silence, self.timeouts.seconds)):
                    self.pgconn.finish()
                    raise psycopg.OperationalError(SILENT)
                awaited = gen.send(ready)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
