"""Settings of the store and of task tracking."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import regex
from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from celery_monitor.errors import Problem
from celery_monitor.settings.secret import SecretFile, SecretSource, SecretUrl, check_ends, redact_url
from celery_monitor.settings.section import MAX_PORT, Section, check_url_file, not_a_file
from celery_monitor.settings.units import DAY, MIB, MINUTE, Duration, duration, size

POSTGRESQL: Final = ("postgresql", "postgres")
"""URL schemes that libpq accepts."""
STORE_URL: Final = "store.url"
"""The setting's name, for remedies."""
_IDENTIFIER: Final = re.compile("[a-z_][a-z0-9_]{0,62}")
_NOT_PLAIN: Final = re.compile("[^a-z0-9]+")
_PREFIX: Final = "celery_monitor_"
_MAX_FLEET: Final = 40
_DEFAULT_URL: Final = SecretUrl("sqlite:///celery-monitor.db")


def check_store_url(url: str) -> None:
    """Raises ValueError, without any part of the URL, if it is not a valid URL of a store."""
    if "\0" in url:
        raise ValueError("must not contain a NUL character")
    if url.partition("://")[0] in POSTGRESQL:
        check_ends(url)
        if "://" in url and not url.partition("://")[2].partition("?")[0].rpartition("@")[2].partition("/")[2]:
            raise ValueError("must name the database: postgresql://user@host:5432/database")
        if not all(_is_port(port) for port in _ports(url)):
            raise ValueError(
                f"has a port that is not a number from 1 to {MAX_PORT}: percent-encode all special characters"
            )
    elif not url.startswith("sqlite:///") or url == "sqlite:///":
        raise ValueError(
            "must be a SQLite file (sqlite:///relative/path.db or sqlite:////absolute/path.db), or a PostgreSQL "
            "database (postgresql://user@host:5432/database)"
        )
    elif "?" in url:
        raise ValueError("must not have parameters: for a SQLite file, nothing follows its path")
    elif kind := not_a_file(url.removeprefix("sqlite:///")):
        raise ValueError(f"must be the path of a file; {url.removeprefix('sqlite:///')} is {kind}")


def _ports(url: str) -> Iterator[str]:
    """The ports of the hosts in a PostgreSQL URL: libpq accepts several hosts, separated by commas."""
    hosts = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    for host in hosts.split(","):
        yield host.rpartition("]")[2].rpartition(":")[2] if ":" in host.rpartition("]")[2] else ""


def _is_port(text: str) -> bool:
    return not text or (
        text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PORT)) and 0 < int(text) <= MAX_PORT
    )


def problems_of_store(store: "StoreSettings") -> Iterator[Problem]:
    """Settings that cannot work together or in this installation, each with its field and what to do."""
    url = store.url_source().get() or ""
    if store.replicas > 1 and store.file is not None:
        message = (
            "must be 1 with a SQLite store, which one process has to itself: set store.url to a PostgreSQL database"
        )
        yield Problem("store.replicas", message)
    if url.partition("://")[0] in POSTGRESQL and find_spec("psycopg") is None:
        message = (
            "PostgreSQL needs psycopg, which is not installed: pip install 'celery-monitor[postgresql]' (the container "
            "image has it)"
        )
        yield Problem("store.url", message)


def _store_url(value: SecretUrl) -> SecretUrl:
    check_store_url(value.get_secret_value())
    return value


def _identifier(value: str) -> str:
    if not _IDENTIFIER.fullmatch(value) or value.startswith("pg_"):
        raise ValueError(
            "must be a PostgreSQL identifier: lower-case letters, digits and _, at most 63, no digit first, not pg_…"
        )
    return value


@dataclass(frozen=True, slots=True)
class StoreSchema:
    """A PostgreSQL schema and the fleet that it belongs to."""

    name: str
    derived: bool
    """The name is not configured: tables that an older version created elsewhere are used there."""
    fleet: str
    external_url: str = ""
    """URL of the fleet's web page; "" if not configured."""


def schema_of(fleet: str) -> str:
    """The default schema of a fleet. Fleets with similar names have different schemas."""
    plain = _NOT_PLAIN.sub("_", fleet.lower())
    if plain == fleet and len(plain) <= _MAX_FLEET:
        return f"{_PREFIX}{plain}"
    return f"{_PREFIX}{plain[: _MAX_FLEET - 9]}_{hashlib.blake2b(fleet.encode(), digest_size=4).hexdigest()}"


def _regex(value: str) -> str:
    # First Python's own engine, whose syntax is documented; then the engine that runs it.
    try:
        re.compile(value)
    except re.error as exc:
        # The error may quote the pattern, and the pattern may be a secret.
        raise ValueError(f"is not a regular expression: it fails at character {(exc.pos or 0) + 1}") from None
    try:
        regex.compile(value, regex.VERSION0)
    except regex.error as exc:
        at = getattr(exc, "pos", None) or 0
        raise ValueError(f"cannot be used as a regular expression: it fails at character {at + 1}") from None
    return value


class StoreSettings(Section):
    """The database of counts, failures, incidents and notifications."""

    url: Annotated[SecretUrl, AfterValidator(_store_url)] = Field(
        default=_DEFAULT_URL,
        json_schema_extra={
            "default": _DEFAULT_URL.get_secret_value(),
            "examples": ["sqlite:////var/lib/celery-monitor/celery-monitor.db", "postgresql://monitor@db/monitoring"],
        },
    )
    """A SQLite file: three slashes and a path below the working directory, or four slashes and an absolute path. Or a
    PostgreSQL database: ``postgresql://user@host:5432/database``, with libpq parameters (``?sslmode=verify-full``).
    """
    url_file: SecretFile | None = None
    """A file that contains the URL, instead of ``url``. It is read again for each new connection."""
    password_file: SecretFile | None = None
    """A file that contains the password of the PostgreSQL user, if the URL has none. It is read again for each new
    connection.
    """
    schema_: Annotated[str, AfterValidator(_identifier)] | None = Field(default=None, alias="schema")
    """With PostgreSQL: the schema of the tables; it is created if it does not exist, which requires the privilege
    CREATE. Default: ``celery_monitor_`` and the fleet's name, or the schema in which an older version created the
    tables. Set it before you rename a fleet.
    """
    directory: Path = Path()
    """With PostgreSQL: the directory for two small files that must survive a restart of the process, but not the loss
    of the machine. They record which message a killed process was applying, and whether the database has lost a flush.
    Default: the working directory.
    """
    replicas: int = Field(default=1, ge=1)
    """With PostgreSQL: the number of replicas. With several, a replica stops reading the event stream while the
    database is unavailable, because another one may lead; a single replica continues to read and page.
    """
    lease_ttl: Annotated[float, duration("1s", "1m")] = 3.0
    """With PostgreSQL and two replicas: how long after the leader last renewed its lease the other replica takes over.
    The leader renews it three times in this time, and with each commit.
    """
    flush_interval: Annotated[float, duration("10ms", "1m")] = 1.0
    """The maximum time until counts are committed and messages acknowledged, and so the age of the counters in
    ``/metrics`` and on the page. Incidents do not wait for it. A longer interval means fewer, larger transactions and
    less CPU time. On RabbitMQ nothing is lost when the daemon is killed, and on Redis nothing with two replicas; a
    single replica on Redis loses the events of this time and those until it is running again.
    """
    max_bytes: Annotated[int, size("32MiB")] = 1024 * MIB
    """The maximum size of the store. Before it is reached, or the disk is full, ended tasks are dropped first, then the
    oldest samples of failures, then error groups, then counts by time older than a day. Totals, incidents and
    notifications are never dropped. Up to 16 MiB more are reserved for a full disk. SQLite only: the size of a
    PostgreSQL database is not limited; shorten ``retention`` instead.
    """
    retention: Annotated[float, duration("1d")] = 30 * DAY
    """How long counts by time, failures, incidents and reports are kept. Totals are kept forever."""

    @field_validator("url_file")
    @classmethod
    def _one_good_url(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return check_url_file(value, info, _DEFAULT_URL, check_store_url)

    def url_source(self) -> SecretSource:
        """The source of the URL, which is never None."""
        return SecretSource(self.url, self.url_file)

    def password_source(self) -> SecretSource:
        """The source of the PostgreSQL user's password; empty if it is in the URL or comes from libpq."""
        return SecretSource(None, self.password_file)

    @property
    def redacted_url(self) -> str:
        """The URL without its password."""
        return redact_url(self.url_source().get() or "")

    @property
    def file(self) -> Path | None:
        """Path of the SQLite file; None with PostgreSQL."""
        url = self.url_source().get() or ""
        return Path(url.removeprefix("sqlite:///")).absolute() if url.startswith("sqlite:///") else None


class TrackingSettings(Section):
    """How unfinished tasks are tracked, so that every failure has a task name."""

    max_memory: Annotated[int, size("128MiB")] = 512 * MIB
    """The memory that the process may use. Set it to the container's limit. The defaults of all other limits fit into
    the default. If many long names exceed it nevertheless, tracked tasks are evicted when 85 % is in use.
    """
    max_tasks: int = Field(default=500_000, ge=1)
    """The maximum number of unfinished tasks in memory, about 350 bytes each. Beyond it, the oldest is evicted,
    and its failure may be counted as ``unknown``.
    """
    max_age: Annotated[float, duration("1m")] = 7 * DAY
    """A task without any event for this time is evicted. Must be longer than the longest ETA or runtime."""
    linger: Duration = MINUTE
    """How long a failed task stays in memory, so that the second failure event of a hard time limit is not counted
    twice.
    """
    max_ended_tasks: int = Field(default=10_000, ge=0, le=1_000_000)
    """The number of ended tasks kept in the store, the newest first, so that a task can be found by its ID after it has
    ended. If more than 500 tasks end between two flushes, only the newest 500 of them are kept. 0 stores none.
    """
    name_wait: Annotated[float, duration("0s", "2m")] = 15.0
    """How long an event without a known task name waits for the name (from the client's event, or from the workers
    after a restart) before it is counted and pages as ``unknown``.
    """
    capture_arguments: bool = False
    """Whether args and kwargs are stored and shown with failures. Off by default, because they often contain
    personal data.
    """
    max_argument_bytes: Annotated[int, size("64KiB")] = 32 * MIB
    """With ``capture_arguments``: the memory for args and kwargs of unfinished tasks. Beyond it, those of the
    oldest tasks are dropped.
    """
    max_error_groups: int = Field(default=20_000, ge=1)
    """The maximum number of error groups (failures of a task with the same exception at the same place). Beyond
    it, the groups with the oldest last failure are evicted.
    """
    max_sample_bytes: Annotated[int, size("64KiB")] = 16 * MIB
    """The memory for messages, tracebacks and arguments of failures until the next flush. Beyond it, the oldest
    are dropped; the failures are still counted and page.
    """
    redact: tuple[Annotated[str, Field(min_length=1), AfterValidator(_regex)], ...] = ()
    """Regular expressions in Python's ``re`` syntax. Matches in messages, tracebacks and arguments are replaced
    with ``[redacted]`` before they are stored. If the patterns take longer than 100 ms on a text, the whole text
    is replaced.
    """
