"""Builds a leader's pipeline: the parts that take events from the stream into the store, and those that work beside it.

``build`` connects them in the order of an event's way: stream, monitor, committer, notifications. ``Leader`` runs them.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from celery_monitor.adapters import channels
from celery_monitor.adapters.broker import BrokerFleet, BrokerProbe
from celery_monitor.adapters.process import resident
from celery_monitor.core.committed_totals import CommittedTotals
from celery_monitor.core.model import Changes, CounterName
from celery_monitor.core.monitor import Monitor
from celery_monitor.core.muted import MAX_CATCH_UP
from celery_monitor.environment import Environment
from celery_monitor.notifications import Notifications
from celery_monitor.policy import limits_of
from celery_monitor.runtime.committer import Committer
from celery_monitor.runtime.fleet import FleetPoller
from celery_monitor.runtime.flusher import Flusher
from celery_monitor.runtime.maintenance import Maintenance
from celery_monitor.runtime.memory import MemoryWatch
from celery_monitor.runtime.prober import Prober
from celery_monitor.runtime.pump import Pump
from celery_monitor.runtime.schedule import ReportSchedule
from celery_monitor.runtime.standby import Takeover
from celery_monitor.runtime.stream import REPAIR_CAP, Stream

SHARED_REPAIR_CAP: Final = 1.0
"""See Stream: with replicas, such a fault is mostly the previous leader's connection, which is about to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The parts of a leader that run in threads, and the state that they share."""

    monitor: Monitor
    lock: threading.Lock
    """Held during each use of ``monitor`` and ``totals``."""
    totals: CommittedTotals
    stream: Stream
    pump: Pump
    committer: Committer
    notifications: Notifications
    prober: Prober
    fleet: FleetPoller
    maintenance: Maintenance


def build(env: Environment, takeover: Takeover, hand_over: Callable[[str], None]) -> Pipeline:
    """Does no I/O and starts nothing.

    ``hand_over`` is called with the reason when the stream is lost and a standby has the events that are missed.
    """
    settings, broker, lease, lock = env.settings, env.settings.broker, takeover.lease, threading.Lock()
    prober = Prober(BrokerProbe(broker, env.address), env.clock, broker.probe_interval)
    monitor = _restored_monitor(env, takeover, prober.instance)
    shared = monitor, lock, env.clock  # the lock is held during each use of the monitor
    totals = CommittedTotals(monitor.snapshot())
    past_queues = (series.key.queue for series in takeover.restored.series)
    fleet = FleetPoller(
        BrokerFleet(broker, settings.metrics.queues, past_queues, env.address),
        *shared,
        poll_interval=settings.metrics.poll_interval,
        enable_events=broker.enable_events,
    )
    stream = Stream(
        takeover.source,
        *shared,
        prober=prober,
        prefetch=broker.prefetch,
        alive_at=takeover.alive_at,
        opened=fleet.opened,
        may_consume=lease.may_consume,
        # The previous leader's connection ends by itself: nobody has to act.
        repair_cap=SHARED_REPAIR_CAP if env.store.shared else REPAIR_CAP,
    )
    notifications = Notifications(env.channels, env.store, env.clock)
    committer = Committer(env.store, env.clock, env.priority, stored=notifications.stored)

    def committed(changes: Changes) -> None:
        with lock:
            totals.commit(changes)
        notifications.committed(changes)

    flusher = Flusher(
        stream,
        committer,
        *shared,
        priority=env.priority,
        flush_interval=settings.store.flush_interval,
        prefetch=broker.prefetch,
        committed=committed,
        uncommitted=notifications.offer,
    )
    pump = Pump(
        stream,
        flusher,
        *shared,
        marks=env.store.applying,
        prefetch=broker.prefetch,
        arrived=fleet.arrived,
        under_pressure=MemoryWatch(settings.tracking.max_memory, resident).under_pressure,
        lost=lambda: lease.end_reason is not None,
        hand_over=hand_over if lease.contested and not takeover.source.acknowledges else None,
    )
    return Pipeline(
        monitor=monitor,
        lock=lock,
        totals=totals,
        stream=stream,
        pump=pump,
        committer=committer,
        notifications=notifications,
        prober=prober,
        fleet=fleet,
        maintenance=_maintenance(env, monitor, lock, notifications, new=not takeover.restored.counters),
    )


def _restored_monitor(env: Environment, takeover: Takeover, prober: int) -> Monitor:
    """``prober``: the instance that the probe events of this process carry."""
    limits = replace(limits_of(env.settings), redact=env.redaction.patterns, prober=prober)
    monitor = Monitor(limits, takeover.restored, env.clock.now())
    monitor.count(CounterName.STARTS, 1)
    if takeover.gap:
        monitor.count(CounterName.STREAM_GAP, takeover.gap)
    if takeover.restored.rolled_back is not None:
        monitor.count(CounterName.STORE_ROLLED_BACK, 1)
    return monitor


def _maintenance(
    env: Environment, monitor: Monitor, lock: threading.Lock, notifications: Notifications, *, new: bool
) -> Maintenance:
    """``new``: see ReportSchedule."""
    channel, daily = channels.of_report(env.channels)
    # A failure that is read after the end of its silence is still covered by it. Older ones never page.
    kept = max(env.settings.alerts.max_age, MAX_CATCH_UP)
    schedule = ReportSchedule(env.store.outbox, env.store.reader, channel.name, daily.schedule, env.zone, new=new)

    def report(now: float) -> float:
        ask_again_at = schedule.run_once(now)
        notifications.wake()  # once a minute, and when a report was queued
        return ask_again_at

    def read_silences(now: float) -> None:
        silences = env.store.silences.effective(now, now - kept)
        with lock:
            monitor.silence(silences)

    return Maintenance(
        env.store,
        env.store.outbox,
        env.clock,
        report if channel.configured else None,
        channel.name,
        read_silences=read_silences,
    )
