"""Processes each event: decode → track → aggregate → judge. This code runs for every event."""

from collections.abc import Iterable
from copy import copy
from typing import Final

from celery_monitor.core.classify import unregistered_name
from celery_monitor.core.decode import COMPRESSED, CONTENT_TYPE, MALFORMED, Discarded, events_of
from celery_monitor.core.failures import FailureJudge
from celery_monitor.core.model import (
    FAILED,
    MAX_UUID_LENGTH,
    REVOKED,
    STARTED,
    SUCCEEDED,
    UNKNOWN_TASK,
    CounterName,
    Delivery,
    Event,
    Stage,
    TaskRef,
    UnnamedEvent,
)
from celery_monitor.core.parts import PROBE, Parts
from celery_monitor.core.replay import position_of
from celery_monitor.core.stream_clock import StreamClock
from celery_monitor.core.text import printable
from celery_monitor.core.transitions import CANCELLED, KINDS
from celery_monitor.core.workers import KINDS as WORKER_KINDS
from celery_monitor.core.workers import OFFLINE

FUTURE: Final = 86_400.0
"""Maximum seconds that an event's timestamp may be ahead. Beyond that, the time of reading is used."""
_UNREAD: Final = frozenset({COMPRESSED, CONTENT_TYPE})


class Intake:
    """Applies messages to the parts of a monitor. Not thread-safe: it belongs to the monitor."""

    __slots__ = (
        "_add", "_awaited", "_by_host", "_clock", "_finishing", "_likely_queue", "_parts", "_scheduled", "_start",
        "_steps", "_types", "_unnamed_ids", "_worker_started", "arrivals", "failures", "messages", "position", "probes",
    )  # fmt: skip

    def __init__(self, parts: Parts, clock: StreamClock, messages: int) -> None:
        """``messages``: the number of messages read before."""
        self._parts, self._clock, self.messages = parts, clock, messages
        self.failures = FailureJudge(parts.limits, parts.tracker, parts.aggregator, parts.decider, parts.counters)
        self.position: str | None = None
        """Of the newest message, on a stream that names its messages."""
        self.arrivals: list[str] = []
        """Workers that are new or back."""
        self.probes: list[tuple[int, int]] = []
        """(instance, number) of the probes that came in, of any monitor."""
        # Bound once: these are used for every event, and the objects never change.
        self._steps, self._add, self._start = parts.tracker.steps, parts.aggregator.add, parts.starts.note
        self._awaited, self._scheduled, self._unnamed_ids = (
            parts.decider.awaited,
            parts.schedules.by_task,
            parts.unnamed.numbers_by_task,
        )
        self._finishing, self._worker_started = parts.workers.finishing, parts.workers.started
        self._likely_queue = parts.queues.likely_queue
        self._types, self._by_host = parts.counters.types, parts.limits.hostname_label

    def flowing(self) -> None:
        """Record that the stream is open, even if no message has arrived."""
        if not self._clock.watched:
            self._clock.watched = True
            self._parts.workers.stream_interrupted()

    def receive(self, deliveries: Iterable[Delivery], now: float) -> None:
        """Apply messages in order. Never raises, whatever they contain."""
        self._clock.message_read(now)
        self.flowing()
        fingerprints, offsets, names = self._parts.fingerprints, self._parts.workers.offsets, self._parts.workers.names
        task = self._task
        marked, kind_of = fingerprints.on, KINDS.get
        counts = self._parts.counters.task_events
        latest = now + FUTURE
        event: Event | Discarded | None = None
        delivery: Delivery | None = None
        messages = 0
        for delivery in deliveries:
            messages += 1
            if marked and fingerprints.is_redelivered_duplicate(delivery):
                self._parts.counters.discard("redelivered")
                continue
            for event in events_of(delivery):
                if type(event) is Discarded:
                    self._discard(event, delivery)
                    continue
                kind = kind_of(event.type)  # type: ignore[union-attr]  # not Discarded
                if offsets and kind is not None:
                    corrected = event.timestamp + offsets.get(names[event.hostname], 0.0)  # type: ignore[union-attr, operator]
                    event.timestamp = max(0.0, corrected)  # type: ignore[union-attr]
                if event.timestamp > latest:  # type: ignore[union-attr]
                    event.timestamp = now  # type: ignore[union-attr]
                if kind is None:
                    self._count_other(event)  # type: ignore[arg-type]
                else:
                    counts[kind] += 1
                    task(event, kind, now)  # type: ignore[arg-type]
        self.messages += messages
        if delivery is not None and delivery.tag:
            self.position = position_of(delivery)
        if type(event) is Event:
            self._clock.read(event.timestamp)

    def settle(self, events: Iterable[UnnamedEvent]) -> None:
        """Count events that no longer wait for a name: under the name that arrived, or as unknown."""
        overflows, unnamed = self._parts.overflows, self._parts.unnamed
        overflows["unnamed_events"], unnamed.cut = overflows["unnamed_events"] + unnamed.cut, 0
        for unnamed_event in events:
            event = copy(unnamed_event.event)  # a flush may use it
            kind = KINDS[event.type]
            ref = self._parts.tracker.named_run(event.uuid, event.hostname)
            if ref is None and kind == FAILED:
                self._parts.counters.add(CounterName.UNNAMED_FAILURES, 1)
            name, queue = (UNKNOWN_TASK, None) if ref is None else (ref.name or UNKNOWN_TASK, ref.queue)
            self._count(event, kind, name, queue, unnamed_event.measured, self._clock.now)

    def notice(self, hostname: str, now: float) -> None:
        """Record a sign of life of a worker other than a heartbeat."""
        if self._parts.workers.notice(hostname, self._clock.watched_for, now):
            self.arrivals.append(self._parts.workers.names[hostname])

    def _task(self, event: Event, kind: int, now: float) -> None:
        uuid = event.uuid
        step = self._steps[kind](event, kind) if uuid else None
        if step is None:
            self._parts.counters.discard("duplicate" if uuid else MALFORMED)
            return
        ref, measured = step
        uuid, name = event.uuid, ref.name  # an ID that was too long is shortened now
        if kind >= STARTED:
            if kind == STARTED and self._worker_started(event.hostname) and self._clock.is_live(now):
                self.notice(event.hostname, now)
            if self._finishing and (ref.started_at or kind != REVOKED):
                self._parts.workers.finish(event.hostname, event.timestamp, started=kind == STARTED)
        if (
            name is not None
            and kind != FAILED
            and kind < CANCELLED
            and not self._by_host
            and name not in self._scheduled
        ):
            # Nearly every event: the same as ``_count``, which would take two more calls.
            at = event.timestamp
            self._add(kind, name, ref.queue or self._likely_queue(name, event.hostname), "", at, measured)
            if kind == STARTED:
                self._start(name, at)
            elif kind == SUCCEEDED and name in self._awaited:
                self._parts.decider.succeeded(name, at)
        else:
            self._count_any(event, kind, ref, measured, now)
        if self._unnamed_ids and uuid in self._unnamed_ids and ref.name is not None:
            self.settle(self._parts.unnamed.release_task(uuid))

    def _count_any(self, event: Event, kind: int, ref: TaskRef, measured: float | None, now: float) -> None:
        """Count an event of any kind, whose task may have no name yet."""
        if kind == FAILED and ref.name is None:
            ref.name = self._name_in(event)
        if kind == CANCELLED:
            if ref.name is not None:
                self._parts.conditions.cancelled(event.uuid, ref, event.timestamp)
        elif ref.name is not None:
            self._count(event, kind, ref.name, ref.queue, measured, now)
        else:
            may_be_held = ref.stage < Stage.SUCCEEDED
            self.settle(self._parts.unnamed.hold(event, measured, now, may_be_held=may_be_held))

    def _name_in(self, event: Event) -> str | None:
        """The task name in the failure itself. For a task that no worker has registered, it may be the only name."""
        name = unregistered_name(event.exception)
        return None if name is None else self._parts.tracker.name(name)

    def _count(  # noqa: PLR0917  # the hot path: one call an event
        self, event: Event, kind: int, name: str, queue: str | None, measured: float | None, now: float
    ) -> None:
        at = event.timestamp
        queue = queue or self._likely_queue(name, event.hostname)
        host = self._parts.hosts.record(event.hostname, self._clock.watched_for) if self._by_host else ""
        row = self._add(kind, name, queue, host, at, measured)
        if kind == STARTED:
            self._start(name, at)
        elif kind == FAILED:
            uuid = printable(event.uuid, MAX_UUID_LENGTH)
            if uuid is not event.uuid:
                event.uuid = uuid
            exception = self.failures.judge(event, name, queue, now)
            self._parts.aggregator.add_failure(row, exception, uuid, at)
        elif kind == SUCCEEDED and name in self._awaited:
            self._parts.decider.succeeded(name, at)
        if name in self._scheduled:
            hostname = self._parts.workers.names[event.hostname]
            self._parts.schedules.observe(kind, name, event.uuid, at, hostname, measured)

    def _discard(self, discarded: Discarded, delivery: Delivery) -> None:
        self._parts.counters.discard(discarded.reason)
        if discarded.reason in _UNREAD:
            self._parts.undecodable.note(discarded.reason, delivery.content_type)

    def _count_other(self, event: Event) -> None:
        kind, clock, workers = event.type, self._clock, self._parts.workers
        if kind in WORKER_KINDS:
            clock.heard(event.timestamp)
            if workers.apply(event, clock.watched_for):
                self.arrivals.append(workers.names[event.hostname])
            if kind != OFFLINE and clock.is_live(clock.now):
                workers.observe_clock(event, clock.now)
        elif kind == PROBE:
            self.probes.append((event.probe_instance or 0, event.probe_number or 0))
            self._parts.counters.probed(event.probe_instance, event.timestamp)
            if event.probe_instance == self._parts.limits.prober:
                clock.probed(event.timestamp)
        else:
            self._parts.counters.custom(kind)
            return
        self._types[kind] = self._types.get(kind, 0) + 1
