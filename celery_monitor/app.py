"""The composition root: builds the daemon from the settings, runs it and shuts it down.

Adapters and the runtime are connected only here and in ``web_interface``, ``leader``, ``leader_view``, ``pipeline`` and
``notifications``.

Start: the web server first, so that /metrics and the probes respond while the store is opened; then the store, then the
leader. Shutdown: the leader commits and acknowledges what it has applied and everything is closed, within ten seconds.
"""

import contextlib
import os
import threading
from functools import partial
from importlib.metadata import version
from typing import Final
from zoneinfo import ZoneInfo

import structlog

from celery_monitor.adapters import channels
from celery_monitor.adapters.broker import BrokerSource, KnownAddress, ReplaySource
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.redaction import Redaction
from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.core.model import Restored
from celery_monitor.environment import Environment
from celery_monitor.leader import STALLED_AFTER, Leader, prepare
from celery_monitor.policy import pages, policy_of
from celery_monitor.runtime.interpreter import InterpreterGuard
from celery_monitor.runtime.priority import ScrapePriority
from celery_monitor.runtime.report import DayReport
from celery_monitor.runtime.standby import Standby, Takeover
from celery_monitor.runtime.threads import Threads, try_log
from celery_monitor.settings import Settings
from celery_monitor.settings.secret import redact_url
from celery_monitor.web_interface import WebInterface

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
_WRONG_CLOCKS: Final = 3600.0
"""Seconds that a worker's clock may be ahead so that incidents that are not open are still known after a restart."""

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
            fingerprint_window=settings.broker.prefetch,
            quiet_retention=policy.joinable_until(_WRONG_CLOCKS),
            max_series=settings.metrics.max_series,
            max_incidents=settings.alerts.max_incidents,
            max_ended=settings.tracking.max_ended_tasks,
            hosts=settings.metrics.hostname_label,
            lease_ttl=settings.store.lease_ttl,
            yield_point=priority.yield_to_scrape,
        )
        configured = channels.configured(settings)
        zone = ZoneInfo(channels.of_report(configured)[1].timezone)
        self._env = Environment(
            settings=settings,
            clock=self.clock,
            store=self.store,
            priority=priority,
            channels=configured,
            redaction=Redaction(settings.tracking.redact),
            report=DayReport(self.store.reader, settings.fleet, zone, paging=pages(policy)),
            zone=zone,
            address=KnownAddress(),
        )
        self._leader: Leader | None = None
        self._standby: Standby | None = None
        self.web = WebInterface(self._env, self.threads, lambda: (self._leader, self._standby))

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
            self.web.server.start()
            # Logged first: opening the store may take long, and with port 0 nobody would know where to ask why.
            try_log(partial(_log.info, "Listening", listen=self.web.address, version=version("celery-monitor")))
            self.threads.start("web", self.web.server.serve, limit=STALLED_AFTER, restart=True)
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

    def _stand_by(self) -> Takeover | None:
        """Wait until this process is to lead; None if it is stopped first. Raises StoreUnusableError."""
        broker, address = self.settings.broker, self._env.address
        source = BrokerSource(broker, address)
        replay = ReplaySource(broker, self.clock, address) if self.store.shared and source.broadcasts else None
        standby = self._standby = Standby(
            self.store,
            self.clock,
            self.web.name,
            source=source,
            replay=replay,
            end=self._exit_stuck,
            read_view=self.web.committed_snapshot,
            prepare=partial(prepare, self._env),
            alone=self.settings.store.replicas == 1,
        )
        return standby.lead(self.stopping)

    def _lead(self, takeover: Takeover) -> bool:
        """Lead until the process has to stop; True if it has to stand by instead, because another one leads."""
        # The standby has ended: it must not answer while the leader is built, nor for the next standby.
        self._standby = None
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
            listen=self.web.address,
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
