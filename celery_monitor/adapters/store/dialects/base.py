"""What the store asks of a database, whichever it is. Nothing else asks which one it is."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Compiled, Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite

from celery_monitor.adapters.store.sequence import SequenceRecord
from celery_monitor.errors import MonitorError, QueryTimeoutError

Insert = sqlite.Insert | postgresql.Insert
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes."""

    used: int
    """By what is stored, and by the log where it lies beside it."""
    reusable: int = 0
    """Free space inside of what is used."""
    disk_free: float = math.inf
    """What the file system has for us, without what is set aside or should be; infinite where it is not known."""
    headroom: int = 0


@dataclass(frozen=True, slots=True)
class ServerReport:
    """A database server and the way to it."""

    clock_offset: float
    """Seconds that its clock is ahead of this machine's."""
    pooled: bool
    """Something between gives transactions one connection or another."""
    synchronous_commit: str
    """The setting, as for our connections."""
    synchronous_standbys: str
    """The setting ``synchronous_standby_names``."""
    standbys: int
    """How many follow now."""
    fsync: bool
    inaccessible: tuple[str, ...]
    """Tables that the user may not read, write and alter."""


class StoreDialect(Protocol):
    """One database by its URL. Used by ``engine.Database`` only. The constructor does no I/O."""

    driver: str
    """SQLAlchemy's URL of dialect and driver."""
    options: Mapping[str, Any]
    """Of ``sqlalchemy.create_engine``."""
    limit: float
    """Bytes that the database may take; infinite where the monitor does not bound it."""
    shared: bool
    """Several processes may open it for writing, and take turns by a lease; else ``prepare`` takes it for one."""
    clock: str
    """SQL of the time of now, not of the transaction's beginning, in Unix seconds."""
    errors: tuple[type[Exception], ...]
    """What the driver raises of its own, for ``classify``."""

    @property
    def location(self) -> str:
        """Where it is, for errors; without secrets."""

    @property
    def about(self) -> str:
        """Which database it is, with its version where that is known by now; without secrets."""

    @property
    def applying(self) -> Path:
        """The file that says which message is being applied, once ``prepare`` is done."""

    def prepare(self) -> None:
        """Take the database for this process, create it where that is possible. Raises as ``SqlStore.start``."""

    def other_user_of_files(self) -> str | None:
        """Take the small files that this process keeps beside the database. Never raises.

        Returns which other process keeps its own in the same place; None if there is none, or it cannot be found out.
        """

    def exists(self) -> bool:
        """Whether there is anything to attach to. Raises StoreUnusableError where that cannot be found out."""

    def check(self) -> None:
        """Raise StoreUnusableError when it is damaged or cannot be used by this program."""

    def settle(self) -> None:
        """Choose what can only be chosen before the first table."""

    def hold(self) -> None:
        """Set aside what is needed in bad times."""

    def short_timeouts(self) -> AbstractContextManager[None]:
        """Within the block no thread waits longer than a second or two for an answer or a connection."""

    def release(self) -> None:
        """Give the database up for another process."""

    def connect(self, *, read_only: bool = False) -> Any:  # noqa: ANN401 - a connection of the driver
        """A connection without implicit transactions."""

    def begin(self, *, read_only: bool, lock_wait: float | None) -> str:
        """The SQL that begins a transaction. A writer has the write lock from there on.

        ``lock_wait``: seconds that a writer waits for other writers; None for the usual time.
        """

    def limit_silence(self, connection: Any, seconds: float) -> None:  # noqa: ANN401 - a connection of the driver
        """From now on each answer is waited for so many seconds at most; infinite: as long as usual."""

    def end_abandoned(self, connection: Any, silent_for: float) -> int:  # noqa: ANN401 - a connection of the driver
        """End transactions of writers whose clients have said nothing for so many seconds; how many there were.

        Such a client was stopped or cut off, and keeps the write lock.
        """

    def ended_at(self, connection: Any, deadline: float) -> AbstractContextManager[None]:  # noqa: ANN401
        """Within the block each statement on the driver's connection ends with an error at this monotonic time."""

    def other_fleets(self, connection: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - a connection of the driver
        """Names of the other fleets in this database that can be read, each with the URL of its page."""

    def pipelined(self, connection: Any) -> AbstractContextManager[None]:  # noqa: ANN401 - a connection of the driver
        """Within the block statements may be sent before the ones before them are done: nothing is asked of them."""

    def classify(self, exc: BaseException) -> MonitorError:
        """What an error of the driver means to the caller."""

    def usage(self, connection: Any) -> Usage:  # noqa: ANN401 - a connection of the driver
        """How much space there is, seen from within a transaction."""

    def use_reserve(self) -> bool:
        """Give up space that was set aside; whether there was any."""

    def read_sequence(self, identity: str | None) -> SequenceRecord | None:
        """The newest flush that is known to have been committed to this store; begins to take notes."""

    def write_sequence(self, record: SequenceRecord) -> None:
        """A flush was committed."""

    def report(self, now: Callable[[], float]) -> ServerReport | None:
        """What a person should know of the server; None where there is none. ``now``: of this machine's clock."""

    def verify(self) -> None:
        """Raise StoreUnusableError when the database was taken away while it was in use."""

    def housekeep(self) -> None:
        """What it needs once in a while; bounded in time."""


class Statements(Protocol):
    """One statement for any number of rows."""

    def batches(self, rows: Iterable[Row]) -> Iterator[tuple[str, Row | list[Row]]]:
        """SQL texts with their parameters, in order: of many rows in one tuple, or a list of rows for each its own."""


class Sql(Protocol):
    """How a database's SQL takes many rows at once, and what it does on conflicts."""

    stores_nul: bool
    """Texts may hold the character NUL."""

    def __init__(self, dialect: Dialect) -> None:
        """Of SQLAlchemy's dialect."""

    def insert(self, table: Table) -> Insert:
        """An INSERT that knows ON CONFLICT."""

    def bulk_insert(self, single: Compiled, table: Table, columns: Sequence[str]) -> Statements:
        """``one`` inserts a row of ``columns``."""

    def bulk_delete(self, single: Compiled, table: Table, keys: Sequence[str]) -> Statements:
        """``one`` deletes a row by ``keys``."""

    def bulk_trim(self, single: Compiled, table: Table, group: str, keep: int) -> Statements:
        """``one`` deletes all but the ``kept`` rows with the highest primary key of a ``group``."""

    def without_index(self, column: ColumnElement[int]) -> ColumnElement[int]:
        """The column for a condition that most rows meet, where the database would sort what an index has in order."""

    def continuing(self, table: Table) -> Sequence[str]:
        """Statements after which new rows get IDs beyond those that were inserted with theirs."""


def too_slow() -> QueryTimeoutError:
    """The error for a query that has reached its deadline."""
    return QueryTimeoutError("The query timed out: narrow it by task, exception or a shorter time range (since, until)")
