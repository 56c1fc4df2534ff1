"""What is asked of the fleet in the background: task events on, names of what runs, queues and consumers.

Slow and fallible, so it has a thread of its own and nothing waits for it.
"""

import math
import threading
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import structlog

from celery_monitor.core.model import QueueStats
from celery_monitor.core.monitor import Monitor
from celery_monitor.errors import SourceLostError
from celery_monitor.ports import Clock, FleetControl

ENABLE_EVERY: Final = 60.0
"""Seconds after which workers are asked again: one that came unnoticed sends no task events until then."""
ENABLE_APART: Final = 3.0
"""Least seconds between two requests, however many workers come."""
NAMES_APART: Final = 3.0
"""Least seconds between two questions for what workers hold; each one that names nothing doubles them."""
LONGEST_NAMES_APART: Final = 300.0
NAMES_AT_ONCE: Final = 20
"""Workers that are asked for the names of their tasks at a time: an answer has tens of kilobytes."""
POLLS_MISSED: Final = 4
"""After so many the queues are not told any more: a length of an hour ago would look like one of now."""
LONGEST_POLL: Final = 10.0
"""Seconds that a poll may take before it counts as missed, where it is asked for more often."""
PATIENCE: Final = 2.0
"""Seconds that workers have to answer."""

_log = structlog.get_logger()


class FleetWatch:
    """Drives a FleetControl. ``lock`` is held over each use of the monitor."""

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
        """When they were looked at last, in monotonic time, and what was found."""
        self._fresh = POLLS_MISSED * max(poll_interval, LONGEST_POLL)
        self._wake = threading.Event()
        self._came = False
        self._opened = False
        self._renewed = False
        self._named: set[str] = set()
        """Workers whose tasks' names are known."""
        self._asked: dict[str, float] = {}
        """When each worker was last asked for them, in monotonic time."""
        self._tasks_at = 0.0
        self._names_at = 0.0
        self._names_apart = NAMES_APART
        """Seconds to the next question for the names of what waits for one."""
        self._enable_at = 0.0
        self._enabled_at = -ENABLE_APART
        self._queues_at = 0.0

    def queues(self) -> Sequence[QueueStats]:
        """As of the last look; none when that was long ago."""
        looked_at, queues = self._queues
        return queues if self._clock.monotonic() - looked_at <= self._fresh else ()

    def arrived(self) -> None:
        """A worker is new or back: it may have to be asked for task events. From any thread."""
        self._came = self._renewed = True
        self._wake.set()

    def opened(self) -> None:
        """The stream is open: what the workers hold now may have no name yet. From any thread."""
        self._opened = True
        self.arrived()

    def interrupt(self) -> None:
        """End a question under way: it is time to stop."""
        self._wake.set()
        self._control.close()

    def run(self, stop: threading.Event, turned: Callable[[], None]) -> None:
        """Until ``stop`` is set."""
        while not stop.is_set():
            turned()
            self.turn(stop)
            self._wake.wait(1.0)
            self._wake.clear()
        self._control.close()

    def turn(self, stop: threading.Event) -> None:
        """Do what is due."""
        mono = self._clock.monotonic()
        enable = self._enable_events and (mono >= self._enable_at or self._came)
        try:
            if enable and mono - self._enabled_at >= ENABLE_APART:
                self._came = False
                self._enabled_at, self._enable_at = mono, 0.0  # again soon, should it fail
                self._control.enable_events()
                self._enable_at = mono + ENABLE_EVERY
            if self._opened and mono >= self._tasks_at:
                self._tasks_at = mono + self._poll_interval
                self._learn_tasks()
            elif self._monitor.wants_names and mono >= self._names_at:
                self._learn_tasks()
            if mono >= self._queues_at:
                self._queues_at = mono + self._poll_interval
                self._learn_queues()
        except SourceLostError as exc:
            if self.error is None and not stop.is_set():
                _log.warning("The fleet cannot be asked", error=str(exc))
            self.error = str(exc)

    def _learn_queues(self) -> None:
        with self._lock:
            down = self._monitor.down()
        queues = self._control.queues(PATIENCE, self._clock.monotonic(), down)
        self._queues = self._clock.monotonic(), queues
        consumed = self._control.worker_queues()
        with self._lock:
            self._monitor.learn_queues(consumed)
        self._learn_names(consumed.keys())
        self.error = None

    def _learn_names(self, hostnames: AbstractSet[str]) -> None:
        """Of some workers at a time; of all again when one has come: it may have been there before, with other code.

        Those that were asked longest ago come first: who does not answer is asked again, and keeps out nobody else.
        """
        if self._renewed:
            self._renewed = False
            self._named.clear()
        self._named &= hostnames
        unnamed = [hostname for hostname in hostnames if hostname not in self._named]
        if not unnamed:
            return
        chosen = sorted(unnamed, key=lambda hostname: self._asked.get(hostname, -math.inf))[:NAMES_AT_ONCE]
        asked = {hostname: at for hostname, at in self._asked.items() if hostname in hostnames}
        self._asked = asked | dict.fromkeys(chosen, self._clock.monotonic())
        names = self._control.registered(chosen, PATIENCE)
        self._named |= names.keys()
        with self._lock:
            self._monitor.learn_names(names)

    def _learn_tasks(self) -> None:
        self._opened = False
        try:
            tasks = self._control.tasks(PATIENCE)
        except SourceLostError:
            self._opened = True
            raise
        with self._lock:
            waited = self._monitor.wants_names
            named = self._monitor.learn_tasks(tasks)
        self._names_apart = NAMES_APART if named or not waited else min(2 * self._names_apart, LONGEST_NAMES_APART)
        self._names_at = self._clock.monotonic() + self._names_apart
        _log.info("Asked the workers what they hold", tasks=len(tasks), named=named)
