"""The web interface: builds the web server and answers what its pages, /metrics and the health probes ask.

The answers depend on the role of the process. A leader answers from memory. A standby answers from what the leader has
committed, and without what only the leader knows.
"""

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from celery_monitor.adapters import channels
from celery_monitor.adapters.prometheus.exposition import Exposition
from celery_monitor.adapters.prometheus.runtime_stats import RuntimeStats
from celery_monitor.adapters.web import Site, WebServer
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.core.model import Histogram, IncidentState, QueueStats, Snapshot, WorkerDetail
from celery_monitor.environment import Environment
from celery_monitor.leader import Leader
from celery_monitor.leader_view import NO_STREAM
from celery_monitor.ports import HealthReport, IdentityProvider, TaskView
from celery_monitor.runtime.committer import BOUNDS
from celery_monitor.runtime.standby import Standby
from celery_monitor.runtime.task_view import StoredTaskView
from celery_monitor.runtime.threads import Threads

_MAX_OPEN_INCIDENTS: Final = 1_000
"""Open incidents that a standby counts at most."""
_NO_COMMITS: Final = Histogram(BOUNDS, (0,) * (len(BOUNDS) + 1), 0.0)


class WebInterface:
    """Has the web server as ``server``, and is safe from its threads."""

    def __init__(
        self, environment: Environment, threads: Threads, role: Callable[[], tuple[Leader | None, Standby | None]]
    ) -> None:
        """Does no I/O. ``threads``: those of the whole process.

        ``role`` returns the leader and the standby that this process has now: at most one of them, and neither while
        it starts or takes over.
        """
        self._env = environment
        self._store = environment.store
        self._threads = threads
        self._role = role
        self.server: Final = self._build_server()

    @property
    def address(self) -> str:
        """The address that the web server listens on, once it does."""
        host = self._env.settings.web.host
        return f"{f'[{host}]' if ':' in host else host}:{self.server.port}"

    @property
    def name(self) -> str:
        """Name of this replica, with the port because two may run on one host."""
        return f"{platform.node()}:{self.server.port}"

    def _build_server(self) -> WebServer:
        env, settings = self._env, self._env.settings
        metrics = Exposition(
            settings.metrics,
            env.clock,
            snapshot=self.snapshot,
            queues=self.queues,
            runtime=self.stats,
            rendering=env.priority.scrape,
        )
        sources = Sources(
            fleet=settings.fleet,
            clock=env.clock,
            metrics=metrics,
            livez=self.alive,
            readyz=self.ready,
            snapshot=self.snapshot,
            queues=self.queues,
            tasks=self.tasks,
            worker_details=self.worker_details,
            reader=self._store.reader,
            outbox=self._store.outbox,
            silences=self._store.silences,
            mute=[window.model_dump() for window in settings.alerts.mute],
            report=env.report.summary,
            prepare_report=env.report.prepare,
            report_part=channels.of_report(env.channels)[1].part,
            channels=[channel.info for channel in env.channels],
            space=self._store.space,
            retention=settings.store.retention,
            zone=env.zone,
            links=settings.links,
            fleets=self._store.other_fleets if self._store.shared else None,
            notice=settings.web.notice,
        )
        return WebServer(Site(settings.web, sources, self._provider()), host=settings.web.host, port=settings.web.port)

    def _provider(self) -> IdentityProvider | None:
        web = self._env.settings.web
        if web.oidc.issuer is None:
            return None
        # Importing Authlib takes memory and time, so only if it is used.
        from celery_monitor.adapters.oidc import OidcProvider  # noqa: PLC0415

        return OidcProvider(web, self._env.clock)

    def snapshot(self) -> Snapshot | None:
        """The monitor's current state, with totals as committed; None until the store has been read.

        On a standby: what the leader had committed some seconds ago, without what only the leader knows.
        """
        leader, standby = self._role()
        if leader is not None:
            return leader.view.snapshot()
        return None if standby is None else standby.view

    def committed_snapshot(self) -> Snapshot:
        """What the leader has committed, as far as a standby shows it. Raises StoreUnavailableError."""
        reader = self._store.reader
        return Snapshot(
            now=self._env.clock.now(),
            series=(),
            workers=reader.workers(),
            counters=reader.counters(math.inf),
            incidents={},
            incidents_open=len(reader.incidents(limit=_MAX_OPEN_INCIDENTS, state=IncidentState.OPEN).rows),
            tracked=0,
            lag=None,
            probe_roundtrip=None,
        )

    def worker_details(self) -> Mapping[str, WorkerDetail]:
        """What each worker last reported about itself, by hostname; empty on a standby, which sends no requests."""
        leader, _ = self._role()
        return {} if leader is None else leader.view.worker_details()

    def tasks(self) -> TaskView:
        """The unfinished tasks; on a standby, as of the last commit."""
        leader, _ = self._role()
        return StoredTaskView(self._store.reader, self._env.clock) if leader is None else leader.view.tasks

    def queues(self) -> Sequence[QueueStats]:
        """The queues as of the last poll; empty on a standby."""
        leader, _ = self._role()
        return () if leader is None else leader.view.queues()

    def stats(self) -> RuntimeStats:
        """Metrics of the daemon's own threads."""
        leader, _ = self._role()
        stats = RuntimeStats(
            commits=_NO_COMMITS,
            store=self._store.space(),
            channels=[channel.name for channel in self._env.channels],
            thread_failures={**self._threads.failures, **({} if leader is None else leader.threads.failures)},
            sign_ins_refused=self.server.sign_ins_refused,
            redaction_timeouts=self._env.redaction.timeouts,
            leader=not self._store.shared,
        )
        return stats if leader is None else leader.view.stats(stats)

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
        leader, standby = self._role()
        about = {"store": self._store.about} | ({"replica": self.name} if self._store.shared else {})
        if leader is not None:
            health = leader.view.ready()
        elif standby is not None:
            health = standby.health()
        else:
            return HealthReport({"store": "starting", "broker": "not connected yet", "probe": NO_STREAM})
        checks = dict(health.checks)
        if leader is None and not self._store.shared:
            checks |= {"broker": "not connected yet", "probe": NO_STREAM}
        elif self._store.shared and leader is not None:
            about["role"] = "leader"
        failing = {name: problem for threads in self._all_threads() for name, problem in threads.failing().items()}
        checks["threads"] = "; ".join(f"{name} {problem}" for name, problem in failing.items()) or None
        return HealthReport(checks, health.notes, {**about, **health.about})

    def _all_threads(self) -> list[Threads]:
        """Threads of the process, and of the leader or standby."""
        leader, standby = self._role()
        now = leader.threads if leader is not None else standby.threads if standby is not None else None
        return [self._threads] if now is None else [self._threads, now]
