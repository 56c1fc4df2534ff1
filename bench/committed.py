"""Reads the number of committed task events from the store. A request for metrics would take CPU time of the daemon."""

import time
from types import TracebackType
from typing import Self

from sqlalchemy import create_engine, make_url, text

_COUNT = text(
    "SELECT sum(newest) FROM (SELECT max(value) AS newest FROM counters WHERE name LIKE :names GROUP BY name) AS kinds"
)


class CommittedEvents:
    """Reads the daemon's own counters from its store."""

    def __init__(self, url: str) -> None:
        """``url`` is that of the store. Connects when it is first used."""
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self._engine = create_engine(parsed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()

    def count(self) -> int:
        """The number of task events so far."""
        with self._engine.connect() as connection:
            return int(connection.execute(_COUNT, {"names": "events.task-%"}).scalar() or 0)

    def wait_for(self, number: int, timeout: float = 120.0) -> None:
        """Wait until at least this many are committed. Raises TimeoutError if none is for ``timeout`` seconds."""
        newest, since = self.count(), time.monotonic()
        while newest < number:
            if time.monotonic() - since > timeout:
                raise TimeoutError(f"{newest} of {number} events are committed, and none more in {timeout:.0f} s")
            time.sleep(0.05)
            if (found := self.count()) != newest:
                newest, since = found, time.monotonic()
