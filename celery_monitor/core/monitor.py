"""The monitor as a state machine: it applies messages and returns Changes. It knows no broker, store or clock.

``receive`` applies messages in memory. ``take`` returns everything that changed since the last ``take``, to be written
in one transaction; the messages must not be acknowledged before that transaction has committed. If a write fails, the
same Changes are written again; their sequence number makes the retry idempotent.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence

from celery_monitor.core import usage
from celery_monitor.core.committed_totals import CommittedTotals
from celery_monitor.core.decide import Notice
from celery_monitor.core.episodes import EpisodeNotice
from celery_monitor.core.failures import MAX_NOTICES
from celery_monitor.core.hourly import QueueLengths
from celery_monitor.core.incident import Episode, EpisodeEnd
from celery_monitor.core.intake import Intake
from celery_monitor.core.limits import Limits
from celery_monitor.core.lookup import TaskLookup
from celery_monitor.core.model import (
    Changes,
    Condition,
    CounterFamily,
    CounterName,
    Delivery,
    FleetTask,
    Incident,
    LabelledCounter,
    OutboxRequest,
    QueueStats,
    Restored,
    Silence,
    Snapshot,
)
from celery_monitor.core.parts import PROBE, Parts
from celery_monitor.core.stream_clock import LIVE_FOR, LIVE_LAG, MAX_TICK_GAP, StreamClock

__all__ = ["LIVE_FOR", "LIVE_LAG", "MAX_NOTICES", "MAX_TICK_GAP", "PROBE", "Limits", "Monitor"]


class Monitor:
    """Not thread-safe: the caller holds a lock during each call. ``now``: Unix seconds, which may jump."""

    def __init__(self, limits: Limits, restored: Restored, now: float) -> None:
        """Continue from the state that was read from the store."""
        self._parts = parts = Parts(limits, restored, now)
        self._clock = StreamClock(now)
        self._intake = Intake(parts, self._clock, int(restored.counters.get(CounterName.MESSAGES, 0)))
        self._sequence, self._lengths = restored.sequence, QueueLengths()
        self._episode_notices: list[EpisodeNotice] = []
        self.down, self.up, self.loads = parts.workers.down, parts.workers.up, parts.workers.loads
        """Hostnames of the known workers that are down, of those that are up, and the load averages of the latter."""
        self.undecodable = parts.undecodable
        """Detects that most of the fleet's messages cannot be decoded."""
        parts.restore(restored, now)

    def connected(self, *, acknowledges: bool) -> None:
        """A new connection has been made: messages delivered before may be redelivered on it."""
        self._parts.fingerprints.connected(acknowledges=acknowledges)
        self._clock.connected()
        self._parts.unnamed.connected()

    def stalled(self) -> None:
        """No message can arrive until the next one is read or ``flowing`` is called: no worker counts as silent."""
        self._clock.watched = False

    def flowing(self) -> None:
        """The stream is open, although no message has arrived to show it."""
        self._intake.flowing()

    def receive(self, deliveries: Iterable[Delivery], now: float) -> None:
        """Apply messages in order. Never raises, whatever they contain."""
        if back := self._clock.set_back(now):
            self._parts.clock_set_back(back, now)
        self._intake.receive(deliveries, now)

    def tick(self, now: float) -> None:
        """Let time pass: expire and purge entries, refresh and resolve incidents. Called about once a second."""
        parts, clock = self._parts, self._clock
        if back := clock.set_back(now):
            parts.clock_set_back(back, now)
        elapsed, quiet = clock.tick(now)
        if skipped := clock.take_skipped(now):
            parts.clock_set_forward(*skipped)
        parts.tracker.tick(now, quiet=quiet)
        self.judge(parts.conditions.tick(now, clock.watched_for, live=clock.is_current(now)))
        for verdict in parts.decider.tick(now, parts.counters.read_until):
            if verdict.changed:
                self.count(CounterFamily.INCIDENTS.counter(verdict.reason), 1)
        if parts.schedules:
            self._judge_schedules(now)
        parts.undecodable.tick(now, self._fleet_messages)
        parts.aggregator.tick(now)
        self._intake.settle(parts.unnamed.tick(min(elapsed, MAX_TICK_GAP)))
        if clock.watched:
            clock.watch(elapsed)
            parts.queues.forget(parts.workers.tick(clock.watched_for))
            if purged_hosts := parts.hosts.tick(parts.workers, clock.watched_for):
                parts.aggregator.drop_hosts(purged_hosts)

    def silence(self, silences: Iterable[Silence]) -> None:
        """Replace the silences by those that the store has now: see SilenceBook.effective."""
        self._parts.silences.replace(silences)

    @property
    def lookup(self) -> TaskLookup:
        """Finds the tasks that run or wait now, and tasks by ID."""
        return TaskLookup(self._parts.tracker, self._parts.ended, self._parts.queues.likely_queue)

    @property
    def has_unnamed(self) -> bool:
        """Whether to inspect the workers for their tasks, because events wait for the name of a task."""
        return self._parts.unnamed.inspect_needed

    def shed_load(self) -> None:
        """Memory is short: drop what takes most of it and is least likely to be needed."""
        self._parts.overflows["memory"] += 1
        self._parts.tracker.shed_load()

    def learn_tasks(self, tasks: Iterable[FleetTask]) -> int:
        """Learn the names of the workers' tasks (Celery's inspect). Returns how many tasks were waiting for a name."""
        self._parts.unnamed.inspected()
        tasks = list(tasks)
        self._parts.conditions.learn(tasks, self._clock.watched_for)
        waited = [uuid for uuid in self._parts.tracker.learn(tasks) if uuid in self._parts.unnamed.numbers_by_task]
        for uuid in waited:
            self._intake.settle(self._parts.unnamed.release_task(uuid))
        return len(waited)

    def to_confirm(self) -> list[str]:
        """Workers to ask whether they still hold tasks that have been under way for a long time."""
        return self._parts.conditions.to_ask()

    @property
    def judges_waits(self) -> bool:
        """Whether to ask these workers also for the tasks that they have fetched but not started."""
        return self._parts.conditions.judges_waits

    def confirm(self, hosts: Sequence[str], held: Mapping[str, Collection[str]]) -> None:
        """Take their answers: hostname → the IDs of all tasks that it holds. A missing worker has not answered."""
        self._parts.conditions.confirm(hosts, held, self._clock.watched_for)

    def note_answers(self, hostnames: Collection[str], busy: Container[str]) -> None:
        """These workers answered when all were asked; ``busy``: workers that cannot answer while they run a task."""
        self._parts.conditions.note_answers(hostnames, busy, self._clock.watched_for)

    def polled(self, queues: Sequence[QueueStats]) -> None:
        """Take the queues' current lengths and consumers."""
        self._lengths.note(queues, self._clock.now)
        self.judge(self._parts.conditions.polled(queues, self._clock.now))

    def note_gap(self, since: float, until: float) -> None:
        """The events between these times are lost: the monitor was not subscribed."""
        self.count(CounterName.STREAM_GAP, max(0.0, until - since))
        self._parts.note_gap(since, until)

    def note_downtime(self, since: float, until: float) -> None:
        """The stream was not read between these times. The broker kept its events, but only for a limited time."""
        self._parts.note_downtime(since, until)

    def learn_queues(self, queues: Mapping[str, Sequence[str]]) -> None:
        """Learn which queues each worker consumes: this gives the queue of a task that has no task-sent event."""
        for hostname in queues:
            self._intake.notice(hostname, self._clock.now)
        self._parts.queues.learn(queues, self._parts.workers)

    def learn_names(
        self, names: Mapping[str, Sequence[str]], unreported: Mapping[str, Collection[str]] | None = None
    ) -> None:
        """Learn which tasks workers have registered (Celery's inspect): they count 0 before their first run.

        ``unreported``: hostname → those of which it sends no events. They are forgotten once they are sent.
        """
        self._parts.queues.register(names, unreported or {})

    def count(self, name: CounterName | LabelledCounter, amount: float, *, flush: bool = True) -> None:
        """Add to one of the monitor's own counters, which survive restarts.

        Without ``flush`` the write can wait until something else is written.
        """
        self._parts.counters.add(name, amount, flush=flush)

    @property
    def pages(self) -> bool:
        """Whether the next ``take`` returns notifications, so that it should not wait."""
        return self._parts.decider.pages

    def unsent(self) -> list[tuple[OutboxRequest, Incident]]:
        """The notifications that the next ``take`` would return, without taking them."""
        return self._parts.decider.unsent()

    def take(self, now: float, *, force: bool = False) -> Changes | None:
        """Return all changes since the last call, for one transaction; None if there are none, unless ``force``."""
        self._count_schedules()
        sequence = self._sequence + 1
        counted = self._parts.aggregator.take()
        tracked, forgotten = self._parts.tracker.take(sequence)
        unnamed, settled = self._parts.unnamed.take()
        workers, dropped_workers = self._parts.workers.take()
        incidents, outbox = self._parts.decider.take()
        schedules, dropped_schedules = self._parts.schedules.take()
        changes = Changes(
            now=now,
            sequence=sequence,
            series=counted.series,
            dropped_series=counted.dropped_series,
            buckets=counted.buckets,
            checkpoints=counted.checkpoints,
            queue_lengths=self._lengths.take(),
            groups=counted.groups,
            errors=counted.errors,
            failures=counted.failures,
            tracked=tracked,
            forgotten=forgotten,
            ended=self._parts.ended.take(self._parts.queues.likely_queue),
            unnamed=unnamed,
            settled=settled,
            workers=workers,
            dropped_workers=dropped_workers,
            incidents=incidents,
            outbox=outbox,
            schedules=schedules,
            dropped_schedules=dropped_schedules,
            starts=self._parts.starts.take(now, force=force),
            counters=self._all_counters(),
            epoch=self._parts.fingerprints.epoch,
            fingerprints=self._parts.fingerprints.take(),
            position=self._intake.position,
        )
        if changes.empty and not (force or self._parts.counters.flush_needed):
            return None
        self._parts.counters.flush_needed = False
        self._sequence += 1
        return changes

    def judge(self, changes: Iterable[Episode | EpisodeEnd]) -> None:
        """Open, update and resolve incidents of conditions other than failure, as their judges have found."""
        for notice in self._parts.decider.episodes.judge(changes, self._clock.now):
            if notice.reason is not None:
                self.count(CounterFamily.INCIDENTS.counter(notice.reason), 1)
            if len(self._episode_notices) < MAX_NOTICES:
                self._episode_notices.append(notice)

    def episodes(self, on: Condition) -> list[Incident]:
        """The unresolved incidents of a condition other than failure, from which its judge continues after a start."""
        return self._parts.decider.episodes.live(on)

    def _judge_schedules(self, now: float) -> None:
        read_until = self._parts.counters.read_until
        if read_until is None:
            read_until = self._clock.read_until(now)  # without probes, for example where publishing is forbidden
        if read_until is None:
            return
        self.judge(self._parts.schedules.judge(min(read_until, now)))
        self._count_schedules()

    def _count_schedules(self) -> None:
        for name, missed, unjudged in self._parts.schedules.count():
            self.count(CounterFamily.MISSED.counter(name), missed)
            self.count(CounterFamily.UNJUDGED.counter(name), unjudged)

    def take_notices(self) -> list[Notice]:
        """Verdicts since the last call, to be logged; at most MAX_NOTICES."""
        return self._intake.failures.take_notices()

    def take_episode_notices(self) -> list[EpisodeNotice]:
        """Episodes that began or ended since the last call, to be logged; at most MAX_NOTICES."""
        notices, self._episode_notices = self._episode_notices, []
        return notices

    def fleet_messages(self, now: float) -> int | None:
        """Messages so far without probes; None unless the monitor's own probes show that the stream is up to date."""
        return self._fleet_messages if self._clock.is_live(now) else None

    def take_probes(self) -> list[tuple[int, int]]:
        """(instance, number) of the probes of any monitor that were received since the last call."""
        probes, self._intake.probes = self._intake.probes, []
        return probes

    def take_arrivals(self) -> list[str]:
        """Workers that appeared or came back since the last call."""
        arrivals, self._intake.arrivals = self._intake.arrivals, []
        return arrivals

    def snapshot(self, committed: CommittedTotals | None = None) -> Snapshot:
        """A consistent copy for readers in other threads. With ``committed``, totals are the committed ones."""
        workers = self._parts.workers.snapshot()
        counters = self._all_counters() if committed is None else committed.counters
        return Snapshot(
            now=self._clock.now,
            series=self._parts.aggregator.snapshot() if committed is None else committed.series(),
            workers=workers if committed is None else committed.workers(workers),
            counters=counters,
            incidents={reason: int(value) for reason, value in CounterFamily.INCIDENTS.of(counters).items()},
            incidents_open=self._parts.decider.open_count,
            incidents_by_condition=self._parts.decider.open_by_condition,
            oldest_started=self._parts.conditions.oldest_started,
            load=self._parts.conditions.load,
            tracked=len(self._parts.tracker),
            lag=self._clock.lag,
            probe_roundtrip=None,
            limits=self._parts.all_limits(),
            registered=self._parts.queues.registered(
                self._parts.aggregator.admits, self._parts.aggregator.admission_version
            ),
            silences_active=len(self._parts.silences.active(self._clock.now)),
            mute_windows_active=self._parts.silences.muting(self._clock.now),
            schedules=[state for _, state in self._parts.schedules.snapshot()],
        )

    def _all_counters(self) -> dict[str, float]:
        return self._parts.counters.all() | {
            CounterName.MESSAGES.value: self._intake.messages,
            CounterName.ALIVE_AT.value: self._clock.now,
            CounterName.UNOBSERVED.value: self._parts.workers.unobserved,
            **usage.overflow_counters(self._parts.all_overflows()),
        }

    @property
    def _fleet_messages(self) -> int:
        return self._intake.messages - self._parts.counters.types.get(PROBE, 0)
