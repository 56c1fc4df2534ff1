"""The composition root: settings → the running daemon, and its end. Only here do adapters and runtime meet.

Start: the web server first, so that /metrics and the probes answer while the store is opened; then the store, the
monitor, the loops. End: the pump commits and acknowledges what it has, everything closes; ten seconds for all of it.
"""

import contextlib
import gc
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Final
from zoneinfo import ZoneInfo

import structlog

from celery_monitor.adapters import channels
from celery_monitor.adapters.broker import BrokerFleet, BrokerProbe, BrokerSource
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.process import resident
from celery_monitor.adapters.prometheus.exposition import Exposition
from celery_monitor.adapters.prometheus.runtime_stats import RuntimeStats
from celery_monitor.adapters.redaction import Redaction
from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.adapters.web import Site, WebServer
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.core.committed_totals import CommittedTotals
from celery_monitor.core.model import (
    Changes,
    CounterName,
    Histogram,
    Incident,
    OutboxRequest,
    QueueStats,
    Restored,
    RolledBack,
    Snapshot,
)
from celery_monitor.core.monitor import Monitor
from celery_monitor.core.times import rfc3339
from celery_monitor.errors import StoreUnavailableError
from celery_monitor.policy import limits_of, pages, policy_of
from celery_monitor.ports import HealthReport, Sender
from celery_monitor.runtime.committer import BOUNDS, Committer
from celery_monitor.runtime.fleet import FleetPoller
from celery_monitor.runtime.flusher import Flusher
from celery_monitor.runtime.interpreter import InterpreterGuard
from celery_monitor.runtime.maintenance import Maintenance
from celery_monitor.runtime.memory import MemoryWatch
from celery_monitor.runtime.notifier import Notifier, Unconfigured
from celery_monitor.runtime.priority import ScrapePriority
from celery_monitor.runtime.prober import Prober
from celery_monitor.runtime.pump import Pump
from celery_monitor.runtime.report import DayReport
from celery_monitor.runtime.schedule import ReportSchedule
from celery_monitor.runtime.stream import Stream, StreamStats
from celery_monitor.runtime.threads import Loop, Threads, said
from celery_monitor.runtime.uncommitted import UncommittedPages
from celery_monitor.settings import Settings
from celery_monitor.settings.secret import redact_url

EXIT_STUCK: Final = 70
SHUTDOWN: Final = 9.5
"""Seconds for an orderly end; Kubernetes and Docker give at least ten."""
_STUCK_AFTER: Final = 60.0
_BLOCKED_AFTER: Final = 180.0
"""Seconds until a blocked interpreter ends the process. The timer cannot tell it from a process that was stopped
(SIGSTOP, a paused container): one that goes on after a minute or two must not be ended for it."""
_SLOW: Final = 120.0
_STORE_RETRY: Final = 2.0
_ESSENTIAL_THREADS: Final = ("pump", "committer")
_JOIN_TIMEOUT: Final = 1.0
_WRONG_CLOCKS: Final = 3600.0
"""Seconds that a failure's time may be ahead for its incident to be known after a restart, though it was not sent."""
_NO_STREAM: Final = "waiting for the event stream"

_log = structlog.get_logger()


class App:
    """The daemon. ``run`` blocks until ``stop`` is called or a thread dies."""

    def __init__(
        self, settings: Settings, store: SqlStore | None = None, *, guard: InterpreterGuard | None = None
    ) -> None:
        """Does no I/O. ``store`` takes the place of the settings' one.

        ``guard`` ends the process when the interpreter is blocked; for an app that has the process to itself.
        """
        self.settings = settings
        self.clock = SystemClock()
        self.stopping = threading.Event()
        self.threads = Threads(self.stopping, self._exit_stuck, self._live)
        self._guard = guard
        self._priority = ScrapePriority(self.clock)
        policy = policy_of(settings)
        self.store = store or open_store(
            settings.store.url_source(),
            password=settings.store.password_source(),
            directory=settings.store.directory,
            retention=settings.store.retention,
            max_bytes=settings.store.max_bytes,
            fingerprints_kept=settings.broker.prefetch,
            quiet_kept=policy.joinable_until(_WRONG_CLOCKS),
            max_series=settings.metrics.max_series,
            max_incidents=settings.alerts.max_incidents,
            hosts=settings.metrics.hostname_label,
            give_way=self._priority.give_way,
        )
        self._lock = threading.Lock()
        self._store_error: str | None = "opening the store"
        self._monitor: Monitor | None = None
        self._committed_totals: CommittedTotals | None = None
        self._committer = Committer(self.store, self.clock, self._priority)
        self._channels = channels.configured(settings)
        self._report_channel, self._daily = channels.of_report(self._channels)
        self._uncommitted = {
            channel.name: UncommittedPages(self.store.outbox, self.clock, channel.name)
            for channel in channels.of_incidents(self._channels)
        }
        self._stream: Stream | None = None
        self._prober: Prober | None = None
        self._fleet: FleetPoller | None = None
        self._maintenance: Maintenance | None = None
        self._senders: list[Sender] = []
        self._notifiers: dict[str, Notifier] = {}
        """By the name of their channel."""
        self._redaction = Redaction(settings.tracking.redact)
        self._zone = ZoneInfo(self._daily.timezone)
        self._report = DayReport(self.store.reader, settings.fleet, self._zone, paging=pages(policy))
        self.web = self._build_web()

    def stop(self) -> None:
        """Ask for the end. Safe in a signal handler, and from any thread."""
        self.stopping.set()

    def run(self) -> int:
        """Start, wait, stop. Returns the exit code: 0, or 1 when a part of it died.

        Raises StoreUnusableError, PortUnavailableError when the port is taken, and ConfigError when it cannot be had.
        """
        with contextlib.ExitStack() as cleanup:
            self.web.start()
            # Already here: the store may take long to open, and with port 0 nobody could ask why.
            said(partial(_log.info, "Listening", listen=self.listen, version=version("celery-monitor")))
            self.threads.start("web", self.web.serve, limit=_SLOW, restart=True)
            self.threads.watch()
            cleanup.callback(self.threads.join, "web", _JOIN_TIMEOUT)
            cleanup.callback(self.stopping.set)
            restored = self._open_store()
            if restored is not None:
                cleanup.callback(self.store.stop)
                self._start(restored)
                cleanup.callback(self._shut_down)
                self.stopping.wait()
        died = self.threads.died
        dead = partial(_log.error, "Exiting because a thread died", thread=died)
        code = 0 if died is None else 1
        if not said(partial(_log.info, "Stopped") if died is None else dead):
            os._exit(code)  # the interpreter would wait for standard error before it ends
        return code

    @property
    def listen(self) -> str:
        """Where the web server listens, once it does."""
        host = self.settings.web.host
        return f"{f'[{host}]' if ':' in host else host}:{self.web.port}"

    def _open_store(self) -> Restored | None:
        """Try until the store opens; None when the end came first. Raises StoreUnusableError."""
        while not self.stopping.is_set():
            try:
                restored = self.store.start()
            except StoreUnavailableError as exc:
                self._store_error = str(exc)
                _log.error("Cannot open the store; retrying", error=str(exc))
                self.stopping.wait(_STORE_RETRY)
                continue
            self._store_error = None
            return restored
        return None

    def _start(self, restored: Restored) -> None:
        settings, now = self.settings, self.clock.now()
        self._prober = Prober(BrokerProbe(settings.broker), self.clock, settings.broker.probe_interval)
        limits = replace(limits_of(settings), redact=self._redaction.patterns, prober=self._prober.instance)
        monitor = Monitor(limits, restored, now)
        self._committed_totals, self._monitor = CommittedTotals(monitor.snapshot()), monitor
        monitor.count(CounterName.STARTS, 1)
        if restored.rolled_back is not None:
            monitor.count(CounterName.STORE_ROLLED_BACK, 1)
            _log_rollback(restored.rolled_back)
        self._fleet = FleetPoller(
            BrokerFleet(settings.broker, settings.metrics.queues, (one.key.queue for one in restored.series)),
            monitor,
            self._lock,
            self.clock,
            poll_interval=settings.metrics.poll_interval,
            enable_events=settings.broker.enable_events,
        )
        pump = self._build_pump(
            monitor, self._prober, self._fleet, alive_at=restored.counters.get(CounterName.ALIVE_AT)
        )
        self._start_notifiers()
        self.threads.start("committer", self._committer.run, limit=_STUCK_AFTER, fatal=True)
        self.threads.start("pump", pump.run, limit=_STUCK_AFTER, fatal=True)
        self.threads.start("prober", self._prober.run, limit=_SLOW, restart=True)
        self.threads.start("fleet", self._fleet.run, limit=_SLOW, restart=True)
        self.threads.start("maintenance", self._keep(restored), limit=_SLOW, restart=True)
        # What is there now stays: a full collection need not walk it again and again while events wait.
        gc.collect()
        gc.freeze()
        self._log_start(restored)

    def _build_pump(self, monitor: Monitor, prober: Prober, fleet: FleetPoller, *, alive_at: float | None) -> Pump:
        settings, prefetch = self.settings, self.settings.broker.prefetch
        shared = monitor, self._lock, self.clock
        self._stream = Stream(
            BrokerSource(settings.broker),
            *shared,
            prober=prober,
            prefetch=prefetch,
            alive_at=alive_at,
            opened=fleet.opened,
        )
        flusher = Flusher(
            self._stream,
            self._committer,
            *shared,
            priority=self._priority,
            flush_interval=settings.store.flush_interval,
            prefetch=prefetch,
            committed=self._committed,
            uncommitted=self._page_uncommitted,
        )
        return Pump(
            self._stream,
            flusher,
            *shared,
            marks=self.store.applying,
            prefetch=prefetch,
            arrived=fleet.arrived,
            under_pressure=MemoryWatch(settings.tracking.max_memory, resident).under_pressure,
        )

    def _log_start(self, restored: Restored) -> None:
        settings = self.settings
        _log.info(
            "Started",
            version=version("celery-monitor"),
            fleet=settings.fleet,
            listen=self.listen,
            broker=redact_url(settings.broker.url_source().get() or ""),
            store=self.store.about,
            series=len(restored.series),
            series_merged=restored.series_merged,
            tracked=len(restored.tracked),
            incidents=len(restored.incidents),
            channels={channel.name: channel.summary for channel in self._channels},
        )

    def _start_notifiers(self) -> None:
        for channel in self._channels:
            rows = self._uncommitted.get(channel.name, self.store.outbox)
            context = channels.Context(
                clock=self.clock,
                incident=rows.incident,
                summary=self._report.summary,
                note=self.store.outbox.note,
                external_url=self.settings.web.external_url,
            )
            sender = channel.sender(context)
            notifier = Notifier(rows, sender, self.clock, rate_limit=channel.rate_limit, idempotent=channel.idempotent)
            self._senders.append(sender)
            self._notifiers[channel.name] = notifier
            self.threads.start(_courier_of(channel.name), notifier.run, limit=_SLOW + channel.timeout, restart=True)
        self._give_up_strays()

    def _give_up_strays(self) -> None:
        """What waits for channels that are no longer configured would wait for ever, and nobody would know."""
        with contextlib.suppress(StoreUnavailableError):
            for name in self.store.outbox.pending().keys() - self._notifiers.keys():
                stray = Notifier(self.store.outbox, Unconfigured(name), self.clock)
                while stray.run_once():
                    pass

    def _keep(self, restored: Restored) -> Loop:
        outbox, channel = self.store.outbox, self._report_channel
        schedule = ReportSchedule(
            outbox, self.store.reader, channel.name, self._daily.schedule, self._zone, new=not restored.counters
        )
        report = schedule.run_once if channel.configured else None
        self._maintenance = Maintenance(self.store, outbox, self.clock, report, channel.name)
        return self._maintenance.run

    def _page_uncommitted(self, waiting: list[tuple[OutboxRequest, Incident]]) -> None:
        for name, uncommitted in self._uncommitted.items():
            if uncommitted.offer(waiting):
                self._notifiers[name].wake()

    def _committed(self, changes: Changes) -> None:
        for uncommitted in self._uncommitted.values():
            uncommitted.written(changes)
        if self._committed_totals is not None:
            with self._lock:
                self._committed_totals.commit(changes)
        if changes.outbox:
            for notifier in self._notifiers.values():
                notifier.wake()

    def _shut_down(self) -> None:
        """Everything at once, the pump first of all: what it has applied is committed and acknowledged."""
        until = self.clock.monotonic() + SHUTDOWN
        if self._guard is not None:
            self._guard.extend(SHUTDOWN + _JOIN_TIMEOUT)
        timer = threading.Timer(SHUTDOWN, self._exit_late)
        timer.daemon = True
        timer.start()
        self.stopping.set()
        self._priority.end()
        for notifier in self._notifiers.values():
            notifier.wake()
        if self._fleet is not None:
            self._fleet.interrupt()
        for sender in self._senders:
            sender.stop()
        # The pump's end brings the committer's.
        must_end = (*_ESSENTIAL_THREADS, *map(_courier_of, self._uncommitted))
        may_end = (_courier_of(self._report_channel.name), "maintenance", "fleet", "prober")
        for name in (*must_end, *may_end):
            last = until - 1.0 if name in must_end else self.clock.monotonic() + _JOIN_TIMEOUT
            if not self.threads.join(name, max(0.0, last - self.clock.monotonic())):
                _log.warning("A thread did not stop in time; abandoning it", thread=name)
        timer.cancel()

    def _live(self) -> None:
        """The interpreter runs."""
        if self._guard is not None and not self.stopping.is_set():
            self._guard.extend(_BLOCKED_AFTER)

    def _exit_stuck(self, name: str) -> None:
        """Nothing else helps: a thread hangs in a library that does not come back."""
        del name
        os._exit(EXIT_STUCK)

    def _exit_late(self) -> None:
        try:
            said(partial(_log.critical, "Graceful shutdown timed out"))
        finally:
            os._exit(1)

    def _build_web(self) -> WebServer:
        settings = self.settings
        metrics = Exposition(
            settings.metrics,
            self.clock,
            snapshot=self.snapshot,
            queues=self.queues,
            runtime=self.stats,
            rendering=self._priority.scrape,
        )
        sources = Sources(
            fleet=settings.fleet,
            clock=self.clock,
            metrics=metrics,
            livez=self.alive,
            readyz=self.ready,
            snapshot=self.snapshot,
            queues=self.queues,
            reader=self.store.reader,
            outbox=self.store.outbox,
            report=self._report.summary,
            report_part=self._daily.part,
            channels=[channel.info for channel in self._channels],
            space=self.store.space,
            retention=settings.store.retention,
            zone=self._zone,
        )
        return WebServer(Site(settings.web, sources), host=settings.web.host, port=settings.web.port)

    # --- what the web server shows -----------------------------------------------------------------------------------
    def snapshot(self) -> Snapshot | None:
        """The monitor's state of now, with totals as committed; None until the store was read."""
        if self._monitor is None:
            return None
        with self._lock:
            snapshot = self._monitor.snapshot(self._committed_totals)
        if self._stream is None or self._prober is None or not self._stream.stats.live:
            return replace(snapshot, lag=None)
        return replace(snapshot, probe_roundtrip=self._prober.roundtrip)

    def queues(self) -> Sequence[QueueStats]:
        """As of the last look."""
        return self._fleet.queues() if self._fleet else ()

    def stats(self) -> RuntimeStats:
        """The loops' own figures."""
        stream = self._stream.stats if self._stream else StreamStats()
        commits = self._committer.stats
        notifications = {
            (channel, outcome): number
            for channel, notifier in self._notifiers.items()
            for outcome, number in notifier.notifications().items()
        }
        return RuntimeStats(
            broker_connected=stream.live,
            unacked_messages=stream.unacked,
            commits=Histogram(BOUNDS, tuple(commits.counts), commits.sum),
            commit_failures=commits.failures,
            store=self.store.space(),
            replies_discarded=self._fleet.discarded() if self._fleet else {},
            channels=[channel.name for channel in self._channels],
            outbox=self._maintenance.pending if self._maintenance else {},
            notifications=notifications,
            report_last_success=self._maintenance.report_last_success if self._maintenance else None,
            thread_failures=dict(self.threads.failures),
            sign_ins_refused=self.web.sign_ins_refused,
            redaction_timeouts=self._redaction.timeouts,
        )

    def alive(self) -> HealthReport:
        """Whether every thread turns."""
        stuck = self.threads.stuck()
        return HealthReport(
            {
                "threads": None
                if not stuck
                else ", ".join(f"{name} made no progress for {silence:.0f} s" for name, silence in stuck.items())
            }
        )

    def ready(self) -> HealthReport:
        """Whether events arrive and are kept."""
        stream = self._stream
        if stream is None or self._prober is None:
            checks = {"store": self._store_error, "broker": "not connected yet", "probe": _NO_STREAM}
            return HealthReport(checks, about={"store": self.store.about})
        stats = stream.stats
        return HealthReport(
            {
                "broker": stats.standby if stats.connected else stats.error or "not connected yet",
                # Without a stream no probe can come back, so nothing is known to be well.
                "probe": self._prober.trouble(stream.last_received_at) if stats.connected else _NO_STREAM,
                "events": None if self._monitor is None else self._monitor.undecodable.told,
                "store": self._committer.trouble(),
                "threads": "; ".join(f"{name} {told}" for name, told in self.threads.failing().items()) or None,
            },
            {"workers": self._fleet.finding} if self._fleet and self._fleet.finding else {},
            {"store": self.store.about},
        )


def _courier_of(channel: str) -> str:
    """The name of its thread."""
    return f"notifier-{channel}"


def _log_rollback(lost: RolledBack) -> None:
    _log.error(
        "The store is older than the last commit: the counts of these flushes are lost, and the broker does not "
        "redeliver them. Possible causes: a write-ahead log damaged by a crash, or a restored backup. Check the "
        "disk and its file system",
        flushes=lost.flushes,
        seconds=round(max(0.0, lost.committed_at - lost.found_at), 1) if lost.found_at else None,
        found=rfc3339(lost.found_at) if lost.found_at else "an empty store",
        committed=rfc3339(lost.committed_at),
    )
