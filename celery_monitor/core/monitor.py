"""The heart: messages in, Changes out. Knows neither broker nor store nor clock.

``receive`` applies messages to memory. ``take`` gives everything that changed since the last ``take``, to be written
in one transaction; until that has been done, the messages must not be acknowledged. A ``take`` that could not be
written is written again as it is: its sequence makes that harmless.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Final

from celery_monitor.core import usage
from celery_monitor.core.aggregate import MAX_BUCKETS, Aggregator, Bounds
from celery_monitor.core.classify import Classifier, group_id, unregistered_name
from celery_monitor.core.committed_totals import CommittedTotals
from celery_monitor.core.conditions.watch import Conditions
from celery_monitor.core.counters import Counters
from celery_monitor.core.decide import MAX_INCIDENTS, Decider, Notice
from celery_monitor.core.decode import COMPRESSED, CONTENT_TYPE, MALFORMED, Discarded, events_of
from celery_monitor.core.ended import EndedTasks
from celery_monitor.core.episodes import EpisodeNotice
from celery_monitor.core.fingerprint import Fingerprints
from celery_monitor.core.hosts import MAX_HOSTS, Hosts
from celery_monitor.core.incident import MAX_TRACEBACK_LENGTH, Episode, Over, TaskFailure
from celery_monitor.core.lookup import TaskLookup
from celery_monitor.core.model import (
    FAILED,
    MAX_UUID_LENGTH,
    SENT,
    STARTED,
    SUCCEEDED,
    UNKNOWN_TASK,
    Changes,
    Condition,
    CounterFamily,
    CounterName,
    Delivery,
    ErrorGroup,
    Event,
    Failure,
    FleetTask,
    Incident,
    LabelledCounter,
    Limit,
    OutboxRequest,
    QueueStats,
    Reason,
    Restored,
    Silence,
    Snapshot,
    Stage,
    UnnamedEvent,
)
from celery_monitor.core.queues import Queues
from celery_monitor.core.replay import position_of
from celery_monitor.core.rules import Policy, Rule
from celery_monitor.core.schedules.calendar import Schedule
from celery_monitor.core.schedules.judge import ScheduleJudge
from celery_monitor.core.series import EXCEPTIONS_PER_SERIES, QUEUES_PER_TASK
from celery_monitor.core.silences import MuteWindow, Silences
from celery_monitor.core.start_history import StartHistory
from celery_monitor.core.text import OTHER, Pattern, printable, redacted
from celery_monitor.core.track import MAX_ARGUMENTS_LENGTH, Tracker
from celery_monitor.core.transitions import CANCELLED, KINDS
from celery_monitor.core.undecodable import UndecodableMessages
from celery_monitor.core.unnamed import MAX_EVENTS, UnnamedEvents
from celery_monitor.core.workers import KINDS as WORKER_KINDS
from celery_monitor.core.workers import MAX_HOSTNAME_LENGTH, MAX_WORKERS, OFFLINE, Workers

_KINDS: Final = sorted(KINDS, key=KINDS.__getitem__)
_UNREAD: Final = frozenset({COMPRESSED, CONTENT_TYPE})
PROBE: Final = "monitor-probe"
"""Type of the monitor's own events."""
FUTURE: Final = 86_400.0
"""Seconds that an event's clock may be ahead; beyond it the time of reading is taken."""
LIVE_LAG: Final = 10.0
"""Seconds that a probe of our own may be under way on a stream that is up to date."""
LIVE_FOR: Final = 30.0
"""Seconds for which that holds."""
MAX_NOTICES: Final = 100
"""Between two calls: the log is for people."""
MAX_TICK_GAP: Final = 5.0
"""Seconds between two ticks; what is above it was a standstill, of the broker, of the store or of this process."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the monitor is told of the settings. Times in seconds."""

    prefetch: int = 4000
    max_tasks: int = 1_000_000
    max_age: float = 604_800.0
    linger: float = 60.0
    max_ended_tasks: int = 10_000
    name_wait: float = 15.0
    capture_arguments: bool = False
    redact: Sequence[Pattern] = ()
    hostname_label: bool = False
    runtime_bounds: tuple[float, ...] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
    wait_bounds: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
    default_queue: str = "celery"
    max_task_names: int = 10_000
    max_series: int = 10_000
    max_workers: int = MAX_WORKERS
    max_error_groups: int = 20_000
    max_sample_bytes: int = 16 * 1024 * 1024
    max_incidents: int = MAX_INCIDENTS
    max_argument_bytes: int = 32 * 1024 * 1024
    worker_timeout: float = 300.0
    worker_purge: float = 600.0
    policy: Policy = field(default_factory=Policy)
    mutes: Sequence[MuteWindow] = ()
    schedules: Sequence[Schedule] = ()
    scheduler: Rule | None = None  # who hears that no schedule has run
    stream_kept: float = 86_400.0  # for so long the broker keeps events for us, if it keeps any
    prober: int | None = None  # whose probes tell how far the stream was read: another's clock may be wrong


class Monitor:
    """Not thread-safe: the caller holds a lock over each call. ``now`` is unix seconds; a clock may be set."""

    _position: str | None = None
    """Of the newest message, on a stream that names its messages."""

    def __init__(self, limits: Limits, restored: Restored, now: float) -> None:
        """Go on from what the store gave back."""
        self._limits, self._by_host, self._classify = limits, limits.hostname_label, Classifier(limits.redact).classify
        self._tracker, self._ended = _tracking(limits)
        self._unnamed = UnnamedEvents(limits.name_wait)
        self._overflows = usage.restored(restored.counters)
        self._overflows["series"] += restored.series_merged
        self._workers = Workers(
            timeout=limits.worker_timeout, purge=limits.worker_purge, most=limits.max_workers, overflows=self._overflows
        )
        self.down, self.up, self.loads = self._workers.down, self._workers.up, self._workers.loads
        """Hostnames of the workers that are known and not there, and of those that are there; and the latter's load."""
        self._silences = Silences(limits.mutes, restored.silences)
        self._decider = Decider(
            limits.policy, silences=self._silences, most=limits.max_incidents, overflows=self._overflows
        )
        self._schedules = ScheduleJudge(limits.schedules, restored.schedules, now, scheduler=limits.scheduler)
        self._awaited, self._scheduled = self._decider.awaited, self._schedules.of
        self._finishing, self._starts = self._workers.finishing, StartHistory(restored.starts, now)
        self._hosts = Hosts(purge=limits.worker_purge, overflows=self._overflows)
        self._counters = Counters(restored.counters, {*KINDS, *WORKER_KINDS, PROBE}, limits.prober)
        self._types = self._counters.types
        self.undecodable = UndecodableMessages()
        """Whether the fleet's events can be read."""
        self._messages = int(restored.counters.get(CounterName.MESSAGES, 0))
        self._sequence = restored.sequence
        self._fingerprints = Fingerprints(kept=limits.prefetch)
        self._queues = Queues(
            default=limits.default_queue,
            last_of=self._tracker.queue_of,
            cleaned=self._tracker.name,
            most=min(limits.max_task_names, limits.max_series),
        )
        self._aggregator = Aggregator(
            Bounds(limits.max_task_names, limits.max_series, limits.max_error_groups, limits.max_sample_bytes),
            runtime_bounds=limits.runtime_bounds,
            wait_bounds=limits.wait_bounds,
            hosts=limits.hostname_label,
            knows=self._queues.knows,
            overflows=self._overflows,
        )
        # Bound once for the hot path.
        self._advance, self._add, self._started = self._tracker.advance, self._aggregator.add, self._starts.note
        self._conditions = Conditions(
            limits.policy,
            self._tracker,
            self._workers,
            purge=limits.worker_purge,
            queue_of=self._queues.most_likely_queue,
            lost=self._lost,
        )
        self._now = self._ticked = now
        self._heard = self._watched = False
        self._watched_for = 0.0
        """Seconds in which something could be heard: a clock that nobody sets, and that stands with the process."""
        self._lag: float | None = None
        self._read_at = 0.0
        """When the event was read that ``_lag`` is of."""
        self._notices: list[Notice] = []
        self._episode_notices: list[EpisodeNotice] = []
        self._arrivals: list[str] = []
        self._probes: list[tuple[int, int]] = []
        self._probed_at = -LIVE_FOR
        """When a probe of our own was read that had just been sent."""
        self._restore(restored, now)

    def connected(self, *, acknowledges: bool) -> None:
        """A new connection has been made: what was delivered before may be delivered again on it."""
        self._fingerprints.connected(acknowledges=acknowledges)
        self._probed_at, self._read_at = -LIVE_FOR, 0.0  # what waited for us comes first
        self._unnamed.connected()

    def stalled(self) -> None:
        """Nothing can be received until the next message, or until ``flowing``: the silence is nobody's."""
        self._watched = False

    def flowing(self) -> None:
        """The stream is open, though no message proves it."""
        if not self._watched:
            self._watched = True
            self._workers.missed()

    def receive(self, deliveries: Iterable[Delivery], now: float) -> None:
        """Apply messages in their order. Never raises, whatever they hold."""
        self._now, self._heard = now, True
        self.flowing()
        fingerprints, offsets, task = self._fingerprints, self._workers.offsets, self._task
        marked, kind_of = fingerprints.on, KINDS.get
        counts = [0] * len(_KINDS)
        latest = now + FUTURE
        event: Event | Discarded | None = None
        delivery: Delivery | None = None
        messages = 0
        for delivery in deliveries:
            messages += 1
            if marked and fingerprints.is_redelivered_duplicate(delivery):
                self._counters.discard("redelivered")
                continue
            for event in events_of(delivery):
                if type(event) is Discarded:
                    self._discard(event, delivery)
                    continue
                kind = kind_of(event.type)  # type: ignore[union-attr]  # not Discarded
                if offsets and kind is not None:
                    right = event.timestamp + offsets.get(event.hostname, 0.0)  # type: ignore[union-attr, operator]
                    event.timestamp = max(0.0, right)  # type: ignore[union-attr]
                if event.timestamp > latest:  # type: ignore[union-attr]
                    event.timestamp = now  # type: ignore[union-attr]
                if kind is None:
                    self._other(event)  # type: ignore[arg-type]
                else:
                    counts[kind] += 1
                    task(event, kind, now)  # type: ignore[arg-type]
        self._messages += messages
        self._counters.seen(dict(zip(_KINDS, counts, strict=True)))
        if delivery is not None and delivery.tag:
            self._position = position_of(delivery)
        if type(event) is Event:
            self._lag, self._read_at = max(0.0, now - event.timestamp), now

    def tick(self, now: float) -> None:
        """What time alone does: expiry, purges, refreshed and resolved incidents. About once a second."""
        self._now = now
        elapsed = max(0.0, now - self._ticked)
        self._tracker.tick(now, quiet=max(0.0, elapsed - MAX_TICK_GAP) if self._heard else elapsed)
        self._ticked, self._heard = now, False
        self.judge(self._conditions.tick(now, self._watched_for, live=self._is_current(now)))
        for ended in self._decider.tick(now, self._counters.read_until):
            if ended.changed:
                self.count(CounterFamily.INCIDENTS.counter(ended.reason), 1)
        if self._schedules:
            self._judge_schedules(now)
        self.undecodable.tick(now, self._messages - self._types.get(PROBE, 0))
        self._aggregator.tick(now)
        self._settle(self._unnamed.tick(min(elapsed, MAX_TICK_GAP)))
        if self._watched:
            self._watched_for += min(elapsed, MAX_TICK_GAP)
            self._queues.forget(self._workers.tick(self._watched_for))
            if gone := self._hosts.tick(self._workers, self._watched_for):
                self._aggregator.drop_hosts(gone)

    def silence(self, silences: Iterable[Silence]) -> None:
        """The silences as the store has them now."""
        self._silences.replace(silences)

    @property
    def lookup(self) -> TaskLookup:
        """What runs and waits now, and tasks by their ids."""
        return TaskLookup(self._tracker, self._ended, self._queues.most_likely_queue)

    @property
    def has_unnamed(self) -> bool:
        """Whether the workers should be asked what they hold: events of it wait for its name."""
        return self._unnamed.wanted

    def shed_load(self) -> None:
        """Memory runs short: let go of what takes most of it, and is least likely to be needed."""
        self._overflows["memory"] += 1
        self._tracker.shed_load()

    def learn_tasks(self, tasks: Iterable[FleetTask]) -> int:
        """Names of what the workers hold (Celery's inspect). Returns how many tasks have waited for theirs."""
        self._unnamed.asked()
        tasks = list(tasks)
        self._conditions.learn(tasks, self._watched_for)
        waited = [uuid for uuid in self._tracker.learn(tasks) if uuid in self._unnamed.of]
        for uuid in waited:
            self._settle(self._unnamed.named(uuid))
        return len(waited)

    def to_confirm(self) -> list[str]:
        """Workers that are to be asked whether they still hold what has been under way for long."""
        return self._conditions.to_ask()

    @property
    def judges_waits(self) -> bool:
        """Whether these workers are to say, too, what they have fetched and not begun."""
        return self._conditions.judges_waits

    def confirm(self, asked: Sequence[str], held: Mapping[str, Collection[str]]) -> None:
        """What they have answered: hostname → the ids of all tasks that it holds. Who is missing has not answered."""
        self._conditions.confirm(asked, held, self._watched_for)

    def answered(self, hostnames: Collection[str], busy: Container[str]) -> None:
        """These workers have answered when all were asked; ``busy``: those that cannot answer during a task."""
        self._conditions.answered(hostnames, busy, self._watched_for)

    def polled(self, queues: Sequence[QueueStats]) -> None:
        """The queues as they are now."""
        self.judge(self._conditions.polled(queues, self._now))

    def missed(self, since: float, until: float) -> None:
        """The events between two times are lost: nobody was subscribed."""
        self.count(CounterName.STREAM_GAP, max(0.0, until - since))
        self._lose(since, until)

    def away(self, since: float, until: float) -> None:
        """The stream was not read between two times. The broker has kept its events, but not for ever."""
        if until - since > self._limits.stream_kept:
            self._lose(since, until)

    def _lose(self, since: float, until: float) -> None:
        self._conditions.missed(since, until)
        self._schedules.unwatched(since, until)

    def learn_queues(self, queues: Mapping[str, Sequence[str]]) -> None:
        """Which queues each worker consumes: it tells a task's queue where no task-sent does."""
        for hostname in queues:
            self._notice(hostname, self._now)
        self._queues.learn(queues, self._workers)

    def learn_names(self, names: Mapping[str, Sequence[str]]) -> None:
        """Which tasks some workers know (Celery's inspect): they are shown with 0 before they have run."""
        self._queues.register(names)

    def count(self, name: CounterName | LabelledCounter, amount: float, *, flush: bool = True) -> None:
        """Add to a counter of the monitor's own; it survives restarts.

        Without ``flush`` it can wait until something else is written.
        """
        self._counters.add(name, amount, flush=flush)

    @property
    def pages(self) -> bool:
        """Whether the next ``take`` brings something that is to be sent: it should not wait."""
        return self._decider.pages

    def unsent(self) -> list[tuple[OutboxRequest, Incident]]:
        """What the next ``take`` is to send, as it is now; nothing is taken."""
        return self._decider.unsent()

    def take(self, now: float, *, force: bool = False) -> Changes | None:
        """Everything since the last call, for one transaction; None when there is nothing, unless forced."""
        self._count_schedules()
        counted = self._aggregator.take()
        tracked, forgotten = self._tracker.take()
        unnamed, settled = self._unnamed.take()
        workers, dropped_workers = self._workers.take()
        incidents, outbox = self._decider.take()
        schedules, dropped_schedules = self._schedules.take()
        changes = Changes(
            now=now,
            sequence=self._sequence + 1,
            series=counted.series,
            dropped_series=counted.dropped_series,
            buckets=counted.buckets,
            groups=counted.groups,
            errors=counted.errors,
            failures=counted.failures,
            tracked=tracked,
            forgotten=forgotten,
            ended=self._ended.take(self._queues.most_likely_queue),
            unnamed=unnamed,
            settled=settled,
            workers=workers,
            dropped_workers=dropped_workers,
            incidents=incidents,
            outbox=outbox,
            schedules=schedules,
            dropped_schedules=dropped_schedules,
            starts=self._starts.take(now, force=force),
            counters=self._all_counters(),
            epoch=self._fingerprints.epoch,
            fingerprints=self._fingerprints.take(),
            position=self._position,
        )
        if changes.empty and not (force or self._counters.news):
            return None
        self._counters.news = False
        self._sequence += 1
        return changes

    def judge(self, found: Iterable[Episode | Over]) -> None:
        """Open, go on with and resolve incidents of other conditions than failure, as their judges have found."""
        for notice in self._decider.episodes.judge(found, self._now):
            if notice.reason is not None:
                self.count(CounterFamily.INCIDENTS.counter(notice.reason), 1)
            if len(self._episode_notices) < MAX_NOTICES:
                self._episode_notices.append(notice)

    def episodes(self, on: Condition) -> list[Incident]:
        """The incidents of a condition other than failure that are not over: what its judge goes on from at start."""
        return self._decider.episodes.live(on)

    def _judge_schedules(self, now: float) -> None:
        read_until = self._counters.read_until
        if read_until is None and self._watched and (self._lag is None or self._lag < LIVE_LAG):
            read_until = now - LIVE_FOR  # probes are forbidden here: the newest event tells that there is no backlog
        if read_until is None:
            return
        self.judge(self._schedules.judge(min(read_until, now)))
        self._count_schedules()

    def _count_schedules(self) -> None:
        for name, missed, unjudged in self._schedules.count():
            self.count(CounterFamily.MISSED.counter(name), missed)
            self.count(CounterFamily.UNJUDGED.counter(name), unjudged)

    def take_notices(self) -> list[Notice]:
        """Verdicts since the last call, for the log; at most MAX_NOTICES."""
        notices, self._notices = self._notices, []
        return notices

    def take_episode_notices(self) -> list[EpisodeNotice]:
        """Of other conditions: what has begun and ended since the last call, for the log; at most MAX_NOTICES."""
        notices, self._episode_notices = self._episode_notices, []
        return notices

    def fleet_messages(self, now: float) -> int | None:
        """Messages so far that are not probes; None unless our own probes show that the stream is read up to now."""
        return self._messages - self._types.get(PROBE, 0) if self._is_live(now) else None

    def take_probes(self) -> list[tuple[int, int]]:
        """(instance, number) of the probes that came in since the last call, of any monitor."""
        probes, self._probes = self._probes, []
        return probes

    def take_arrivals(self) -> list[str]:
        """Workers that are new or back since the last call."""
        arrivals, self._arrivals = self._arrivals, []
        return arrivals

    def snapshot(self, committed: CommittedTotals | None = None) -> Snapshot:
        """A consistent copy for readers in other threads; totals are those of ``committed`` where it is given."""
        workers = self._workers.snapshot()
        counters = self._all_counters() if committed is None else committed.counters
        return Snapshot(
            now=self._now,
            series=self._aggregator.snapshot() if committed is None else committed.series(),
            workers=workers if committed is None else committed.workers(workers),
            counters=counters,
            incidents={reason: int(value) for reason, value in CounterFamily.INCIDENTS.of(counters).items()},
            incidents_open=self._decider.open_count,
            incidents_by_condition=self._decider.open_by_condition,
            oldest_started=self._conditions.oldest_started,
            load=self._conditions.load,
            tracked=len(self._tracker),
            lag=self._lag,
            probe_roundtrip=None,
            limits=self._all_limits(),
            registered=self._queues.registered(self._aggregator.admits, self._aggregator.admitted),
            silences_active=len(self._silences.active(self._now)),
            mute_windows_active=self._silences.muting(self._now),
            schedules=[state for _, state in self._schedules.snapshot()],
        )

    def _restore(self, restored: Restored, now: float) -> None:
        self._aggregator.tick(now)
        self._aggregator.restore(restored.series)
        self._hosts.restore({one.key.host for one in restored.series if one.key.host}, 0.0)
        self._queues.restore(one.key for one in restored.series)
        self._tracker.restore(restored.tracked)
        self._unnamed.restore(restored.unnamed, now)
        self._tracker.queue_of.update({one.key.name: one.key.queue for one in restored.series if one.counts[SENT]})
        self._workers.restore(restored.workers, now)
        self._workers.unobserved = int(restored.counters.get(CounterName.UNOBSERVED, 0))
        self._decider.restore(restored.incidents, now)
        alive_at = restored.counters.get(CounterName.ALIVE_AT)
        self._conditions.restore(self._decider.episodes.live)
        if alive_at is not None:
            self._conditions.away(alive_at, now)
            self.away(alive_at, now)
        self._schedules.resume(self._decider.episodes.live(Condition.MISSED))
        self._fingerprints.restore(restored.epoch, restored.fingerprints)
        self._tracker.evicted, self._tracker.arguments_cut = self._overflows["tasks"], self._overflows["arguments"]
        self._tracker.tick(now)

    def _discard(self, what: Discarded, delivery: Delivery) -> None:
        self._counters.discard(what.reason)
        if what.reason in _UNREAD:
            self.undecodable.note(what.reason, delivery.content_type)

    def _task(self, event: Event, kind: int, now: float) -> None:
        step = self._advance(event, kind) if event.uuid else None
        if step is None:
            self._counters.discard("duplicate" if event.uuid else MALFORMED)
            return
        ref, measured = step
        uuid, name = event.uuid, ref.name
        if kind == STARTED and self._workers.started(event.hostname) and self._is_live(now):
            self._notice(event.hostname, now)
        if self._finishing and kind >= STARTED and event.hostname in self._finishing:
            self._workers.finish(event.hostname, event.timestamp, started=kind == STARTED)
        if name is None:
            name = ref.name = self._name_in(event) if kind == FAILED else None
            if name is None:
                if kind != CANCELLED:
                    self._settle(self._unnamed.hold(event, measured, now, held=ref.stage < Stage.SUCCEEDED))
                return
        if kind != CANCELLED:
            self._count(event, kind, name, ref.queue, measured, now)
        else:
            self._conditions.cancelled(uuid, ref, event.timestamp)
        if self._unnamed.of and uuid in self._unnamed.of:
            self._settle(self._unnamed.named(uuid))

    def _name_in(self, event: Event) -> str | None:
        """The name that is in the failure itself: no other event may name a task that no worker knows."""
        name = unregistered_name(event.exception)
        return None if name is None else self._tracker.name(name)

    def _settle(self, events: Iterable[UnnamedEvent]) -> None:
        """Count what waits no more, under the name that has come, or as unknown."""
        self._overflows["unnamed_events"], self._unnamed.cut = self._overflows["unnamed_events"] + self._unnamed.cut, 0
        for one in events:
            event = copy(one.event)  # a flush may hold it
            kind = KINDS[event.type]
            ref = self._tracker.known(event.uuid, event.hostname)
            if ref is None and kind == FAILED:
                self.count(CounterName.UNNAMED_FAILURES, 1)
            name, queue = (UNKNOWN_TASK, None) if ref is None else (ref.name or UNKNOWN_TASK, ref.queue)
            self._count(event, kind, name, queue, one.measured, self._now)

    def _count(  # noqa: PLR0917  # the hot path: one call an event
        self, event: Event, kind: int, name: str, queue: str | None, measured: float | None, now: float
    ) -> None:
        at = event.timestamp
        queue = queue or self._queues.most_likely_queue(name, event.hostname)
        host = self._hosts.hear(event.hostname, self._watched_for) if self._by_host else ""
        row = self._add(kind, name, queue, host, at, measured)
        if kind == STARTED:
            self._started(name, at)
        elif kind == FAILED:
            event.uuid = printable(event.uuid, MAX_UUID_LENGTH)
            exception = self._failure(event, name, queue, now)
            self._aggregator.add_failure(row, exception, event.uuid, at)
        elif kind == SUCCEEDED and name in self._awaited:
            self._decider.succeeded(name, at)
        if name in self._scheduled:
            self._schedules.observe(kind, name, event.uuid, at, event.hostname, measured)

    def _failure(self, event: Event, name: str, queue: str, now: float) -> str:
        """Group and judge a failure; returns its class's short name."""
        what = self._classify(event.exception, event.traceback)
        exception, frame = what.qualified, what.frame
        group = group_id(name, exception, frame)
        if not self._aggregator.admits_group(name, group):
            exception, frame = OTHER, ""
            group = group_id(name, exception, frame)
        hostname = printable(event.hostname, MAX_HOSTNAME_LENGTH)
        args, kwargs = self._arguments_of(event.uuid) if self._tracker.arguments else (None, None)
        verdict = self._decider.decide(
            TaskFailure(
                event.uuid, name, queue, what.exception, event.timestamp, hostname, what.message,
                what.traceback[-MAX_TRACEBACK_LENGTH:], args, kwargs,
            ),
            now,
        )  # fmt: skip
        if verdict.reason is Reason.TOO_OLD:
            self.count(CounterName.TOO_OLD_FAILURES, 1)
        if verdict.muted:
            self.count(CounterName.SILENCED_FAILURES, 1)
        if verdict.changed:
            self.count(CounterFamily.INCIDENTS.counter(verdict.reason), 1)
        if len(self._notices) < MAX_NOTICES:
            self._notices.append(Notice(name, event.uuid, what.exception, verdict))
        self._aggregator.add_error(
            ErrorGroup(group, name, exception, frame, event.timestamp, event.timestamp),
            Failure(
                event.uuid, name, queue, hostname, event.timestamp, what.exception, what.message, what.traceback,
                group, verdict.incident, verdict.reason, args, kwargs,
            ),
        )  # fmt: skip
        return what.exception

    def _arguments_of(self, uuid: str) -> tuple[str | None, str | None]:
        args, kwargs = self._tracker.arguments.get(uuid, (None, None))
        redact = self._limits.redact
        return (
            args and redacted(args, redact)[:MAX_ARGUMENTS_LENGTH],
            kwargs and redacted(kwargs, redact)[:MAX_ARGUMENTS_LENGTH],
        )

    def _other(self, event: Event) -> None:
        kind = event.type
        if kind in WORKER_KINDS:
            if self._workers.hear(event, self._watched_for):
                self._arrivals.append(event.hostname[:MAX_HOSTNAME_LENGTH])
            if kind != OFFLINE and self._is_live(self._now):
                self._workers.observe_clock(event, self._now)
        elif kind == PROBE:
            self._probes.append((event.probe_instance or 0, event.probe_number or 0))
            self._counters.probed(event.probe_instance, event.timestamp)
            if event.probe_instance == self._limits.prober and abs(self._now - event.timestamp) < LIVE_LAG:
                self._probed_at = self._now
        else:
            self._counters.custom(kind)
            return
        self._types[kind] = self._types.get(kind, 0) + 1

    def _is_live(self, now: float) -> bool:
        """Whether what is read now was sent now, as our own probes tell."""
        return 0.0 <= now - self._probed_at < LIVE_FOR

    def _is_current(self, now: float) -> bool:
        """As ``_is_live``; where we may publish no probes, other events that have just been sent tell."""
        if self._probed_at > -LIVE_FOR:
            return self._is_live(now)
        return self._watched and self._lag is not None and self._lag < LIVE_LAG and now - self._read_at < LIVE_FOR

    def _lost(self, task: str, queue: str) -> None:
        """A run of the task is lost."""
        self.count(CounterFamily.LOST.counter(task if self._aggregator.admits(task, queue) else OTHER), 1)

    def _notice(self, hostname: str, now: float) -> None:
        if self._workers.notice(hostname, self._watched_for, now):
            self._arrivals.append(hostname)

    def _all_counters(self) -> dict[str, float]:
        return self._counters.all() | {
            CounterName.MESSAGES.value: self._messages,
            CounterName.ALIVE_AT.value: self._now,
            CounterName.UNOBSERVED.value: self._workers.unobserved,
            **usage.counted(self._all_overflows()),
        }

    def _all_overflows(self) -> dict[str, int]:
        return self._overflows | {"tasks": self._tracker.evicted, "arguments": self._tracker.arguments_cut}

    def _all_limits(self) -> list[Limit]:
        limits = self._limits
        most = {
            "series": limits.max_series,
            "task_names": limits.max_task_names,
            "queues": QUEUES_PER_TASK,
            "exceptions": EXCEPTIONS_PER_SERIES,
            "workers": limits.max_workers,
            "hosts": MAX_HOSTS,
            "tasks": limits.max_tasks,
            "unnamed_events": MAX_EVENTS,
            "arguments": limits.max_argument_bytes,
            "error_groups": limits.max_error_groups,
            "samples": limits.max_sample_bytes,
            "buckets": MAX_BUCKETS,
            "incidents": limits.max_incidents,
        }
        used = {"workers": len(self._workers), "hosts": len(self._hosts), "tasks": len(self._tracker)}
        used["incidents"] = len(self._decider)
        used["unnamed_events"] = len(self._unnamed)
        used["arguments"] = self._tracker.arguments_bytes
        return usage.limits(most, used | self._aggregator.used, self._all_overflows())


def _tracking(limits: Limits) -> tuple[Tracker, EndedTasks]:
    ended = EndedTasks(limits.max_ended_tasks)
    tracker = Tracker(
        max_tasks=limits.max_tasks,
        max_age=limits.max_age,
        linger=limits.linger,
        capture_arguments=limits.capture_arguments,
        max_argument_bytes=limits.max_argument_bytes,
        ended=ended.note,
    )
    return tracker, ended
