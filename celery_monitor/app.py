"""The composition root: builds the daemon from the settings, runs it and shuts it down.

Only this module, ``leader`` and ``notifications`` connect adapters with the runtime.

Start: the web server first, so that /metrics and the probes respond while the store is opened; then the store, then the
leader. Shutdown: the leader commits and acknowledges what it has applied and everything is closed, within ten seconds.
"""

import contextlib
import math
import os
import platform
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Final
from zoneinfo import ZoneInfo

import structlog

from celery_monitor.adapters import channels
from celery_monitor.adapters.broker import BrokerSource, ReplaySource
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.prometheus.exposition import Exposition
from celery_monitor.adapters.prometheus.runtime_stats import RuntimeStats
from celery_monitor.adapters.redaction import Redaction
from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.adapters.web import Site, WebServer
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.core.model import Histogram, IncidentState, QueueStats, Restored, Snapshot, WorkerDetail
from celery_monitor.environment import Environment
from celery_monitor.leader import NO_STREAM, STALLED_AFTER, Leader, prepare
from celery_monitor.policy import pages, policy_of
from celery_monitor.ports import HealthReport, IdentityProvider, TaskView
from celery_monitor.runtime.committer import BOUNDS
from celery_monitor.runtime.interpreter import InterpreterGuard
from celery_monitor.runtime.priority import ScrapePriority
from celery_monitor.runtime.report import DayReport
from celery_monitor.runtime.standby import Standby, Takeover
from celery_monitor.runtime.task_view import StoredTaskView
from celery_monitor.runtime.threads import Threads, try_log
from celery_monitor.settings import Settings
from celery_monitor.settings.secret import redact_url

EXIT_STUCK: Final = 70
"""Exit code when an essential thread is stuck."""
SHUTDOWN: Final = 9.5
"""Seconds for a graceful shutdown; Kubernetes and Docker allow at least ten."""
_BLOCKED_AFTER: Final = 180.0
"""Seconds after which a process with a blocked interpreter is ended. The timer also counts time in which the process
was stopped (SIGSTOP, a paused container), and a stop of a minute or two must not end it."""
_EXTEND_EVERY: Final = 10.0
"""Seconds between two extensions of that timer, because each starts a new thread; added to _BLOCKED_AFTER."""
_JOIN_TIMEOUT: Final = 1.0
_OPEN_INCIDENTS: Final = 1_000
"""Open incidents that a standby counts at most."""
_WRONG_CLOCKS: Final = 3600.0
"""Seconds that a worker's clock may be ahead so that incidents that are not open are still known after a restart."""
_NO_COMMITS: Final = Histogram(BOUNDS, (0,) * (len(BOUNDS) + 1), 0.0)

_log = structlog.get_logger()


class App:
    """The daemon. ``run`` blocks until ``stop`` is called or a thread dies."""

    def __init__(
        self, settings: Settings, store: SqlStore | None = None, *, guard: InterpreterGuard | None = None
    ) -> None:
        """Does no I/O. ``store`` replaces the one of the settings.

        ``guard`` ends the process when the interpreter is blocked; only for an app that has the process to itself.
        """
        self.settings = settings
        self.clock = SystemClock()
        self.stopping = threading.Event()
        self.threads = Threads(self.stopping, self._exit_stuck, self._live)
        self._guard = guard
        self._extend_at = 0.0
        priority, policy = ScrapePriority(self.clock), policy_of(settings)
        self.store = store or open_store(
            settings.store.url_source(),
            password=settings.store.password_source(),
            schema=settings.schema_of_store,
            directory=settings.store.directory,
            retention=settings.store.retention,
            max_bytes=settings.store.max_bytes,
            fingerprints_kept=settings.broker.prefetch,
            quiet_retention=policy.joinable_until(_WRONG_CLOCKS),
            max_series=settings.metrics.max_series,
            max_incidents=settings.alerts.max_incidents,
            max_ended=settings.tracking.max_ended_tasks,
            hosts=settings.metrics.hostname_label,
            lease_ttl=settings.store.lease_ttl,
            yield_point=priority.yield_to_scrape,
        )
        configured = channels.configured(settings)
        self._daily = channels.of_report(configured)[1]
        zone = ZoneInfo(self._daily.timezone)
        self._env = Environment(
            settings=settings,
            clock=self.clock,
            store=self.store,
            priority=priority,
            channels=configured,
            redaction=Redaction(settings.tracking.redact),
            report=DayReport(self.store.reader, settings.fleet, zone, paging=pages(policy)),
            zone=zone,
        )
        self._leader: Leader | None = None
        self._standby: Standby | None = None
        self.web = self._build_web()

    def stop(self) -> None:
        """Request shutdown. Safe in a signal handler, and from any thread."""
        self.stopping.set()
        leader = self._leader
        if leader is not None:
            leader.stopping.set()

    def run(self) -> int:
        """Start, wait, stop. Returns the exit code: 0, or 1 if a thread died.

        Raises StoreUnusableError, PortUnavailableError if the port is in use, and ConfigError if it cannot be used at
        all.
        """
        with contextlib.ExitStack() as cleanup:
            self.web.start()
            # Logged first: opening the store may take long, and with port 0 nobody would know where to ask why.
            try_log(partial(_log.info, "Listening", listen=self.listen, version=version("celery-monitor")))
            self.threads.start("web", self.web.serve, limit=STALLED_AFTER, restart=True)
            self.threads.watch()
            cleanup.callback(self.threads.join, "web", _JOIN_TIMEOUT)
            cleanup.callback(self.stopping.set)
            cleanup.callback(self.store.stop)
            while (takeover := self._stand_by()) is not None:
                if not self._lead(takeover):
                    break
        died = self._died()
        dead = partial(_log.error, "Exiting because a thread died", thread=died)
        code = 0 if died is None else 1
        if not try_log(partial(_log.info, "Stopped") if died is None else dead):
            os._exit(code)  # a normal exit would block on standard error
        return code

    @property
    def listen(self) -> str:
        """The address that the web server listens on, once it does."""
        host = self.settings.web.host
        return f"{f'[{host}]' if ':' in host else host}:{self.web.port}"

    @property
    def name(self) -> str:
        """Name of this replica, with the port because two may run on one host."""
        return f"{platform.node()}:{self.web.port}"

    def _stand_by(self) -> Takeover | None:
        """Wait until this process is to lead; None if it is stopped first. Raises StoreUnusableError."""
        broker = self.settings.broker
        source = BrokerSource(broker)
        replay = ReplaySource(broker, self.clock) if self.store.shared and source.broadcasts else None
        standby = self._standby = Standby(
            self.store,
            self.clock,
            self.name,
            source=source,
            replay=replay,
            end=self._exit_stuck,
            look=self._look,
            prepare=partial(prepare, self._env),
            alone=self.settings.store.replicas == 1,
        )
        return standby.lead(self.stopping)

    def _lead(self, takeover: Takeover) -> bool:
        """Lead until the process has to stop; True if it has to stand by instead, because another one leads."""
        leader = self._leader = Leader(self._env, takeover, self._exit_stuck)
        if self.stopping.is_set():  # by a call of ``stop`` just before the leader existed
            leader.stopping.set()
        leader.start()
        lost = False
        try:
            self._log_start(takeover.restored)
            leader.stopping.wait()
            lost = leader.end_reason is not None
        finally:
            if not lost:
                self._shut_down(leader)
        if not lost:  # even if the lease was lost in the last flush, this process stops
            return False
        leader.step_down()
        if leader.resigning:
            self.store.resign()
        # The former standby must not answer for the next one: it was ready before this process led.
        self._standby = None
        self._leader = None
        return True

    def _died(self) -> str | None:
        leader = self._leader
        return self.threads.died or (leader.threads.died if leader is not None else None)

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
            channels={channel.name: channel.summary for channel in self._env.channels},
        )

    def _shut_down(self, leader: Leader) -> None:
        """Shut down within SHUTDOWN; a process that takes longer is ended."""
        deadline = self.clock.monotonic() + SHUTDOWN
        if self._guard is not None:
            self._guard.extend(SHUTDOWN + _JOIN_TIMEOUT)
        timer = threading.Timer(SHUTDOWN, self._exit_late)
        timer.daemon = True
        timer.start()
        self.stopping.set()
        leader.finish(deadline)
        timer.cancel()

    def _live(self) -> None:
        """Called by the watchdog: extend the guard's timer, because the interpreter is not blocked."""
        mono = self.clock.monotonic()
        if self._guard is not None and not self.stopping.is_set() and mono >= self._extend_at:
            self._extend_at = mono + _EXTEND_EVERY
            self._guard.extend(_BLOCKED_AFTER + _EXTEND_EVERY)

    def _exit_stuck(self, _name: str) -> None:
        """End the process at once, because a thread hangs in a library call that cannot be interrupted."""
        os._exit(EXIT_STUCK)

    def _exit_late(self) -> None:
        try:
            try_log(partial(_log.critical, "Graceful shutdown timed out"))
        finally:
            os._exit(1)

    def _build_web(self) -> WebServer:
        settings, env = self.settings, self._env
        metrics = Exposition(
            settings.metrics,
            self.clock,
            snapshot=self.snapshot,
            queues=self.queues,
            runtime=self.stats,
            rendering=env.priority.scrape,
        )
        sources = Sources(
            fleet=settings.fleet,
            clock=self.clock,
            metrics=metrics,
            livez=self.alive,
            readyz=self.ready,
            snapshot=self.snapshot,
            queues=self.queues,
            tasks=self.tasks,
            worker_details=self.worker_details,
            reader=self.store.reader,
            outbox=self.store.outbox,
            silences=self.store.silences,
            mute=[window.model_dump() for window in settings.alerts.mute],
            report=env.report.summary,
            prepare_report=env.report.prepare,
            report_part=self._daily.part,
            channels=[channel.info for channel in env.channels],
            space=self.store.space,
            retention=settings.store.retention,
            zone=env.zone,
            links=settings.links,
            fleets=self.store.other_fleets if self.store.shared else None,
            notice=settings.web.notice,
        )
        return WebServer(Site(settings.web, sources, self._provider()), host=settings.web.host, port=settings.web.port)

    def _provider(self) -> IdentityProvider | None:
        if self.settings.web.oidc.issuer is None:
            return None
        # Importing Authlib takes memory and time, so only if it is used.
        from celery_monitor.adapters.oidc import OidcProvider  # noqa: PLC0415

        return OidcProvider(self.settings.web, self.clock)

    # --- what the web server shows -----------------------------------------------------------------------------------
    def snapshot(self) -> Snapshot | None:
        """The monitor's current state, with totals as committed; None until the store has been read.

        On a standby: what the leader had committed some seconds ago, without what only the leader knows.
        """
        leader, standby = self._leader, self._standby
        if leader is not None:
            return leader.snapshot()
        return None if standby is None else standby.view

    def _look(self) -> Snapshot:
        """What the leader has committed, as far as a standby shows it. Raises StoreUnavailableError."""
        reader = self.store.reader
        return Snapshot(
            now=self.clock.now(),
            series=(),
            workers=reader.workers(),
            counters=reader.counters(math.inf),
            incidents={},
            incidents_open=len(reader.incidents(limit=_OPEN_INCIDENTS, state=IncidentState.OPEN).rows),
            tracked=0,
            lag=None,
            probe_roundtrip=None,
        )

    def worker_details(self) -> Mapping[str, WorkerDetail]:
        """What each worker last reported about itself, by hostname; empty on a standby, which sends no requests."""
        leader = self._leader
        return {} if leader is None else leader.worker_details()

    def tasks(self) -> TaskView:
        """The unfinished tasks; on a standby, and while the leader starts, as of the last commit."""
        leader = self._leader
        return (None if leader is None else leader.tasks()) or StoredTaskView(self.store.reader, self.clock)

    def queues(self) -> Sequence[QueueStats]:
        """The queues as of the last poll; empty on a standby."""
        leader = self._leader
        return () if leader is None else leader.queues()

    def stats(self) -> RuntimeStats:
        """Metrics of the daemon's own threads."""
        leader = self._leader
        stats = RuntimeStats(
            commits=_NO_COMMITS,
            store=self.store.space(),
            channels=[channel.name for channel in self._env.channels],
            thread_failures=dict(self.threads.failures),
            sign_ins_refused=self.web.sign_ins_refused,
            redaction_timeouts=self._env.redaction.timeouts,
            leader=leader.leads if leader is not None else not self.store.shared,
        )
        return stats if leader is None else leader.stats(stats)

    def alive(self) -> HealthReport:
        """Whether every thread makes progress."""
        stuck = {name: silence for threads in self._all_threads() for name, silence in threads.stuck().items()}
        return HealthReport(
            {
                "threads": None
                if not stuck
                else ", ".join(f"{name} made no progress for {silence:.0f} s" for name, silence in stuck.items())
            }
        )

    def ready(self) -> HealthReport:
        """Whether events arrive and are stored; on a standby, whether it could take over."""
        leader, standby = self._leader, self._standby
        about = {"store": self.store.about} | ({"replica": self.name} if self.store.shared else {})
        if leader is not None:
            health = leader.ready()
        elif standby is not None:
            health = standby.health()
        else:
            return HealthReport({"store": "not opened yet", "broker": "not connected yet", "probe": NO_STREAM})
        checks = dict(health.checks)
        if leader is None and not self.store.shared:
            checks |= {"broker": "not connected yet", "probe": NO_STREAM}
        elif self.store.shared and leader is not None:
            about["role"] = "leader"
        failing = {name: problem for threads in self._all_threads() for name, problem in threads.failing().items()}
        checks["threads"] = "; ".join(f"{name} {problem}" for name, problem in failing.items()) or None
        return HealthReport(checks, health.notes, {**about, **health.about})

    def _all_threads(self) -> list[Threads]:
        """Threads of the process, and of the leader or standby."""
        leader, standby = self._leader, self._standby
        now = leader.threads if leader is not None else standby.threads if standby is not None else None
        return [self.threads] if now is None else [self.threads, now]
