"""What the runtime needs from the outside, as Protocols. Implemented in ``adapters``, faked in ``tests/fakes.py``.

A constructor does no I/O; ``start`` acquires, ``stop`` releases, and is bounded in time and idempotent.
"""

import math
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from celery_monitor.core.lookup import RunFilter, RunPage
from celery_monitor.core.model import (
    BucketRow,
    Changes,
    Delivery,
    FailingRow,
    Failure,
    FleetTask,
    GroupRow,
    HistoryRow,
    Incident,
    IncidentOutline,
    IncidentRow,
    IncidentState,
    OutboxItem,
    OutboxRequest,
    QueueStats,
    Restored,
    Silence,
    TaskRef,
    TaskRun,
    TaskStarts,
    Worker,
    WorkerDetail,
)
from celery_monitor.core.paging import Page
from celery_monitor.core.replay import Resumption

DEADLINE: Final[ContextVar[float]] = ContextVar("answer_by", default=math.inf)
"""``time.monotonic()`` after which the caller no longer waits for what it reads from the store.

Set by whoever gives up on an answer, around its call: a read that reaches it is ended in the database, with
QueryTimeoutError, so that it keeps neither its thread nor the disk busy.
"""


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> float:
        """Unix seconds."""

    def monotonic(self) -> float:
        """Seconds that never go back, for timeouts."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one poll brought. ``tag`` acknowledges it and everything before it on this connection.

    Without deliveries: part of a long message has come, so the stream is alive.
    """

    deliveries: Sequence[Delivery]
    tag: int


class EventSource(Protocol):
    """The event stream. Used by one thread, but for ``probe`` and ``abandon``.

    ``connect`` may be called again after SourceLostError or ``abandon``. Unacknowledged messages of the old
    connection come again then, flagged ``redelivered`` (where ``acknowledges``).
    """

    @property
    def acknowledges(self) -> bool:
        """Messages stay with the broker until ``ack``; without it what comes while disconnected is lost."""

    @property
    def standby(self) -> str | None:
        """Why nothing comes although it is connected: another monitor is served, and this one when that one ends."""

    def connect(self) -> None:
        """Open the stream. Raises SourceLostError (with a remedy where a person must act). Bounded in time."""

    def poll(self, timeout: float) -> Batch | None:
        """Wait at most ``timeout`` seconds; give what is there, at most half of the prefetch. Checks heartbeats.

        Returns None when nothing came. Raises SourceLostError.
        """

    def ack(self, tag: int) -> None:
        """Acknowledge everything up to ``tag``. No-op where not ``acknowledges``. Raises SourceLostError."""

    def abandon(self) -> None:
        """Drop the connection without a word to the broker; never blocks long; safe from any thread."""

    def close(self) -> None:
        """Close politely, at most 2 seconds, else as ``abandon``."""


class Replay(EventSource, Protocol):
    """A stream without acknowledgements, kept in memory while another process counts it.

    ``listen`` and ``trim`` may be called from different threads; after ``resume`` it is an EventSource only, whose
    first ``connect`` goes on with the connection that there is.
    """

    @property
    def subscribed(self) -> bool:
        """Whether what is published now is kept."""

    def subscribe(self) -> None:
        """Open the stream. Raises SourceLostError. Bounded in time."""

    def listen(self, timeout: float) -> None:
        """Keep what comes, waiting at most ``timeout`` seconds for it. Raises SourceLostError."""

    def trim(self, position: str | None) -> bool:
        """Forget what is committed (``Store.position``); whether taking over now would miss nothing."""

    def resume(self, position: str | None, alive_at: float | None) -> Resumption:
        """Let ``poll`` give what was kept after ``position``, before anything else.

        ``alive_at``: when the stream is last known to have been read for the store, monotonic seconds of this process.
        """


class Probe(Protocol):
    """Publishes the monitor's own events on a second connection, in a thread of its own."""

    def send(self, body: bytes, timeout: float) -> None:
        """Publish one JSON body with routing key ``monitor.probe``. Raises SourceLostError; reconnects itself."""

    def close(self) -> None:
        """Drop the connection; never blocks long."""


class FleetControl(Protocol):
    """Celery's remote control and the broker's queues; slow, and never used by the pump's thread."""

    @property
    def answered(self) -> AbstractSet[str]:
        """Hostnames of the workers that answered when all were asked last."""

    @property
    def discarded(self) -> Mapping[str, int]:
        """Replies that were not used, by reason, since the start."""

    def open(self) -> None:
        """Connect, so that the next question goes out at once. Raises SourceLostError."""

    def ping(self, timeout: float) -> AbstractSet[str]:
        """Ask all workers for a sign; who gave one. Raises SourceLostError."""

    def enable_events(self, timeout: float, hostnames: Sequence[str] = ()) -> Mapping[str, bool]:
        """Ask these workers, or all, to send task events; returns as soon as all of these have answered.

        Hostname → whether the worker sends them only since then. Raises SourceLostError.
        """

    def tasks(self, timeout: float, hostnames: Sequence[str] = ()) -> Sequence[FleetTask]:
        """What these workers, or all, hold now (active, reserved, scheduled). Raises SourceLostError."""

    def queues(self, timeout: float, now: float, down: Container[str] = ()) -> Sequence[QueueStats]:
        """Queues that workers consume or did, or that settings name, with lengths and consumers.

        Those that tasks were counted in before a restart are told from when something is in them.

        ``now`` is monotonic: it tells for how long a queue was of no use to anybody. ``down``: hostnames of workers
        whose silence means that they are gone; others are given some rounds to answer. Raises SourceLostError.
        """

    def lengths(self, now: float, *, down: Container[str] = ()) -> Sequence[QueueStats]:
        """As ``queues``, without asking the workers."""

    def registered(self, hostnames: Sequence[str], timeout: float) -> dict[str, list[str]]:
        """Names of the tasks that these workers know, by hostname, of those that answered. Raises SourceLostError."""

    def held(self, hostnames: Sequence[str], timeout: float, *, fetched: bool) -> Mapping[str, AbstractSet[str]]:
        """Ids of the tasks that these workers run, by hostname, of those that told all. Raises SourceLostError.

        ``fetched``: also of those that they have fetched and not begun, which may be many.
        """

    @property
    def busy(self) -> AbstractSet[str]:
        """Hostnames of the workers that neither answer nor send heartbeats while they run a task (the solo pool)."""

    @property
    def details(self) -> Mapping[str, WorkerDetail]:
        """What the workers said of themselves, by hostname, of those that answered the last ``queues``."""

    def worker_queues(self) -> dict[str, list[str]]:
        """Hostname → names of the queues it consumes, as of the last ``queues`` calls."""

    def close(self) -> None:
        """Drop all connections; never blocks long."""


class CrashMarks(Protocol):
    """Which message is being applied, kept where it outlives the process. Nothing here raises."""

    def deaths(self, fingerprint: bytes) -> int:
        """How often the process ended while this message alone was marked."""

    def begin(self, fingerprint: bytes) -> None:
        """Mark it: it is applied from now on."""

    def end(self, fingerprint: bytes) -> None:
        """It has been applied, and the process lives."""


@dataclass(frozen=True, slots=True)
class StoreSpace:
    """How much space the store has, as of its last flush. Bytes."""

    used: int = 0
    limit: int | None = None
    """``store.max_bytes``; None without a limit."""
    room: int | None = None
    """Bytes left before the limit or the end of the disk; None while it is not known, or without an end."""
    short: bool = False
    """Samples, groups or old counts are being given up."""
    given_up: Mapping[str, int] = field(default_factory=dict)
    """samples, groups, buckets → how many, since the process began."""


@dataclass(frozen=True, slots=True)
class LeaseState:
    """Who leads, as the database has it and by its clock."""

    holder: str
    """The name of the process that leads, or led last; empty for none."""
    term: int
    """Grows by one with each process that begins to lead."""
    expires_in: float
    """Seconds until another process may take the lease; 0 or less: it is free."""


class Store(Protocol):
    """Where everything is kept. A public method is one transaction. Safe from several threads.

    Every method raises StoreUnavailableError when it cannot be done now; nothing is applied then. Every method that
    writes, those of the Outbox included, raises LeaseLostError once another process has taken the lease.
    """

    lease_ttl: float
    """Seconds for which a lease runs after it was taken or renewed. Each commit renews it."""
    shared: bool
    """Another process can open the same store, wait, and take over. Else the lease is always there to be taken."""

    def lead(self, holder: str) -> Restored | None:
        """Take the lease under a name, migrate, and read what the monitor goes on from.

        None: another process leads; reading is possible meanwhile. Raises StoreUnusableError too. What is read may take
        longer than the lease runs: ``renew`` may be called from another thread meanwhile.
        """

    def renew(self) -> None:
        """Extend the lease. An expired one that nobody has taken is still held."""

    def resign(self) -> None:
        """Let another process take over at once; nothing can be written any more. Raises nothing, and is bounded."""

    def lease(self) -> LeaseState:
        """Who leads. Only reads, and works without leading."""

    def position(self) -> str | None:
        """``Changes.position`` of the last flush that had one. Only reads, and works without leading."""

    def commit(self, changes: Changes) -> None:
        """Write a flush. Applying a sequence that was applied before has no effect.

        Raises StoreUnusableError when the sequence is not the next one.
        """

    def prune(self, now: float) -> None:
        """Delete what is older than the retention, in bounded portions.

        Where space is short, also the oldest of what can be given up.
        """

    def space(self) -> StoreSpace:
        """From memory; raises nothing."""

    def stop(self) -> None:
        """Resign, and close all connections."""


class Outbox(Protocol):
    """What is to be sent. Methods as in Store; those with a ``cursor`` raise InvalidCursorError."""

    def enqueue(self, entry: OutboxRequest, now: float) -> bool:
        """Add a row outside of a flush (reports). False when that (channel, key, action) exists in any state."""

    def due(self, now: float, limit: int) -> list[OutboxItem]:
        """Pending rows that may be sent now: of each (channel, route) the most important one whose ``due_at`` has come.

        The lowest ``priority`` first, of these the newest ``at``. A row that waits holds back no other, but for the
        resolve of its own key: the order is kept within one incident. A ``due_at`` further ahead than any wait can be
        has come: the clock was ahead when it was set. The rows are ordered in the same way.
        """

    def delivered(self, item: OutboxItem, now: float, count: int | None, receipt: str | None = None) -> None:
        """It was taken. ``count`` and ``receipt`` as in Sent. Keeps the row pending if refreshed since."""

    def retry(self, item: OutboxItem, due_at: float, error: str) -> None:
        """It was not taken; again at ``due_at``. Adds one to ``attempts``."""

    def expedite(self, channel: str, now: float) -> None:
        """What waits for a retry is due now."""

    def dead(self, item: OutboxItem, now: float, error: str) -> None:
        """It will never be taken."""

    def uncertain(self, item: OutboxItem, now: float, error: str) -> None:
        """It may have been taken, and is not tried again."""

    def note(self, item: OutboxItem, progress: str) -> None:
        """Keep a text of the sender with the row."""

    def revive(self, item_id: int | None, now: float) -> int:
        """Make a row that is not delivered due now (None: all dead ones, not those of unknown outcome); how many."""

    def items(
        self,
        *,
        dead: bool,
        limit: int,
        cursor: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Page[OutboxItem]:
        """Pending rows, and dead and unknown ones (only these with ``dead``), oldest first.

        ``since`` and ``until`` bound ``created_at``: [since, until).
        """

    def pending(self) -> dict[str, tuple[int, float | None]]:
        """Channel → (number of pending rows, created_at of the oldest)."""

    def given_up(self) -> dict[str, int]:
        """Channel → number of dead rows."""

    def unknown(self) -> dict[str, int]:
        """Channel → number of rows of unknown outcome."""

    def last_delivered(self, channel: str) -> float | None:
        """When a row of the channel was last delivered; None when none is known."""

    def incident(self, key: str) -> Incident | None:
        """The incident as committed."""

    def open_incidents(self, channel: str, limit: int, cursor: str | None = None) -> Page[Incident]:
        """Open incidents that the channel has delivered."""


class SilenceBook(Protocol):
    """Silences, which people add and end. Methods as in Store."""

    def add(self, silence: Silence) -> None:
        """Keep a new silence. Raises TooManySilencesError."""

    def end(self, silence_id: str, now: float) -> Silence | None:
        """End it now; as it is then. None when there is none with this id that has not ended."""

    def current(self, now: float) -> list[Silence]:
        """Those that have not ended, the first to end first."""

    def ended(self, now: float) -> list[Silence]:
        """Those that have ended within the retention, the last to end first; at most 200."""


MESSAGES_SEARCHED: Final = 20_000
"""No index finds a part of a text: what is read for it is bounded."""


@dataclass(frozen=True, slots=True)
class FailureFilter:
    """What failures to list; None means any."""

    task: str | None = None
    exception: str | None = None
    tasks: Sequence[str] | None = None
    """Any of these."""
    exceptions: Sequence[str] | None = None
    """Any of these."""
    message: str | None = None
    """A part of the message, in any case; looked for in the newest MESSAGES_SEARCHED failures."""
    sort: str = "at"
    """``at``, ``name``, ``exception``, ``hostname``, ``reason`` or ``uuid``; of equal ones by their time."""
    descending: bool = True
    since: float | None = None
    until: float | None = None
    limit: int = 100
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task and queue with its counts over the asked time."""

    name: str
    queue: str
    counts: tuple[int, ...]
    runtime_sum: float
    runtime_count: int
    last_failure_at: float | None


class Reader(Protocol):
    """Read-only queries for the page, the API and the report.

    Methods as in Store; those with a ``cursor`` raise InvalidCursorError.
    """

    def tasks(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        limit: int,
        cursor: str | None = None,
        name: str | None = None,
        exception: str | None = None,
        names: Sequence[str] | None = None,
    ) -> Page[TaskRow]:
        """Tasks by name and queue, in that order.

        ``names``: only these tasks; a few of them are found at once.
        ``exception``: only tasks that have failed with this class (its short name or the whole one) in that time.
        """

    def failures(self, wanted: FailureFilter) -> Page[Failure]:
        """Newest first."""

    def failure(self, uuid: str) -> list[Failure]:
        """All kept failures of a task id, newest first."""

    def exceptions(self) -> list[str]:
        """Short names of the classes of all kept failures, sorted."""

    def incidents(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        limit: int,
        cursor: str | None = None,
        key: str | None = None,
        keys: Sequence[str] | None = None,
        state: IncidentState | None = None,
    ) -> Page[IncidentRow]:
        """Newest first, by first failure, then by key (``IncidentRow.position``). ``key``: only this one."""

    def outlines(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        limit: int,
        cursor: str | None = None,
        key: str | None = None,
        state: IncidentState | None = None,
    ) -> Page[IncidentOutline]:
        """As ``incidents``, without texts and deliveries, at a fraction of the cost. The cursors are the same."""

    def delivered(self) -> dict[str, float]:
        """When each incident that was delivered was delivered first, by its key."""

    def workers(self) -> list[Worker]:
        """As of the last flush."""

    def buckets(self, since: float, until: float) -> list[BucketRow]:
        """Buckets that start in [since, until)."""

    def history(
        self, since: float, until: float, *, step: int, names: Sequence[str] | None = None, queue: str | None = None
    ) -> list[HistoryRow]:
        """Buckets that start in [since, until), added up by ``step`` seconds of Unix time: of all tasks, or of each.

        ``step`` is a multiple of BUCKET_SECONDS. Without ``names`` the rows carry no name. A span without events has
        no row. By name and start.
        """

    def failing(self, since: float, until: float) -> list[FailingRow]:
        """What the tasks with failures in the buckets that start in [since, until) did in these, by name."""

    def failed(self, since: float, until: float) -> dict[str, int]:
        """Failures by task in the buckets that start in [since, until): as ``failing``, at a fraction of its cost."""

    def groups(self, since: float, until: float, *, name: str | None = None) -> list[GroupRow]:
        """Error groups (of a task) with failures in [since, until), with one sample each, most failures first."""

    def ended(self, uuid: str) -> list[TaskRun]:
        """The kept runs of a task id that have ended, the newest first."""

    def sent_by(self, uuid: str, limit: int) -> list[TaskRun]:
        """Kept runs that have ended of tasks that this one has sent, the newest first."""

    def ended_since(self) -> float | None:
        """When the oldest kept run ended; None without any."""

    def tracked(self, limit: int, *, uuid: str | None = None) -> list[tuple[str, TaskRef]]:
        """Tasks under way (or this one) as of the last flush; those that began and ended within one are not there.

        Those that were heard of longest ago come first.
        """

    def starts(self) -> list[TaskStarts]:
        """The newest starts of each task, by name."""

    def counters(self, at: float) -> dict[str, float]:
        """The monitor's own counters as they were at ``at`` (the last values kept at or before it; each 15 minutes).

        ``inf`` is the newest, whatever the clock said when they were written.
        """


class TaskView(Protocol):
    """What runs now, and a task by its id. Safe from several threads; raises as a Reader."""

    live: bool
    """Whether it is of this moment; else it is of the leader's last commit."""

    def page(self, wanted: RunFilter) -> RunPage:
        """Tasks under way that a filter asks for."""

    def find(self, uuid: str) -> list[TaskRun]:
        """Runs of a task id: those under way, then those that have ended and are in memory, the newest first."""

    def children(self, uuid: str) -> list[TaskRun]:
        """Runs that a task has sent: those under way, then those that have ended and are in memory."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What was delivered."""

    count: int
    """The failures that the message spoke of."""
    receipt: str | None = None
    """By what the receiver knows it, for later messages of the same incident; None where there is nothing to know."""
    skipped: bool = False
    """Nothing was sent, because the channel does not tell such news."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelInfo:
    """What is shown of a channel."""

    name: str
    title: str
    configured: bool
    """Whether the channel has a receiver."""
    off: str
    """What is missing when it is not configured, and what that means."""
    incidents: bool
    """It carries incidents; else the daily report."""


class Sender(Protocol):
    """Delivers outbox items of one channel; used by one thread, but for ``stop``."""

    channel: str
    """Its name."""
    missing: str
    """What is not configured where ``rate_limit_key`` gives None: the error of rows that were written before."""

    def rate_limit_key(self, item: OutboxItem) -> str | None:
        """An opaque name of the account that it is sent with (rate limits count per lane); None: not configured."""

    def send(self, item: OutboxItem) -> Sent:
        """Deliver it now.

        Raises RetryableError, RejectedError or InterruptedSendError. Never blocks longer than its timeout.
        """

    def stop(self) -> None:
        """End what is under way, if that is safe: this program is being stopped. From any thread."""


@runtime_checkable
class RepeatingSender(Sender, Protocol):
    """The sender of a channel whose receiver has to hear of an open incident again and again."""

    def repeat(self, incidents: Sequence[Incident]) -> None:
        """Send incidents that are open and were delivered before, once more.

        Raises RetryableError, RejectedError or InterruptedSendError. Never blocks longer than its timeout.
        """


@dataclass(frozen=True, slots=True)
class OtherFleet:
    """A fleet that another monitor counts, in the same database. ``url``: of its page."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who has signed in at a provider."""

    name: str
    groups: frozenset[str]


@dataclass(frozen=True, slots=True)
class SignInAttempt:
    """What ties an answer of the provider to the browser that asked. All of it is random, or derived from what is."""

    state: str
    nonce: str
    verifier: str
    """Of PKCE (RFC 7636)."""


class IdentityProvider(Protocol):
    """An OpenID provider. Each call may take some seconds, and raises ProviderUnavailableError."""

    def address(self, attempt: SignInAttempt) -> str:
        """Where a browser goes to sign in."""

    def identity(self, attempt: SignInAttempt, *, code: str, issuer: str | None) -> Identity:
        """Who has signed in, by the code that the browser brought back. Raises SignInRefusedError.

        ``issuer``: who the answer says that it is from, where it says so (RFC 9207).
        """


@dataclass(frozen=True, slots=True)
class Scrape:
    """An answer to a scrape, in portions that can be sent one after the other, to several clients at once."""

    body: Iterable[bytes]
    headers: Sequence[tuple[str, str]]
    length: int
    """Bytes of the body."""


class Metrics(Protocol):
    """The metrics of now. Safe from several threads; waits neither for the broker nor for the store."""

    def choose(self, accept: str, accept_encoding: str) -> Hashable:
        """What ``render`` is to be asked for, by the two headers of a request; equal for equal answers."""

    def render(self, chosen: Hashable) -> Scrape:
        """The metrics of this moment."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What a probe is told: check → what is wrong with it, None when it is well. Without secrets."""

    checks: Mapping[str, str | None]
    notes: Mapping[str, str] = field(default_factory=dict)
    """What a person should look at, though the monitor does its work. Without secrets."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What the monitor works with: which store, of which version. Without secrets."""

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return all(problem is None for problem in self.checks.values())
