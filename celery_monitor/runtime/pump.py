"""The main loop: stream → monitor → commit → ack. Nothing is acknowledged before it is committed.

When a part fails, messages wait where they are. Without a broker, ``Stream`` reconnects forever and the loop keeps
ticking; without a store, ``Flusher`` keeps the changes taken from the monitor and retries the commit.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from celery_monitor.core.decide import Notice
from celery_monitor.core.episodes import EpisodeNotice
from celery_monitor.core.model import CounterName, Reason
from celery_monitor.core.monitor import Monitor
from celery_monitor.errors import SourceLostError
from celery_monitor.ports import Batch, Clock, CrashMarks
from celery_monitor.runtime.applier import Applier
from celery_monitor.runtime.flusher import PAGE_FLUSH_DELAY, Flusher
from celery_monitor.runtime.read_pacing import BATCH, READ_INTERVAL, ReadPacing
from celery_monitor.runtime.stream import Stream

MAX_POLL: Final = 0.25
TICK: Final = 1.0

_log = structlog.get_logger()


class Pump:
    """Feeds the monitor. ``lock`` is held during each use of it."""

    def __init__(
        self,
        stream: Stream,
        flusher: Flusher,
        monitor: Monitor,
        lock: threading.Lock,
        clock: Clock,
        *,
        marks: CrashMarks,
        prefetch: int,
        arrived: Callable[[Sequence[str]], None] = lambda _: None,
        under_pressure: Callable[[], bool] = lambda: False,
        lost: Callable[[], bool] = lambda: False,
        hand_over: Callable[[str], None] | None = None,
    ) -> None:
        """Does no I/O.

        ``arrived`` is called with the hostnames of workers that are new or back, and must not block. ``under_pressure``
        returns whether memory runs short. ``lost`` returns, at the end, whether another process leads; then nothing
        more is committed. ``hand_over`` is given if a standby buffers the events that this process misses: it is called
        with the reason when the stream is lost, after everything applied was committed.
        """
        self._stream = stream
        self._flusher = flusher
        self._monitor = monitor
        self._lock = lock
        self._clock = clock
        self._applier = Applier(monitor, lock, clock, marks)
        self._pacing = ReadPacing(min(BATCH, prefetch // 4))
        self._arrived = arrived
        self._under_pressure = under_pressure
        self._lost = lost
        self._hand_over = hand_over
        self._applied = False
        """Whether any message has been applied."""
        self._tick_at = 0.0

    def run(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        """Run until ``stop`` is set; then commit, acknowledge and close, within STOP_TIMEOUT plus 2 s.

        A process that no longer leads commits nothing and drops the connection.
        """
        try:
            while not stop.is_set():
                heartbeat()
                self.run_once(stop)
            if self._lost():
                self._stream.abandon()
            else:
                self._flusher.finish()
                self._stream.close()
        finally:
            self._flusher.close()

    def run_once(self, stop: threading.Event) -> None:
        """Connect or read, then do what is due. Waits at most a quarter of a second, except to connect."""
        if self._stream.stats.connected:
            self._wait_for_batch(stop)
            if not self._read():
                return  # from now on the other process counts
        else:
            self._connect(stop)
        mono = self._clock.monotonic()
        if mono >= self._tick_at:
            self._tick(mono)
        self._flusher.run_once()

    def _connect(self, stop: threading.Event) -> None:
        wait = MAX_POLL if self._flusher.full else self._stream.retry_in
        if wait > 0:
            stop.wait(min(wait, MAX_POLL))
        else:
            self._stream.connect()

    def _wait_for_batch(self, stop: threading.Event) -> None:
        """Wait a moment, so that one read returns several messages."""
        wait = self._pacing.next_at - self._clock.monotonic()
        if wait > 0:
            stop.wait(min(wait, READ_INTERVAL))

    def _read(self) -> bool:
        """Read and apply; False if the stream was handed over to another process."""
        due_in = min(self._tick_at, self._flusher.due_at) - self._clock.monotonic()
        try:
            batch = self._stream.poll(max(0.0, min(due_in, MAX_POLL)))
        except SourceLostError as exc:
            if self._hand_over is None:
                self._flusher.seal()
            else:
                self._flusher.finish()
                self._hand_over(str(exc))
                return False
            return True
        if batch is not None:
            arrived_at = self._clock.monotonic()
            urgent = self._apply(batch)
            size = sum(len(delivery.body) for delivery in batch.deliveries)
            max_pause = PAGE_FLUSH_DELAY if urgent else READ_INTERVAL
            self._pacing.note(len(batch.deliveries), size, arrived_at, max_pause)
        return True

    def _apply(self, batch: Batch) -> bool:
        """Apply a batch; whether it has to be committed soon."""
        self._applier.apply(batch.deliveries, marking=self._stream.acknowledges)
        with self._lock:
            probes, arrivals = self._monitor.take_probes(), self._monitor.take_arrivals()
            pages = self._monitor.pages
        # The first commit shows other processes that this one counts.
        urgent = bool(pages) or not self._applied
        if urgent:
            self._flusher.expedite()
        self._applied = True
        self._stream.probes_returned(probes)
        if arrivals:
            _log.info("New workers found", workers=arrivals[:20], number=len(arrivals))
            self._arrived(arrivals)
        return urgent

    def _tick(self, mono: float) -> None:
        now = self._clock.now()
        self._stream.tick(now)
        under_pressure = self._under_pressure()
        with self._lock:
            self._monitor.tick(now)
            if under_pressure:
                self._monitor.shed_load()
            if self._tick_at:
                elapsed = min(mono - self._tick_at + TICK, 2 * TICK)
                self._monitor.count(CounterName.UPTIME, elapsed, flush=False)
            notices, episodes = self._monitor.take_notices(), self._monitor.take_episode_notices()
        self._tick_at = mono + TICK
        for notice in notices:
            _log_notice(notice)
        for episode in episodes:
            _log_episode(episode)


def _log_notice(notice: Notice) -> None:
    too_old = notice.verdict.reason is Reason.TOO_OLD
    log = (_log.warning if too_old else _log.info) if notice.verdict.changed else _log.debug
    log(
        "A task failed",
        task=notice.task,
        uuid=notice.uuid,
        error=notice.exception,
        reason=notice.verdict.reason.value,
        incident=notice.verdict.incident,
    )


def _log_episode(notice: EpisodeNotice) -> None:
    _log.info(
        "A condition holds" if notice.reason is not None else "A condition no longer holds",
        condition=notice.condition.value,
        subject=notice.subject,
        rule=notice.rule,
        summary=notice.summary,
        reason=None if notice.reason is None else notice.reason.value,
        incident=notice.incident,
    )
