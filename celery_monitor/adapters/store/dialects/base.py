"""Interfaces to what differs between databases. Code outside of this package does not know the kind of database."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Compiled, Connection, Dialect, Select, Table
from sqlalchemy.dialects import postgresql, sqlite

from celery_monitor.adapters.store.sequence import SequenceRecord
from celery_monitor.errors import MonitorError, QueryTimeoutError

Insert = sqlite.Insert | postgresql.Insert
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """The space of a database, in bytes."""

    used: int
    """By stored data, and by a log file beside it."""
    reusable: int = 0
    """Free space inside the file."""
    disk_free: float = math.inf
    """Free space of the file system, without the reserve; infinite if unknown."""
    headroom: int = 0
    """Space that should stay free for essential data."""


@dataclass(frozen=True, slots=True)
class ServerReport:
    """Facts about a database server and the connection to it."""

    clock_offset: float
    """Seconds that its clock is ahead of this machine's."""
    pooled: bool
    """Whether there is a connection pooler that assigns server connections to transactions."""
    synchronous_commit: str
    """The value of this setting for the monitor's connections."""
    synchronous_standbys: str
    """The setting ``synchronous_standby_names``."""
    standbys: int
    """Number of connected standbys."""
    fsync: bool
    inaccessible: tuple[str, ...]
    """Tables that the user may not read, write or alter."""


class StoreDialect(Protocol):
    """The database of a URL. Only ``engine.Database`` uses it. The constructor does no I/O."""

    driver: str
    """URL of the dialect and driver for SQLAlchemy."""
    options: Mapping[str, Any]
    """Arguments for ``sqlalchemy.create_engine``."""
    limit: float
    """Maximum bytes of the database; infinite if the monitor does not limit it."""
    shared: bool
    """Whether several processes may open it for writing and take turns by a lease. Otherwise ``prepare`` locks it."""
    setting: str
    """Name of the setting or option that contains the URL, for remedies."""
    clock: str
    """SQL expression for the current Unix time, not that of the start of the transaction."""
    errors: tuple[type[Exception], ...]
    """Exceptions of the driver, for ``classify``."""

    @property
    def location(self) -> str:
        """The place of the database for error messages. Contains no secrets."""

    @property
    def about(self) -> str:
        """Name of the database for people, with its version once it is known. Contains no secrets."""

    @property
    def applying(self) -> Path:
        """Path of the file that records which message is being applied. Available after ``prepare``."""

    def prepare(self) -> None:
        """Take the database for this process, and create it if possible. Raises as ``SqlStore.start``."""

    def other_user_of_files(self) -> str | None:
        """Take the small files that this process writes beside the database. Never raises.

        Returns the other process that uses the same files; None if there is none, or if this cannot be determined.
        """

    def exists(self) -> bool:
        """Whether there is a database to attach to. Raises StoreUnusableError if this cannot be determined."""

    def check(self) -> None:
        """Raise StoreUnusableError if the database is damaged or this program cannot use it."""

    def set_format(self) -> None:
        """Choose the settings that can only be chosen before the first table is created."""

    def set_up_reserves(self) -> None:
        """Reserve what is needed when the disk is full or no file descriptor is left."""

    def short_timeouts(self) -> AbstractContextManager[None]:
        """Within the block, no thread waits longer than a second or two for an answer or a connection."""

    def release(self) -> None:
        """Release the database for another process."""

    def connect(self, *, read_only: bool = False) -> Any:  # noqa: ANN401 - a connection of the driver
        """A connection without implicit transactions."""

    def begin(self, *, read_only: bool, lock_wait: float | None) -> str:
        """The SQL that begins a transaction. It takes the write lock for a writer.

        ``lock_wait``: seconds that a writer waits for other writers; None means the default.
        """

    def limit_silence(self, connection: Any, seconds: float) -> None:  # noqa: ANN401 - a connection of the driver
        """From now on, wait at most this long for each answer of the server; infinite means the default."""

    def end_abandoned(self, connection: Any, silent_for: float) -> int:  # noqa: ANN401 - a connection of the driver
        """Terminate writers' transactions whose clients have been silent for ``silent_for`` seconds. Returns how many.

        Such a client was stopped or disconnected, but its transaction still holds the write lock.
        """

    def ended_at(self, connection: Any, deadline: float) -> AbstractContextManager[None]:  # noqa: ANN401
        """Within the block, each statement on the driver's connection fails at this monotonic time."""

    def other_fleets(self, connection: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - a connection of the driver
        """(name, URL of the page) of the other fleets in this database that the user may read."""

    def pipelined(self, connection: Any) -> AbstractContextManager[None]:  # noqa: ANN401 - a connection of the driver
        """Within the block, statements may be sent before earlier ones are done. Their results cannot be read."""

    def classify(self, exc: BaseException) -> MonitorError:
        """The error that tells the caller what to do about an error of the driver."""

    def usage(self, connection: Any) -> Usage:  # noqa: ANN401 - a connection of the driver
        """The used and available space, as the connection's transaction sees it."""

    def use_reserve(self) -> bool:
        """Release the reserved disk space. Returns whether there was any."""

    def read_sequence(self, identity: str | None) -> SequenceRecord | None:
        """The newest flush that was recorded as committed to this store. Prepares ``write_sequence``."""

    def write_sequence(self, record: SequenceRecord) -> None:
        """Record that a flush was committed."""

    def report(self, now: Callable[[], float]) -> ServerReport | None:
        """Facts about the server for people; None if there is no server. ``now`` reads this machine's clock."""

    def verify(self) -> None:
        """Raise StoreUnusableError if the database was moved, deleted or replaced while it is in use."""

    def housekeep(self) -> None:
        """Do the periodic maintenance that the database needs. Takes a bounded time."""


class Statements(Protocol):
    """A statement that runs for any number of rows."""

    def batches(self, rows: Iterable[Row]) -> Iterator[tuple[str, Row | list[Row]]]:
        """SQL with parameters, in order: one tuple for many rows at once, or a list of rows for ``executemany``."""


class Sql(Protocol):
    """The SQL that differs between databases, especially statements for many rows at once."""

    stores_nul: bool
    """Whether texts may contain the character NUL."""

    def __init__(self, dialect: Dialect) -> None:
        """``dialect``: SQLAlchemy's."""

    def insert(self, table: Table) -> Insert:
        """An INSERT that supports ON CONFLICT."""

    def bulk_insert(self, single: Compiled, table: Table, columns: Sequence[str]) -> Statements:
        """As ``single``, which inserts a row of ``columns``."""

    def bulk_delete(self, single: Compiled, table: Table, keys: Sequence[str]) -> Statements:
        """As ``single``, which deletes a row by ``keys``."""

    def bulk_trim(self, single: Compiled, table: Table, group: str, keep: int) -> Statements:
        """As ``single``, which deletes all but the ``keep`` rows with the highest primary keys of a ``group``."""

    def portions(self, connection: Connection, query: Select[Any], size: int) -> Iterator[Sequence[Row]]:
        """The rows of a large result, ``size`` at a time, in memory for so many."""

    def without_index(self, column: ColumnElement[int]) -> ColumnElement[int]:
        """An expression for the column that prevents the use of its index, for a condition that most rows meet."""

    def continuing(self, table: Table) -> Sequence[str]:
        """Statements to run after rows were inserted with their IDs, so that new rows get higher IDs."""


def too_slow() -> QueryTimeoutError:
    """The error for a query that has reached its deadline."""
    return QueryTimeoutError("The query timed out: narrow it by task, exception or a shorter time range (since, until)")
