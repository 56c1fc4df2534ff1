"""PostgreSQL: a connection that does not wait for ever.

A server that is stopped, or a network that swallows packets, raises no error: the kernel at the other end may even
acknowledge what was sent.
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
"""Seconds of silence while an answer is due. A flush is many statements, and each is done in milliseconds."""
_ENDING: Final = 1.0


class AnswerTimeouts:
    """How long the connections of one store wait for an answer."""

    def __init__(self) -> None:
        self.seconds = _WORKING

    def starts(self) -> None:
        """Much is read at the start."""
        self.seconds = _STARTING

    def migrates(self) -> None:
        """A table may be written anew."""
        self.seconds = _MIGRATING

    def works(self) -> None:
        """From now on only as long as the rest of the program can wait."""
        self.seconds = _WORKING

    @contextlib.contextmanager
    def short_timeouts(self) -> Iterator[None]:
        """Within the block: what is still to be done is a courtesy to others."""
        before, self.seconds = self.seconds, _ENDING
        try:
            yield
        finally:
            self.seconds = before


def _dumper(kind: type[Array]) -> type[BytesBinaryDumper]:
    """Sends what is an array already."""
    return type(f"{kind.__name__}Dumper", (BytesBinaryDumper,), {"oid": kind.oid})


_DUMPERS: Final = {kind: _dumper(kind) for kind in (Bigints, Blobs, Booleans, Doubles, Texts)}


class BoundedConnection(psycopg.Connection[tuple[Any, ...]]):
    """Drops itself when the server has not answered in time; the error is an OperationalError."""

    timeouts = AnswerTimeouts()
    deadline = math.inf
    """Monotonic time after which no answer is waited for."""
    silence = math.inf
    """Seconds for which an answer is waited for, where ``timeouts`` has more."""

    def take_arrays(self) -> None:
        """Take ``Array`` as a parameter."""
        for kind, dumper in _DUMPERS.items():
            self.adapters.register_dumper(kind, dumper)

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:  # noqa: ANN401 - psycopg's own
        """As in psycopg; every operation comes through here."""
        return super().wait(self._bounded(gen), *args, **options)

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        last_received_at = time.monotonic()
        try:
            awaited = next(gen)
            while True:
                ready = yield awaited
                now = time.monotonic()
                # psycopg looks ten times a second, also while nothing comes.
                if ready:
                    last_received_at = now
                elif now >= min(self.deadline, last_received_at + min(self.silence, self.timeouts.seconds)):
                    self.pgconn.finish()
                    raise psycopg.OperationalError(SILENT)
                awaited = gen.send(ready)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
