"""Housekeeping of the store: deletes what exceeds the retention, queues the report when due, measures the outbox."""

import threading
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from celery_monitor.errors import StoreUnavailableError
from celery_monitor.ports import Clock, Outbox, Store, StoreSpace

CHECK_INTERVAL: Final = 2.0
"""Seconds between two turns while the store is short of space and is pruned in each, or while a report is due soon."""
IDLE_INTERVAL: Final = 4.0
"""Seconds between two turns otherwise. The documentation promises that a silence takes effect within 5 s."""
PRUNE_INTERVAL: Final = 60.0
MAX_READING_AGE: Final = 60.0
"""Maximum seconds between two checks of the report's schedule: the wall clock may have been set meanwhile."""

_log = structlog.get_logger()


class Maintenance:
    """The housekeeping loop. Holds no data except its last reading of the outbox, for the metrics."""

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        clock: Clock,
        report: Callable[[float], float] | None = None,
        channel: str = "",
        *,
        read_silences: Callable[[float], None] = lambda _: None,
    ) -> None:
        """``report`` queues a report that is due and returns when to call it again; None if no report is sent.

        ``channel`` carries the report. ``read_silences`` is called in each turn with the time, and passes the silences
        that people have added to the monitor. It may raise StoreUnavailableError.
        """
        self.pending: Mapping[str, tuple[int, float | None]] = {}
        self.report_last_success: float | None = None
        """Unix seconds; also None if no report is configured: earlier ones must not make it look overdue."""
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._report = report
        self._channel = channel
        self._read_silences = read_silences
        self._report_at = 0.0
        self._prune_at = 0.0
        self._short = False

    def run(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        """Until ``stop`` is set."""
        while not stop.is_set():
            heartbeat()
            try:
                self.run_once()
            except StoreUnavailableError as exc:
                _log.debug("Housekeeping is waiting for the store", error=str(exc))
            stop.wait(self._pause())

    def _pause(self) -> float:
        """Seconds to the next turn. A due report waits at most CHECK_INTERVAL."""
        if self._short:
            return CHECK_INTERVAL
        report_in = IDLE_INTERVAL if self._report is None else self._report_at - self._clock.monotonic()
        return min(IDLE_INTERVAL, max(CHECK_INTERVAL, report_in))

    def run_once(self) -> None:
        """Do what is due. Raises StoreUnavailableError."""
        now, mono = self._clock.now(), self._clock.monotonic()
        # First, because on a full disk the rest may fail.
        space = self._store.space()
        self._log_space(space)
        self._read_silences(now)
        if mono >= self._prune_at or space.short:
            self._prune_at = mono + PRUNE_INTERVAL
            self._store.prune(now)
        if self._report is not None and mono >= self._report_at:
            self._report_at = mono + min(max(0.0, self._report(now) - now), MAX_READING_AGE)
        self.pending = self._outbox.pending()
        if self._report is not None:
            self.report_last_success = self._outbox.last_delivered(self._channel)

    def _log_space(self, space: StoreSpace) -> None:
        """Log once when space becomes short, and once when there is enough again."""
        if space.short and not self._short:
            _log.warning(
                "The store is short of space: the oldest samples of failures are dropped first, then error groups "
                "and old counts. Raise store.max_bytes, enlarge the volume, or shorten store.retention",
                used=space.used,
                limit=space.limit,
                room=space.room,
            )
        elif self._short and not space.short:
            _log.info("The store has enough space again", used=space.used, room=space.room, given_up=space.given_up)
        self._short = space.short
