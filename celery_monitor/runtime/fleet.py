"""Polls the workers and queues: enables task events, reads running tasks, queue lengths and consumers.

Remote control is slow and may fail, so it has a thread of its own and nothing waits for it.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

import structlog

from celery_monitor.core.model import QueueStats, WorkerDetail
from celery_monitor.core.monitor import Monitor
from celery_monitor.core.workers import MAX_WORKERS
from celery_monitor.errors import SourceLostError
from celery_monitor.ports import Clock, FleetControl
from celery_monitor.runtime.fleet_findings import FleetFindings
from celery_monitor.runtime.inspect_policy import InspectBackoff, NewWorkers
from celery_monitor.runtime.registered_tasks import RegisteredTasks

ENABLE_INTERVAL: Final = 60.0
"""Seconds between two requests to all workers to send task events, for workers whose start went unnoticed."""
MIN_ENABLE_INTERVAL: Final = 1.0
"""Minimum seconds between two requests to send task events, however many workers start."""
MIN_INSPECT_INTERVAL: Final = 3.0
"""Minimum seconds between two inspections of the workers' tasks; doubled by each that yields no name."""
MAX_INSPECT_INTERVAL: Final = 300.0
ENABLE_RETRY_INTERVAL: Final = 3.0
"""Seconds after which a failed request is repeated."""
MAX_NEW_PER_ROUND: Final = 500
"""Maximum number of new workers that one request addresses."""
POLLS_MISSED: Final = 4
"""Missed polls after which no queue is reported, because old lengths would look current."""
MAX_POLL: Final = 10.0
"""Seconds that a poll may take before it counts as missed, if the poll interval is shorter."""
INSPECT_TIMEOUT: Final = 2.0
"""Seconds to wait for answers of the workers."""
DISCARDED_INTERVAL: Final = 600.0
"""Minimum seconds between two log lines about discarded replies."""
STREAM_HEAD_START: Final = 5.0
"""Seconds after the start in which nothing is requested except the inspection of tasks once the stream is open. Until
it is answered, failures of tasks that began earlier have no name, so other requests must not delay it."""
_LATE: Final = "late"
"""The only reason to discard a reply that indicates no fault."""

_log = structlog.get_logger()


class FleetPoller:
    """Drives a FleetControl. ``lock`` is held during each use of the monitor."""

    def __init__(  # its wiring
        self,
        control: FleetControl,
        monitor: Monitor,
        lock: threading.Lock,
        clock: Clock,
        *,
        poll_interval: float,
        enable_events: bool,
    ) -> None:
        """Does no I/O. ``poll_interval`` in seconds."""
        self.error: str | None = None
        self._control = control
        self._monitor = monitor
        self._lock = lock
        self._clock = clock
        self._poll_interval = poll_interval
        self._enable_events = enable_events
        self._queues: tuple[float, Sequence[QueueStats]] = (0.0, ())
        """Monotonic time of the last poll, and its result."""
        self._details: Mapping[str, WorkerDetail] = {}
        self._fresh = POLLS_MISSED * max(poll_interval, MAX_POLL)
        self._wake = threading.Event()
        self._backoff, self._new_workers = InspectBackoff(), NewWorkers()
        self._findings = FleetFindings()
        self._registered = RegisteredTasks()
        self._arrivals: deque[str] = deque(maxlen=MAX_WORKERS)
        """Workers that started or came back since the last turn. Filled by another thread."""
        self._opened = False
        self._just_opened = False
        """The workers have not been inspected yet since the stream opened."""
        self._late: set[str] = set()
        """Workers that send task events only since we requested it: the tasks that they already held have no name."""
        self._tasks_at = 0.0
        self._names_at = 0.0
        self._inspect_interval = MIN_INSPECT_INTERVAL
        """Seconds to the next inspection for the names of tasks without one."""
        self._enable_at = 0.0
        self._enabled_at = -MIN_ENABLE_INTERVAL
        self._enable_new_at = 0.0
        self._queues_at = 0.0
        self._logged_discarded = 0
        self._log_discarded_at = 0.0

    @property
    def finding(self) -> str | None:
        """What is wrong with the workers' answers or events, and what to do; None when nothing is."""
        return self._findings.finding

    def queues(self) -> Sequence[QueueStats]:
        """As of the last poll; empty when that was too long ago."""
        polled_at, queues = self._queues
        return queues if self._clock.monotonic() - polled_at <= self._fresh else ()

    def details(self) -> Mapping[str, WorkerDetail]:
        """What each worker last reported about itself, by hostname."""
        return self._details

    def discarded(self) -> Mapping[str, int]:
        """Number of discarded replies, by reason."""
        return dict(self._control.discarded)

    def arrived(self, hostnames: Collection[str] = ()) -> None:
        """These workers are new or back, and may not send task events yet. From any thread."""
        self._arrivals.extend(hostnames)
        self._registered.renew()
        self._wake.set()

    def opened(self) -> None:
        """The stream is open: tasks that the workers already hold have no name until inspected. From any thread."""
        self._opened = self._just_opened = True
        self._enable_at = 0.0
        self.arrived()

    def interrupt(self) -> None:
        """End a request in progress, because the thread is to stop."""
        self._wake.set()
        self._control.close()

    def run(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        """Poll until ``stop`` is set."""
        try:
            self._await_stream(stop, heartbeat)
            while not stop.is_set():
                heartbeat()
                self.run_once(stop)
                self._wake.wait(1.0)
                self._wake.clear()
        finally:
            self._control.close()

    def _await_stream(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        """Connect for remote control meanwhile, so that the first request goes out as soon as the stream is open."""
        deadline = self._clock.monotonic() + STREAM_HEAD_START
        try:
            self._control.open()
        except SourceLostError as exc:
            self._fail(exc, stop)
        while not (stop.is_set() or self._opened) and (remaining := deadline - self._clock.monotonic()) > 0:
            heartbeat()
            self._wake.wait(min(remaining, 1.0))
            self._wake.clear()

    def run_once(self, stop: threading.Event) -> None:
        """Do what is due."""
        mono = self._clock.monotonic()
        if arrivals := [self._arrivals.popleft() for _ in range(len(self._arrivals))]:
            self._backoff.worker_arrived()
            self._enable_new_at = min(self._enable_new_at, mono)
            if self._enable_events:
                self._new_workers.add(arrivals, mono)
        try:
            self._ask(mono)
        except SourceLostError as exc:
            self._fail(exc, stop)
        self._log_discarded(mono)

    def _fail(self, exc: SourceLostError, stop: threading.Event) -> None:
        if self.error is None and not stop.is_set():
            _log.warning("Cannot query the workers", error=str(exc))
        self.error = str(exc)

    def _ask(self, mono: float) -> None:
        self._inspect_on_connect(mono)
        poll = mono >= self._queues_at
        if poll:
            self._queues_at = mono + self._poll_interval
        active_workers = (
            self._active_workers() if poll or mono >= min(self._enable_at, self._enable_new_at) else frozenset()
        )
        if not self._backoff.proven:
            if mono >= self._enable_new_at and self._backoff.allows(mono, active_workers=bool(active_workers)):
                self._enable_new_workers(mono, active_workers)
        elif self._enable_events:
            self._enable(mono, active_workers)
        self._inspect_on_connect(mono)  # the stream may have opened during the request above
        if self._backoff.proven:
            if (self._opened or self._late) and mono >= self._tasks_at:
                self._tasks_at = mono + self._poll_interval
                self._learn_tasks()
            elif self._monitor.has_unnamed and mono >= self._names_at:
                self._learn_tasks()
        if poll:
            self._learn_queues(mono, active_workers)
            self._confirm_runs()

    def _inspect_on_connect(self, mono: float) -> None:
        """Inspect the workers' tasks before anything else is requested on a stream that has just opened.

        On Redis the events that named these tasks may be lost. By subscribing first and inspecting then, only tasks
        that end before the answer stay without a name.
        """
        if not self._just_opened:
            return
        self._just_opened = False
        active_workers = bool(self._active_workers())
        if not self._backoff.allows(mono, active_workers=active_workers):
            return
        self._tasks_at = mono + self._poll_interval  # in case it fails
        answered = self._learn_tasks()
        self._tasks_at = 0.0
        self._backoff.note_inspection(mono, active_workers=active_workers, answered=answered)
        if not self._backoff.proven:
            self._opened = True  # inspect again as soon as any worker answers

    def _active_workers(self) -> AbstractSet[str]:
        with self._lock:
            return self._monitor.up()

    def _enable_new_workers(self, mono: float, active_workers: AbstractSet[str]) -> None:
        """Send one request to all workers to find out whether any answers."""
        self._enable_new_at = mono + ENABLE_RETRY_INTERVAL  # if it fails
        answered = self._enable_events_on(mono, ()) if self._enable_events else self._control.ping(INSPECT_TIMEOUT)
        self._backoff.note_inspection(mono, active_workers=bool(active_workers), answered=bool(answered))
        if not self._new_workers.any_waiting:
            self._enable_new_at = mono + self._poll_interval
        self._findings.update(self._backoff)

    def _enable(self, mono: float, active_workers: AbstractSet[str]) -> None:
        if mono - self._enabled_at < MIN_ENABLE_INTERVAL:
            return
        if mono >= self._enable_at:
            if self._backoff.allows(mono, active_workers=bool(active_workers)):
                self._enable_events_on(mono, ())
        elif due := self._new_workers.due(mono, MAX_NEW_PER_ROUND):
            self._enable_events_on(mono, due)

    def _enable_events_on(self, mono: float, hostnames: Sequence[str]) -> AbstractSet[str]:
        """Request task events from these workers, or all; return the hostnames of those that answered."""
        self._enabled_at = mono
        if not hostnames:
            self._enable_at = mono + ENABLE_RETRY_INTERVAL  # if it fails
        # Short for new workers: those that start meanwhile have to wait for the next request.
        answered = self._control.enable_events(1.0 if hostnames else INSPECT_TIMEOUT, hostnames)
        if not hostnames:
            self._enable_at = mono + ENABLE_INTERVAL
        self._new_workers.remove(answered)
        if not self._opened:
            self._late |= {hostname for hostname, enabled in answered.items() if enabled}
        return answered.keys()

    def _learn_queues(self, mono: float, active_workers: AbstractSet[str]) -> None:
        with self._lock:
            down = self._monitor.down()
        if not self._backoff.proven or not self._backoff.allows(mono, active_workers=bool(active_workers)):
            lengths = self._control.lengths(self._clock.monotonic(), down=down)
            self._queues = self._clock.monotonic(), lengths
            with self._lock:
                self._monitor.polled(lengths)
            self.error = None
            return
        queues = self._control.queues(INSPECT_TIMEOUT, self._clock.monotonic(), down)
        self._queues = self._clock.monotonic(), queues
        answered = self._control.responders
        self._backoff.note_inspection(mono, active_workers=bool(active_workers), answered=bool(answered))
        if answered:
            with self._lock:
                messages = self._monitor.fleet_messages(self._clock.now())
            self._findings.round(mono, active_workers, answered, messages)
        self._findings.update(self._backoff)
        consumed = self._control.worker_queues()
        self._note_details(consumed, down)
        with self._lock:
            self._monitor.note_answers(answered, self._control.busy)
            self._monitor.polled(queues)
            self._monitor.learn_queues(consumed)
        self._learn_names(consumed.keys())
        self.error = None

    def _note_details(self, queues: Mapping[str, Sequence[str]], down: Container[str]) -> None:
        """A worker that did not answer keeps its last details until it is down."""
        details = dict.fromkeys(queues, WorkerDetail()) | dict(self._control.details)
        now = self._clock.now()
        remaining = {hostname: detail for hostname, detail in self._details.items() if hostname not in down}
        remaining |= {
            hostname: replace(detail, queues=tuple(queues.get(hostname, ())), answered_at=now)
            for hostname, detail in details.items()
            if hostname in self._control.responders
        }
        self._details = dict(list(remaining.items())[-MAX_WORKERS:])

    def _log_discarded(self, mono: float) -> None:
        discarded = Counter(self.discarded())
        discarded.pop(_LATE, None)
        if discarded.total() > self._logged_discarded and mono >= self._log_discarded_at:
            self._logged_discarded, self._log_discarded_at = discarded.total(), mono + DISCARDED_INTERVAL
            _log.warning("Discarded replies from workers", discarded=dict(discarded))

    def _learn_names(self, hostnames: AbstractSet[str]) -> None:
        hosts = self._registered.due(hostnames, self._clock.monotonic())
        if not hosts:
            return
        names = self._control.registered(hosts, INSPECT_TIMEOUT)
        self._registered.learned(names)
        with self._lock:
            self._monitor.learn_names(names, self._control.unreported)

    def _confirm_runs(self) -> None:
        """Ask the workers which long-running tasks they still hold: some may have ended without an event."""
        with self._lock:
            hosts, fetched = self._monitor.to_confirm(), self._monitor.judges_waits
        if not hosts:
            return
        # No request where no worker answers remote control at all.
        held = self._control.held_task_ids(hosts, INSPECT_TIMEOUT, fetched=fetched) if self._backoff.proven else {}
        with self._lock:
            self._monitor.confirm(hosts, held)

    def _learn_tasks(self) -> bool:
        """Inspect the tasks of the workers; whether any worker answered."""
        opened, self._opened = self._opened, False
        late, self._late = self._late, set()
        try:
            tasks = self._control.tasks(INSPECT_TIMEOUT, () if opened else sorted(late))
        except SourceLostError:
            self._opened, self._late = opened or self._opened, late
            raise
        answered = bool(self._control.responders)
        named = 0
        with self._lock:
            waited = self._monitor.has_unnamed
            if answered:
                named = self._monitor.learn_tasks(tasks)
        self._inspect_interval = (
            MIN_INSPECT_INTERVAL if named or not waited else min(2 * self._inspect_interval, MAX_INSPECT_INTERVAL)
        )
        self._names_at = self._clock.monotonic() + self._inspect_interval
        _log.info("Inspected the tasks of the workers", tasks=len(tasks), named=named)
        return answered
