"""PostgreSQL with psycopg 3: connections, transactions and errors.

It works through pgbouncer in transaction mode: it uses no prepared statements and no session state, and each
transaction sets what it needs. Writers take a transaction-level advisory lock, so they run one after the other, as with
SQLite. The lock is released with the transaction, however it ends.
"""

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.exc import DBAPIError

from celery_monitor.adapters.store.dialects.base import ServerReport, Usage, too_slow
from celery_monitor.adapters.store.dialects.postgresql_abandoned import end_abandoned
from celery_monitor.adapters.store.dialects.postgresql_connection import AnswerTimeouts, BoundedConnection
from celery_monitor.adapters.store.dialects.postgresql_faults import classified, unreadable_url
from celery_monitor.adapters.store.dialects.postgresql_fleets import other_fleets
from celery_monitor.adapters.store.dialects.postgresql_report import report
from celery_monitor.adapters.store.dialects.postgresql_schema import TableSchema
from celery_monitor.adapters.store.process_lock import ProcessLock
from celery_monitor.adapters.store.sequence import SequenceFile, SequenceRecord
from celery_monitor.errors import MonitorError, StoreUnusableError
from celery_monitor.settings.secret import SecretSource, redact_url
from celery_monitor.settings.store import StoreSchema

MIN_VERSION: Final = 13
LOCK_TIMEOUT: Final = 5.0
"""Seconds to wait for another writer, such as a command or a migration, before the write fails."""
READER_IDLE_TIMEOUT: Final = 60.0
"""Seconds after which the server ends a read transaction of a silent client, because a migration waits for it."""
GRACE: Final = 1.0
"""Seconds after the deadline of a query in which the server may still report that it has canceled the query."""
_NO_TIMEOUT: Final = "SET LOCAL statement_timeout = 0; "
"""Overrides a timeout of the role, which is meant for short queries and would cancel a migration or a large flush."""
_DEFAULTS: Final[Mapping[str, str]] = {
    "application_name": "celery-monitor",
    "client_encoding": "UTF8",
    "connect_timeout": "5",
    # After a failover, the host name may resolve to a standby for a while.
    "target_session_attrs": "read-write",
    # Detect a peer that disappeared without closing the connection, while it is idle and while data is in flight.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


class PostgresqlDialect:
    """See ``base.StoreDialect``. Raises StoreUnusableError for an invalid URL.

    URL and password are read again for each connection, so they can be changed while the daemon runs. Small files are
    in ``directory``; their names contain a hash of the database.
    """

    driver = "postgresql+psycopg://"
    options: Mapping[str, Any] = {"paramstyle": "format", "use_native_hstore": False}
    limit = math.inf
    shared = True
    clock = "extract(epoch FROM clock_timestamp())::double precision"
    errors: tuple[type[Exception], ...] = (psycopg.Error,)

    def __init__(
        self,
        url: SecretSource,
        password: SecretSource,
        directory: Path,
        *,
        schema: StoreSchema | None,
        idle_timeout: float,
        setting: str,
    ) -> None:
        """``schema``: the schema of the tables. If None, or if the URL sets a search path, the search path decides.

        ``idle_timeout``: seconds after which the server ends the write transaction of a silent client. Such a client
        was stopped or is unreachable, and it holds the write lock, which the next leader needs. ``setting``: see
        ``dialect_of``.
        """
        self._url = url
        self.setting = setting
        self._idle_timeout = idle_timeout
        self._connect_timeout: Mapping[str, str] = {}
        self._password = password
        parts = self._parameters()
        host = parts.get("host") or parts.get("hostaddr") or "the local socket"
        port = f":{parts['port']}" if "port" in parts else ""
        self._name = str(parts.get("dbname") or parts.get("user") or "")
        self._user = str(parts.get("user") or "")
        self.location = f"{self._name} on {host}{port}"
        self._schema = TableSchema(None if "search_path" in str(parts.get("options", "")) else schema)
        self._directory = directory
        self._files_lock = ProcessLock()
        self._sequence: SequenceFile | None = None
        self._timeouts = AnswerTimeouts()
        self._size = 0
        self._version = ""

    @property
    def about(self) -> str:
        """See StoreDialect."""
        schema = f", schema {self._schema.name}" if self._schema.name is not None else ""
        return f"PostgreSQL{self._version and f' {self._version}'}, {self.location}{schema}"

    def _beside(self, suffix: str) -> Path:
        """Path of a file of this process. Monitors of several databases or schemas may share the directory."""
        digest = hashlib.blake2b(f"{self.location}{self._schema.suffix}".encode(), digest_size=4).hexdigest()
        return self._directory / f"celery-monitor-{digest}{suffix}"

    @property
    def applying(self) -> Path:
        """See StoreDialect."""
        return self._beside(".applying")

    def other_user_of_files(self) -> str | None:
        """See StoreDialect."""
        try:
            return self._files_lock.take(self._beside(".lock"))
        except OSError:  # writing the files reports what is wrong with the directory
            return None

    def prepare(self) -> None:
        """See StoreDialect. Takes no lock: the lease decides which process may write."""
        self._timeouts.use_for_start()

    def exists(self) -> bool:
        """See StoreDialect. Raises StoreUnusableError if there are no tables and the user may not create them."""
        self._timeouts.use_for_start()
        with self._own_connection() as connection:
            if self._schema.exists(connection):
                return True
            self._check(connection)
        return False

    def check(self) -> None:
        """See StoreDialect. Creates the schema if it does not exist."""
        with self._own_connection() as connection:
            self._check(connection)
            self._schema.create(connection, self.location)

    def _check(self, connection: BoundedConnection) -> None:
        version = connection.info.server_version // 10_000
        if version < MIN_VERSION:
            raise StoreUnusableError(
                f"The store {self.location} is on PostgreSQL {version}: at least version {MIN_VERSION} is needed"
            )
        encoding = connection.info.parameter_status("server_encoding")
        if encoding not in {None, "UTF8"}:
            raise StoreUnusableError(
                f"The store {self.location} has the encoding {encoding}, which cannot hold every text: create the "
                "database with ENCODING 'UTF8' TEMPLATE template0"
            )
        self._schema.check(connection, self.location)

    def set_format(self) -> None:
        """See StoreDialect. Extends the timeouts for a migration."""
        self._timeouts.use_for_migration()

    def set_up_reserves(self) -> None:
        """See StoreDialect. Ends the long timeouts of the start."""
        self._timeouts.use_default()

    @contextlib.contextmanager
    def short_timeouts(self) -> Iterator[None]:
        """See StoreDialect."""
        self._connect_timeout = {"connect_timeout": "2"}
        try:
            with self._timeouts.short_timeouts():
                yield
        finally:
            self._connect_timeout = {}

    def release(self) -> None:
        """See StoreDialect. Ends the long timeouts of the start, which may have failed."""
        self._timeouts.use_default()
        if self._sequence is not None:
            self._sequence.close()
            self._sequence = None
        self._files_lock.release()

    def connect(self, *, read_only: bool = False) -> BoundedConnection:
        """See StoreDialect."""
        del read_only  # set per transaction
        connection = BoundedConnection.connect(
            make_conninfo("", **self._parameters()), autocommit=True, prepare_threshold=None
        )
        connection.timeouts = self._timeouts
        connection.take_arrays()
        try:
            self._schema.find(connection)
        except BaseException:
            connection.close()
            raise
        # As in "15.8 (Debian 15.8-0+deb12u1)".
        self._version = (connection.info.parameter_status("server_version") or "").partition(" ")[0]
        return connection

    def begin(self, *, read_only: bool, lock_wait: float | None = None) -> str:
        """See StoreDialect. One round trip. Does not set READ WRITE, which would override a server's read-only mode."""
        if read_only:
            return (
                f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {self._schema.local}{_NO_TIMEOUT}"
                f"SET LOCAL idle_in_transaction_session_timeout = {READER_IDLE_TIMEOUT * 1000:.0f}"
            )
        lock_timeout = LOCK_TIMEOUT if lock_wait is None else lock_wait
        return (
            f"BEGIN ISOLATION LEVEL READ COMMITTED; {self._schema.local}{_NO_TIMEOUT}"
            f"SET LOCAL lock_timeout = {lock_timeout * 1000:.0f}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {self._idle_timeout * 1000:.0f}; "
            f"SELECT pg_advisory_xact_lock({self._schema.lock})"
        )

    @staticmethod
    def limit_silence(connection: Any, seconds: float) -> None:  # noqa: ANN401 - the pool knows no type
        """See StoreDialect."""
        connection.silence = seconds

    def end_abandoned(self, connection: Any, silent_for: float) -> int:  # noqa: ANN401 - the pool knows no type
        """See StoreDialect."""
        return end_abandoned(connection, self._schema.lock, silent_for)

    def other_fleets(self, connection: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - the pool knows no type
        """See StoreDialect."""
        return other_fleets(connection, self._schema.name)

    @contextlib.contextmanager
    def ended_at(self, connection: Any, deadline: float) -> Iterator[None]:  # noqa: ANN401 - the pool knows no type
        """See StoreDialect. The server cancels the query. If the server does not answer, the connection is closed."""
        if deadline == math.inf:
            yield
            return
        milliseconds = max(1, int((deadline - time.monotonic()) * 1000))
        connection.deadline = deadline + GRACE
        try:
            with self._driver():
                connection.execute(f"SET LOCAL statement_timeout = {milliseconds}")
            yield
        except DBAPIError as exc:
            if isinstance(exc.orig, psycopg.errors.QueryCanceled):
                raise too_slow() from exc
            raise
        finally:
            connection.deadline = math.inf

    @contextlib.contextmanager
    def pipelined(self, connection: Any) -> Iterator[None]:  # noqa: ANN401 - the pool knows no type
        """See StoreDialect. An error of a statement may be raised only at the end of the block."""
        if not psycopg.capabilities.has_pipeline():
            yield
            return
        try:
            with connection.pipeline():
                yield
        except psycopg.Error as exc:
            # As SQLAlchemy raises it outside of a pipeline.
            raise DBAPIError.instance(None, None, exc, psycopg.Error) from exc

    def classify(self, exc: BaseException) -> MonitorError:
        """See StoreDialect."""
        return classified(exc, location=self.location, database=self._name, user=self._user, setting=self.setting)

    def usage(self, connection: Any) -> Usage:  # noqa: ANN401 - the pool knows no type
        """See StoreDialect. As of the last ``housekeep``, because the server has to check the size of each file."""
        del connection
        return Usage(self._size)

    @staticmethod
    def use_reserve() -> bool:
        """See StoreDialect. There is none, because the disk is the server's."""
        return False

    def read_sequence(self, identity: str | None) -> SequenceRecord | None:
        """See StoreDialect. After a failover, the new primary may lack the newest flushes."""
        if self._sequence is not None:
            self._sequence.close()
        self._sequence = SequenceFile(self._beside(".sequence"))
        record = self._sequence.read()
        self._sequence.open()
        return record if record is not None and identity and record.identity == identity else None

    def write_sequence(self, record: SequenceRecord) -> None:
        """See StoreDialect."""
        if self._sequence is not None:
            self._sequence.write(record)

    def report(self, now: Callable[[], float]) -> ServerReport:
        """See StoreDialect."""
        with self._own_connection() as connection:
            return report(connection, self._schema.name, now)

    def verify(self) -> None:
        """See StoreDialect. Does nothing, because each flush checks its token in the database."""

    def housekeep(self) -> None:
        """See StoreDialect. Measures the size. The server's autovacuum frees space."""
        with self._own_connection() as connection:
            self._size = self._schema.size(connection)

    def _parameters(self) -> dict[str, Any]:
        """Connection parameters for libpq. Raises StoreUnusableError, whose text contains no secret."""
        url = self._url.get() or ""
        try:
            parameters = conninfo_to_dict(url)
        except psycopg.Error:
            raise unreadable_url(redact_url(url), self.setting) from None
        password = self._password.get()
        return {
            **_DEFAULTS,
            **parameters,
            **self._connect_timeout,
            **({} if password is None else {"password": password}),
        }

    @contextlib.contextmanager
    def _own_connection(self) -> Iterator[BoundedConnection]:
        """A connection outside of the pools, for statements that need no transaction of the store."""
        with self._driver(), contextlib.closing(self.connect()) as connection:
            yield connection

    @contextlib.contextmanager
    def _driver(self) -> Iterator[None]:
        """Translate errors of the driver."""
        try:
            yield
        except psycopg.Error as exc:
            raise self.classify(exc) from exc
