"""The leader: reads, counts, commits and notifies, which only one process of a fleet may do at a time.

``App`` is the process. It owns what exists for the life of the process (the web server, the store), and has a Leader
while it leads. A single process with a store of its own leads from when the store is open until it stops.
"""

import gc
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from celery_monitor.adapters import channels
from celery_monitor.adapters.broker import BrokerFleet, BrokerProbe
from celery_monitor.adapters.process import resident
from celery_monitor.adapters.prometheus.runtime_stats import RuntimeStats
from celery_monitor.core.committed_totals import CommittedTotals
from celery_monitor.core.model import (
    Changes,
    CounterName,
    Histogram,
    QueueStats,
    Restored,
    RolledBack,
    Snapshot,
    WorkerDetail,
)
from celery_monitor.core.monitor import Monitor
from celery_monitor.core.times import rfc3339
from celery_monitor.environment import Environment
from celery_monitor.errors import LeaseLostError
from celery_monitor.notifications import Notifications, thread_of
from celery_monitor.policy import limits_of
from celery_monitor.ports import HealthReport
from celery_monitor.runtime.committer import BOUNDS, Committer
from celery_monitor.runtime.fleet import FleetPoller
from celery_monitor.runtime.flusher import Flusher
from celery_monitor.runtime.maintenance import Maintenance
from celery_monitor.runtime.memory import MemoryWatch
from celery_monitor.runtime.prober import Prober
from celery_monitor.runtime.pump import Pump
from celery_monitor.runtime.schedule import ReportSchedule
from celery_monitor.runtime.standby import Takeover
from celery_monitor.runtime.stream import REPAIR_CAP, Stream
from celery_monitor.runtime.task_view import MemoryTaskView
from celery_monitor.runtime.threads import Loop, Threads

STUCK_AFTER: Final = 60.0
"""Seconds without a heartbeat after which an essential thread is stuck and the process is ended."""
STALLED_AFTER: Final = 120.0
"""Seconds without a heartbeat after which another thread is reported as stuck."""
NO_STREAM: Final = "waiting for the event stream"
NOT_LEADING: Final = "this replica does not lead: its lease expired, or another replica has taken over"
STEP_DOWN: Final = 10.0
"""Seconds in which all threads have to stop when another process leads."""
RECORD: Final = 3.0
"""Seconds, of STEP_DOWN, for a process that hands over to record what it has sent."""
SHARED_REPAIR_CAP: Final = 1.0
"""See Stream: with replicas, such a fault is mostly the previous leader's connection, which is about to end."""
_ESSENTIAL_THREADS: Final = ("pump", "committer")
_JOIN_TIMEOUT: Final = 1.0

_log = structlog.get_logger()


class Leader:
    """Leads from ``start`` until ``stopping`` is set, by itself or by others.

    Then call ``step_down`` if ``end_reason`` is set, otherwise ``finish``.
    """

    def __init__(self, environment: Environment, takeover: Takeover, end: Callable[[str], None]) -> None:
        """Does no I/O. ``end`` ends the process when an essential thread is stuck."""
        self._env = environment
        self._takeover = takeover
        self._lease = takeover.lease
        self._end = end
        self.stopping = threading.Event()
        self.resigning = False
        """Whether the lease is still held after ``step_down`` and has to be released by the caller."""
        self.threads = Threads(self.stopping, end, on_lost=self._lose)
        self._lock = threading.Lock()
        self._notifications = Notifications(environment.channels, environment.store, environment.clock)
        self._committer = Committer(
            environment.store, environment.clock, environment.priority, stored=self._notifications.stored
        )
        self._report_channel, self._daily = channels.of_report(environment.channels)
        broker = environment.settings.broker
        self._prober = Prober(BrokerProbe(broker), environment.clock, broker.probe_interval)
        self._monitor: Monitor | None = None
        self._tasks: MemoryTaskView | None = None
        self._committed_totals: CommittedTotals | None = None
        self._stream: Stream | None = None
        self._fleet: FleetPoller | None = None
        self._maintenance: Maintenance | None = None

    @property
    def end_reason(self) -> str | None:
        """Why this process no longer leads; None while it leads as far as is known."""
        return self._lease.end_reason

    @property
    def leads(self) -> bool:
        """Whether no other process can lead. A process that was frozen or cut off exports no fleet metrics until then.

        Its counts may be older than those of the next leader, and Prometheus would see counters decrease.
        """
        return self._lease.may_consume()

    def start(self) -> None:
        """Start all threads, from the restored state."""
        try:
            self._start(self._takeover.restored)
        except LeaseLostError as exc:
            self._lose(str(exc))
            self.stopping.set()

    def _lose(self, reason: str) -> None:
        if self._lease.end_reason is None:
            _log.warning("Another replica leads; stepping down", reason=reason)
        self._lease.end(reason)

    def _hand_over(self, reason: str) -> None:
        """The stream is lost without being buffered for this process: a standby has the events that it misses."""
        _log.warning("Lost the event stream; handing over to a standby, which has kept the events", reason=reason)
        self.resigning = True
        self._lease.end(reason)
        self.stopping.set()

    def _start(self, restored: Restored) -> None:
        env, settings = self._env, self._env.settings
        limits = replace(limits_of(settings), redact=env.redaction.patterns, prober=self._prober.instance)
        monitor = Monitor(limits, restored, env.clock.now())
        self._committed_totals, self._monitor = CommittedTotals(monitor.snapshot()), monitor
        self._tasks = MemoryTaskView(monitor, self._lock, env.clock, env.redaction.patterns)
        monitor.count(CounterName.STARTS, 1)
        if self._takeover.gap:
            monitor.count(CounterName.STREAM_GAP, self._takeover.gap)
        if restored.rolled_back is not None:
            monitor.count(CounterName.STORE_ROLLED_BACK, 1)
            _log_rollback(restored.rolled_back)
        self._fleet = FleetPoller(
            BrokerFleet(settings.broker, settings.metrics.queues, (series.key.queue for series in restored.series)),
            monitor,
            self._lock,
            env.clock,
            poll_interval=settings.metrics.poll_interval,
            enable_events=settings.broker.enable_events,
        )
        pump = self._build_pump(monitor, self._fleet)
        if env.store.shared:
            self.threads.start("lease", self._lease.run, limit=STALLED_AFTER, restart=True)
        self._notifications.start(
            self.threads,
            env.report,
            self._lease,
            external_url=settings.web.external_url,
            links=settings.links,
            limit=STALLED_AFTER,
        )
        self.threads.start("committer", self._committer.run, limit=STUCK_AFTER, fatal=True)
        self.threads.start("pump", pump.run, limit=STUCK_AFTER, fatal=True)
        self.threads.start("prober", self._prober.run, limit=STALLED_AFTER, restart=True)
        self.threads.start("fleet", self._fleet.run, limit=STALLED_AFTER, restart=True)
        self.threads.start("maintenance", self._build_maintenance(restored), limit=STALLED_AFTER, restart=True)
        self.threads.watch()
        # Long-lived objects from here on: spare each full collection from walking them while events wait.
        gc.collect()
        gc.freeze()

    def _build_pump(self, monitor: Monitor, fleet: FleetPoller) -> Pump:
        env, settings, prefetch = self._env, self._env.settings, self._env.settings.broker.prefetch
        shared = monitor, self._lock, env.clock
        self._stream = Stream(
            self._takeover.source,
            *shared,
            prober=self._prober,
            prefetch=prefetch,
            alive_at=self._takeover.alive_at,
            opened=fleet.opened,
            may_consume=self._lease.may_consume,
            # The previous leader's connection ends by itself: nobody has to act.
            repair_cap=SHARED_REPAIR_CAP if env.store.shared else REPAIR_CAP,
        )
        flusher = Flusher(
            self._stream,
            self._committer,
            *shared,
            priority=env.priority,
            flush_interval=settings.store.flush_interval,
            prefetch=prefetch,
            committed=self._committed,
            uncommitted=self._notifications.offer,
        )
        return Pump(
            self._stream,
            flusher,
            *shared,
            marks=env.store.applying,
            prefetch=prefetch,
            arrived=fleet.arrived,
            under_pressure=MemoryWatch(settings.tracking.max_memory, resident).under_pressure,
            lost=lambda: self._lease.end_reason is not None,
            hand_over=self._hand_over if self._lease.contested and not self._takeover.source.acknowledges else None,
        )

    def _build_maintenance(self, restored: Restored) -> Loop:
        env, channel = self._env, self._report_channel
        schedule = ReportSchedule(
            env.store.outbox,
            env.store.reader,
            channel.name,
            self._daily.schedule,
            env.zone,
            new=not restored.counters,
        )

        def report(now: float) -> float:
            ask_again_at = schedule.run_once(now)
            self._notifications.wake()  # once a minute, and when a report was queued
            return ask_again_at

        self._maintenance = Maintenance(
            env.store,
            env.store.outbox,
            env.clock,
            report if channel.configured else None,
            channel.name,
            look=self._read_silences,
        )
        return self._maintenance.run

    def _read_silences(self, now: float) -> None:
        """Raises StoreUnavailableError."""
        silences = self._env.store.silences.current(now)
        if self._monitor is not None:
            with self._lock:
                self._monitor.silence(silences)

    def _committed(self, changes: Changes) -> None:
        if self._committed_totals is not None:
            with self._lock:
                self._committed_totals.commit(changes)
        self._notifications.committed(changes)

    def finish(self, deadline: float) -> None:
        """Stop all threads, the pump first: it commits and acknowledges what it has applied.

        ``deadline``: monotonic time at which the process has to exit.
        """
        self.stopping.set()
        self._env.priority.end()
        self._notifications.wake()
        if self._fleet is not None:
            self._fleet.interrupt()
        self._notifications.interrupt()
        # The committer stops after the pump.
        must_end = (*_ESSENTIAL_THREADS, *self._notifications.incident_threads)
        may_end = (thread_of(self._report_channel.name), "maintenance", "fleet", "prober")
        clock = self._env.clock
        for name in (*must_end, *may_end):
            last = deadline - 1.0 if name in must_end else clock.monotonic() + _JOIN_TIMEOUT
            if not self.threads.join(name, max(0.0, last - clock.monotonic())):
                _log.warning("A thread did not stop in time; abandoning it", thread=name)

    def step_down(self) -> None:
        """Another process leads: commit nothing more, drop the stream at once, and stop all threads.

        A thread that does not stop in time could write under a later lease of this process, so then the process is
        ended.
        """
        began_at = self._env.clock.monotonic()
        self.stopping.set()
        self._takeover.source.abandon()
        if self._fleet is not None:
            self._fleet.interrupt()
        self._notifications.interrupt()
        if self.resigning:  # the lease is still held: what was sent can still be recorded
            self._join_all(began_at + RECORD)
        # Otherwise a database that does not answer would block for longer than STEP_DOWN.
        with self._env.store.short_timeouts():
            for name in self._join_all(began_at + STEP_DOWN):
                _log.critical("A thread did not stop after the lease was lost; ending the process", thread=name)
                self._end(name)
        gc.unfreeze()

    def _join_all(self, until: float) -> list[str]:
        """Wait until this monotonic time for all threads to end; return the names of those that have not."""
        clock = self._env.clock
        return [name for name in self.threads.names if not self.threads.join(name, max(0.0, until - clock.monotonic()))]

    # --- what the web server shows -----------------------------------------------------------------------------------
    def snapshot(self) -> Snapshot | None:
        """The monitor's current state, with totals as committed; None until the monitor is built."""
        if self._monitor is None:
            return None
        with self._lock:
            snapshot = self._monitor.snapshot(self._committed_totals)
        if self._stream is None or not self._stream.stats.live:
            return replace(snapshot, lag=None)
        return replace(snapshot, probe_roundtrip=self._prober.roundtrip)

    def tasks(self) -> MemoryTaskView | None:
        """The unfinished tasks; None until the monitor is built."""
        return self._tasks

    def worker_details(self) -> dict[str, WorkerDetail]:
        """What each worker last reported about itself, by hostname."""
        if self._monitor is None or self._fleet is None:
            return {}
        with self._lock:
            loads = self._monitor.loads()
        details = self._fleet.details()
        return {
            hostname: replace(details.get(hostname, WorkerDetail()), load=loads.get(hostname))
            for hostname in details.keys() | loads.keys()
        }

    def queues(self) -> Sequence[QueueStats]:
        """The queues as of the last poll."""
        return self._fleet.queues() if self._fleet else ()

    def stats(self, stats: RuntimeStats) -> RuntimeStats:
        """``stats``, completed with those of the leader's threads."""
        commits = self._committer.stats
        return replace(
            stats,
            broker_connected=self._stream is not None and self._stream.stats.live,
            unacked_messages=self._stream.stats.unacked if self._stream else 0,
            commits=Histogram(BOUNDS, tuple(commits.counts), commits.sum),
            commit_failures=commits.failures,
            replies_discarded=self._fleet.discarded() if self._fleet else {},
            outbox=self._maintenance.pending if self._maintenance else {},
            notifications=self._notifications.attempts(),
            report_last_success=self._maintenance.report_last_success if self._maintenance else None,
            thread_failures={**stats.thread_failures, **self.threads.failures},
        )

    def ready(self) -> HealthReport:
        """Whether events arrive and are stored."""
        stream = self._stream
        if stream is None:
            return HealthReport({"store": None, "broker": "not connected yet", "probe": NO_STREAM})
        stats = stream.stats
        return HealthReport(
            {
                "broker": stats.standby if stats.connected else stats.error or "not connected yet",
                # Without a stream no probe can return, so this check cannot pass.
                "probe": self._prober.trouble(stream.last_received_at) if stats.connected else NO_STREAM,
                "events": None if self._monitor is None else self._monitor.undecodable.problem,
                "store": self._committer.trouble() if self.leads else NOT_LEADING,
            },
            {"workers": self._fleet.finding} if self._fleet and self._fleet.finding else {},
        )


def prepare(environment: Environment) -> None:
    """Work that a standby does in advance, because it would delay a take-over by a third of a second.

    Imports the modules that the notifiers need, and collects garbage so that ``start`` has little to collect.
    """
    for channel in environment.channels:
        if channel.configured:
            channel.sender(channels.Context.for_test(environment.clock))
    gc.collect()
    gc.freeze()


def _log_rollback(rollback: RolledBack) -> None:
    _log.error(
        "The store is older than the last commit: the counts of these flushes are lost, and the broker does not "
        "redeliver them. Possible causes: a write-ahead log damaged by a crash, or a restored backup. Check the "
        "disk and its file system",
        flushes=rollback.flushes,
        seconds=round(max(0.0, rollback.committed_at - rollback.found_at), 1) if rollback.found_at else None,
        found=rfc3339(rollback.found_at) if rollback.found_at else "an empty store",
        committed=rfc3339(rollback.committed_at),
    )
