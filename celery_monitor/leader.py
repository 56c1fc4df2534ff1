"""The leader: reads, counts, commits and notifies, which only one process of a fleet may do at a time.

``App`` is the process. It owns what exists for the life of the process (the web server, the store), and has a Leader
while it leads. A single process with a store of its own leads from when the store is open until it stops.
"""

import gc
import threading
from collections.abc import Callable
from typing import Final

import structlog

from celery_monitor import pipeline
from celery_monitor.adapters import channels
from celery_monitor.core.model import RolledBack
from celery_monitor.core.times import rfc3339
from celery_monitor.environment import Environment
from celery_monitor.errors import LeaseLostError
from celery_monitor.leader_view import LeaderView
from celery_monitor.notifications import thread_of
from celery_monitor.runtime.standby import Takeover
from celery_monitor.runtime.threads import Threads

STUCK_AFTER: Final = 60.0
"""Seconds without a heartbeat after which an essential thread is stuck and the process is ended."""
STALLED_AFTER: Final = 120.0
"""Seconds without a heartbeat after which another thread is reported as stuck."""
STEP_DOWN: Final = 10.0
"""Seconds in which all threads have to stop when another process leads."""
RECORD: Final = 3.0
"""Seconds, of STEP_DOWN, for a process that hands over to record what it has sent."""
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
        self._pipeline = pipeline.build(environment, takeover, self._hand_over)
        self.view: Final = LeaderView(environment, self._pipeline, self._lease)

    @property
    def end_reason(self) -> str | None:
        """Why this process no longer leads; None while it leads as far as is known."""
        return self._lease.end_reason

    def start(self) -> None:
        """Start all threads, from the restored state."""
        if (rolled_back := self._takeover.restored.rolled_back) is not None:
            _log_rollback(rolled_back)
        try:
            self._start_threads()
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

    def _start_threads(self) -> None:
        """Raises LeaseLostError."""
        env, settings, parts = self._env, self._env.settings, self._pipeline
        if env.store.shared:
            self.threads.start("lease", self._lease.run, limit=STALLED_AFTER, restart=True)
        parts.notifications.start(
            self.threads,
            env.report,
            self._lease,
            external_url=settings.web.external_url,
            links=settings.links,
            limit=STALLED_AFTER,
        )
        self.threads.start("committer", parts.committer.run, limit=STUCK_AFTER, fatal=True)
        self.threads.start("pump", parts.pump.run, limit=STUCK_AFTER, fatal=True)
        self.threads.start("prober", parts.prober.run, limit=STALLED_AFTER, restart=True)
        self.threads.start("fleet", parts.fleet.run, limit=STALLED_AFTER, restart=True)
        self.threads.start("maintenance", parts.maintenance.run, limit=STALLED_AFTER, restart=True)
        self.threads.watch()
        # Long-lived objects from here on: spare each full collection from walking them while events wait.
        gc.collect()
        gc.freeze()

    def finish(self, deadline: float) -> None:
        """Stop all threads, the pump first: it commits and acknowledges what it has applied.

        ``deadline``: monotonic time at which the process has to exit.
        """
        self.stopping.set()
        self._env.priority.end()
        self._pipeline.notifications.wake()
        self._pipeline.fleet.interrupt()
        self._pipeline.notifications.interrupt()
        # The committer stops after the pump.
        must_end = (*_ESSENTIAL_THREADS, *self._pipeline.notifications.incident_threads)
        may_end = (thread_of(channels.of_report(self._env.channels)[0].name), "maintenance", "fleet", "prober")
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
        self._pipeline.fleet.interrupt()
        self._pipeline.notifications.interrupt()
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
