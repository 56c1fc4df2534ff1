"""What the web server shows of a leader: snapshots of its parts, taken from memory while they run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from celery_monitor.adapters.prometheus.runtime_stats import RuntimeStats
from celery_monitor.core.model import Histogram, QueueStats, Snapshot, WorkerDetail
from celery_monitor.environment import Environment
from celery_monitor.pipeline import Pipeline
from celery_monitor.ports import HealthReport
from celery_monitor.runtime.committer import BOUNDS
from celery_monitor.runtime.lease import HeldLease
from celery_monitor.runtime.task_view import MemoryTaskView

NO_STREAM: Final = "waiting for the event stream"
NOT_LEADING: Final = "this replica does not lead: its lease expired, or another replica has taken over"


class LeaderView:
    """Safe from several threads."""

    def __init__(self, environment: Environment, pipeline: Pipeline, lease: HeldLease) -> None:
        self._pipeline = pipeline
        self._lease = lease
        self.tasks: Final = MemoryTaskView(
            pipeline.monitor, pipeline.lock, environment.clock, environment.redaction.patterns
        )
        """The unfinished tasks."""

    @property
    def leads(self) -> bool:
        """Whether no other process can lead.

        Otherwise, as after this process was frozen or cut off, it exports no fleet metrics: its counts may be older
        than those of the next leader, and Prometheus would see counters decrease.
        """
        return self._lease.may_consume()

    def snapshot(self) -> Snapshot:
        """The monitor's current state, with totals as committed."""
        parts = self._pipeline
        with parts.lock:
            snapshot = parts.monitor.snapshot(parts.totals)
        if not parts.stream.stats.live:
            return replace(snapshot, lag=None)
        return replace(snapshot, probe_roundtrip=parts.prober.roundtrip)

    def worker_details(self) -> dict[str, WorkerDetail]:
        """What each worker last reported about itself, by hostname."""
        parts = self._pipeline
        with parts.lock:
            loads = parts.monitor.loads()
        details = parts.fleet.details()
        return {
            hostname: replace(details.get(hostname, WorkerDetail()), load=loads.get(hostname))
            for hostname in details.keys() | loads.keys()
        }

    def queues(self) -> Sequence[QueueStats]:
        """The queues as of the last poll."""
        return self._pipeline.fleet.queues()

    def stats(self, stats: RuntimeStats) -> RuntimeStats:
        """``stats``, completed with those of the leader's parts."""
        parts = self._pipeline
        commits = parts.committer.stats
        return replace(
            stats,
            leader=self.leads,
            broker_connected=parts.stream.stats.live,
            unacked_messages=parts.stream.stats.unacked,
            commits=Histogram(BOUNDS, tuple(commits.counts), commits.sum),
            commit_failures=commits.failures,
            replies_discarded=parts.fleet.discarded(),
            outbox=parts.maintenance.pending,
            notifications=parts.notifications.attempts(),
            report_last_success=parts.maintenance.report_last_success,
        )

    def ready(self) -> HealthReport:
        """Whether events arrive and are stored."""
        parts = self._pipeline
        stats = parts.stream.stats
        return HealthReport(
            {
                "broker": stats.standby if stats.connected else stats.error or "not connected yet",
                # Without a stream no probe can return, so this check cannot pass.
                "probe": parts.prober.trouble(parts.stream.last_received_at) if stats.connected else NO_STREAM,
                "events": parts.monitor.undecodable.problem,
                "store": parts.committer.trouble() if self.leads else NOT_LEADING,
            },
            {"workers": parts.fleet.finding} if parts.fleet.finding else {},
        )
