"""The loop at the heart: source → monitor → commit → ack. Nothing is acknowledged before it is committed.

Whatever fails, messages wait where they are. The broker gone: reconnect for ever, with capped and jittered backoff,
and go on ticking. The store gone: what was taken from the monitor is kept as it is and written again; nothing is
acknowledged, so the broker stops delivering when the prefetch is used up.
"""

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from celery_monitor.core import backoff
from celery_monitor.core.model import Changes, Enqueue, Incident, Reason
from celery_monitor.core.monitor import Monitor
from celery_monitor.errors import SourceLostError
from celery_monitor.ports import Batch, Clock, EventSource, Marks
from celery_monitor.runtime.applier import Applier
from celery_monitor.runtime.committer import GLANCE, Committer, Flush
from celery_monitor.runtime.prober import Prober
from celery_monitor.runtime.unwritten import PATIENCE

LONGEST_POLL: Final = 0.25
GATHER: Final = 0.02
"""Seconds from one read to the next while the stream is slow: waking up for each message costs many times what reading
it does."""
BUSY: Final = 100
"""A read that brings this many messages is followed by the next one at once."""
TICK: Final = 1.0
SIGN_OF_LIFE: Final = 10.0
"""Seconds after which a flush is written even when nothing happened: the store then knows until when we watched."""
LONGEST_YIELD: Final = 0.05
"""Seconds that a flush gives way to a scrape: at once, each takes as long as both one after the other."""
PROMPT: Final = 0.05
"""Seconds that a page may wait for its commit: what fails in the same moment is told with it."""
STOP_PATIENCE: Final = 4.0
STEADY: Final = 2.0
"""Seconds that a connection has to last: one that breaks sooner was another attempt that failed."""
RECONNECT_CAP: Final = 5.0
"""Seconds between two attempts at most: without acknowledgements each of them is lost."""
REPAIR_CAP: Final = 30.0
"""The same where a person has to act first."""
MOST_HELD: Final = 64 * 1024 * 1024
"""Bytes of those changes together."""
MOST_UNWRITTEN: Final = 20
"""Connections whose changes may wait for the store: each leaves its own, and no bound of the broker's holds those."""

_log = structlog.get_logger()


@dataclass(slots=True)
class Figures:
    """What the pump knows of itself; written by its thread, read by others."""

    connected: bool = False
    live: bool = False
    """A message has come on this connection, a probe at least; or none need come, because none may be sent."""
    error: str | None = None
    """Why the stream is not there."""
    standby: str | None = None
    """Why nothing comes on it, although all is well: another monitor is served."""
    unacked: int = 0


class Pump:
    """Owns the source and feeds the monitor. ``lock`` is held over each use of the monitor."""

    def __init__(  # it is the meeting point of all ports
        self,
        source: EventSource,
        committer: Committer,
        monitor: Monitor,
        lock: threading.Lock,
        clock: Clock,
        *,
        prober: Prober | None,
        marks: Marks,
        flush_interval: float,
        prefetch: int,
        alive_at: float | None = None,
        committed: Callable[[Changes], None] = lambda _: None,
        opened: Callable[[], None] = lambda: None,
        arrived: Callable[[Sequence[str]], None] = lambda _: None,
        scraped: Callable[[], bool] = lambda: False,
        pressed: Callable[[], bool] = lambda: False,
        unwritten: Callable[[list[tuple[Enqueue, Incident]]], None] = lambda _: None,
    ) -> None:
        """Does no I/O.

        ``alive_at``: when an earlier run was last known to watch. ``committed`` is called after each commit,
        ``opened`` when the stream is open, ``arrived`` when a worker is new or back: none of them may block.
        ``scraped`` says whether a scrape is under way, ``pressed`` whether memory runs short. ``unwritten`` gets what
        is to be sent while the store is away.
        """
        self.figures = Figures()
        self._source = source
        self._committer = committer
        self._monitor = monitor
        self._lock = lock
        self._clock = clock
        self._prober = prober
        self._applier = Applier(monitor, lock, clock, marks)
        self._flush_interval = flush_interval
        self._prefetch = prefetch
        self._committed = committed
        self._opened = opened
        self._arrived = arrived
        self._scraped = scraped
        self._pressed = pressed
        self._unwritten = unwritten
        self._connection = 0
        self._connected_at = 0.0
        self._tag = 0
        self._watched_until = alive_at
        self._heard_at = 0.0
        self._attempts = 0
        self._connect_at = 0.0
        self._flush_at = 0.0
        self._tick_at = 0.0
        self._read_at = 0.0
        self._offer_at = 0.0

    @property
    def heard_at(self) -> float:
        """Monotonic time of the last message, or of the connection when none came yet.

        While the prefetch is used up it is now: nothing can come before something is acknowledged.
        """
        return self._heard_at

    def run(self, stop: threading.Event, turned: Callable[[], None]) -> None:
        """Until ``stop`` is set; then commit, acknowledge and close, within STOP_PATIENCE and 2 s."""
        try:
            while not stop.is_set():
                turned()
                self.turn(stop)
            self._finish()
        finally:
            self._committer.close()

    def turn(self, stop: threading.Event) -> None:
        """Connect or read, then do what is due. Waits a quarter of a second at most, but for a connection."""
        if self.figures.connected:
            self._gather(stop)
            self._read()
        else:
            self._connect(stop)
        mono = self._clock.monotonic()
        if mono >= self._tick_at:
            self._tick(mono)
        if self._committer.waiting:
            self._note_commits(self._committer.turn())
            self._page_unwritten(mono)
        elif mono >= self._flush_due(mono) or self.figures.unacked >= self._prefetch // 2:
            self._flush()

    def _page_unwritten(self, mono: float) -> None:
        """Pages do not wait for a store that is away."""
        if self._committer.waited < PATIENCE or mono < self._offer_at:
            return
        self._offer_at = mono + LONGEST_POLL
        with self._lock:
            unsent = self._monitor.unsent()
        self._unwritten(self._committer.unsent() + unsent)

    def _flush_due(self, mono: float) -> float:
        """When to flush, or to look again whether a scrape is over."""
        if mono < self._flush_at or not self._scraped():
            return self._flush_at
        return min(mono + GLANCE, self._flush_at + LONGEST_YIELD)

    def _is_full(self) -> bool:
        """Whether too much waits for the store. One flush is no reason: what comes joins the next one."""
        waiting = self._committer.waiting
        return waiting >= MOST_UNWRITTEN or (waiting > 1 and self._committer.held >= MOST_HELD)

    def _connect(self, stop: threading.Event) -> None:
        wait = self._connect_at - self._clock.monotonic()
        if self._is_full():  # only where the broker keeps what comes meanwhile
            wait = LONGEST_POLL
        if wait > 0:
            stop.wait(min(wait, LONGEST_POLL))
            return
        try:
            self._source.connect()
        except SourceLostError as exc:
            self._postpone(exc)
            return
        now = self._clock.now()
        self._connection += 1
        self._connected_at = self._heard_at = self._clock.monotonic()
        with self._lock:
            self._monitor.connected(acknowledges=self._source.acknowledges)
            self._note_gap(now)
        if self._prober is not None:
            self._prober.opened()
        self._watched_until = now
        self.figures.error = None
        self.figures.connected = True
        self._note_stream()
        self._note_standby()
        _log.info("The event stream is open", acknowledges=self._source.acknowledges, connection=self._connection)
        self._opened()

    def _note_stream(self) -> None:
        """An open connection proves little: a message does. Where no probe may be sent, none may ever come."""
        forbidden = self._prober is None or self._prober.forbidden
        if self.figures.connected and not self.figures.live and self.figures.standby is None and forbidden:
            self.figures.live = True
            with self._lock:
                self._monitor.flowing()

    def _note_standby(self) -> None:
        standby = self._source.standby
        if standby is not None and self.figures.standby is None:
            _log.warning("Standing by", reason=standby)
        elif standby is None and self.figures.standby is not None:
            _log.info("No other monitor is served any more: taking over")
        self.figures.standby = standby

    def _note_gap(self, now: float) -> None:
        """Count the time without a stream, in which events are lost where nothing is kept for us."""
        if self._watched_until is not None and not self._source.acknowledges:
            self._monitor.count("stream_gap_seconds", max(0.0, now - self._watched_until))
            self._watched_until = now

    def _postpone(self, exc: SourceLostError) -> None:
        wait = self._back_off(REPAIR_CAP if exc.remedy else RECONNECT_CAP)
        self.figures.error = str(exc)
        log = _log.error if exc.remedy else _log.warning
        log("The event stream cannot be opened; trying again", error=str(exc), wait=round(wait, 1))

    def _back_off(self, cap: float) -> float:
        self._attempts += 1
        wait = backoff.delay(self._attempts, random.random(), base=0.5, cap=cap)  # noqa: S311  # jitter
        self._connect_at = self._clock.monotonic() + wait
        return wait

    def _gather(self, stop: threading.Event) -> None:
        """Wait a moment, so that one read brings several messages."""
        wait = self._read_at - self._clock.monotonic()
        if 0 < wait <= GATHER:
            stop.wait(wait)

    def _read(self) -> None:
        mono = self._clock.monotonic()
        due = min(self._tick_at, self._committer.due_at if self._committer.waiting else self._flush_due(mono))
        try:
            batch = self._source.poll(max(0.0, min(due - mono, LONGEST_POLL)))
        except SourceLostError as exc:
            self._lose(str(exc))
            return
        if batch is not None:
            if len(batch.deliveries) < min(BUSY, self._prefetch // 4):
                self._read_at = self._clock.monotonic() + GATHER
            self._apply(batch)
        elif self.figures.unacked >= self._prefetch or self.figures.standby is not None:
            self._heard_at = self._clock.monotonic()
            with self._lock:
                self._monitor.stalled()
        elif self._prober is not None:
            silence = self._prober.overdue(self._heard_at)
            if silence is not None:
                self._prober.given_up()
                self._lose(f"the stream is silent: no probe came back for {silence:.0f} s")

    def _apply(self, batch: Batch) -> None:
        self._heard_at = self._clock.monotonic()
        self.figures.live = True
        if self.figures.standby is not None:
            self._note_standby()
        self._tag = batch.tag
        if self._source.acknowledges:
            self.figures.unacked += len(batch.deliveries)
        self._applier.apply(batch.deliveries, marking=self._source.acknowledges)
        self._watched_until = self._clock.now()
        with self._lock:
            probes, arrivals = self._monitor.take_probes(), self._monitor.take_arrivals()
            pages = self._monitor.pages
        if pages:
            self._flush_at = min(self._flush_at, self._clock.monotonic() + PROMPT)
        if self._prober is not None:
            if batch.deliveries:
                self._prober.heard()
            for instance, number in probes:
                self._prober.returned(instance, number)
        if arrivals:
            _log.info("Workers came", workers=arrivals[:20], number=len(arrivals))
            self._arrived(arrivals)

    def _lose(self, reason: str) -> None:
        """The stream is gone. What it brought is sealed: its fingerprints belong to its epoch."""
        _log.warning("The event stream is lost; reconnecting", reason=reason)
        self._source.abandon()
        if self._prober is not None:
            self._prober.closed()
        self.figures.connected = self.figures.live = False
        self.figures.error = reason
        with self._lock:
            self._monitor.stalled()
            self._monitor.count("reconnects", 1)
        if self._clock.monotonic() - self._connected_at >= STEADY:
            self._attempts, self._connect_at = 0, 0.0
        else:
            self._back_off(RECONNECT_CAP)
        # Where nothing is acknowledged nothing has to be sealed: it can join a flush.
        if self._source.acknowledges or not self._committer.waiting:
            self._take(force=False)
        self._connection += 1
        self.figures.unacked = 0

    def _tick(self, mono: float) -> None:
        now = self._clock.now()
        self._note_stream()
        pressed = self._pressed()
        with self._lock:
            self._monitor.tick(now)
            if pressed:
                self._monitor.shed()
            if self._tick_at:
                self._monitor.count("uptime_seconds", min(mono - self._tick_at + TICK, 2 * TICK), flush=False)
            if not self.figures.connected:
                self._note_gap(now)
            notices = self._monitor.take_notices()
        self._tick_at = mono + TICK
        for notice in notices:
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

    def _flush(self) -> None:
        mono = self._clock.monotonic()
        self._flush_at = mono + self._flush_interval
        if self._take(force=mono - self._committer.written_at >= SIGN_OF_LIFE):
            self._note_commits(self._committer.turn())

    def _take(self, *, force: bool) -> bool:
        now = self._clock.now()
        with self._lock:
            changes = self._monitor.take(now, force=force)
        if changes is None:
            return False
        self._committer.add(Flush(changes, self._tag, self._connection))
        return True

    def _note_commits(self, flushes: list[Flush]) -> None:
        """Tell of what has been committed, and acknowledge it if its connection is still there."""
        for flush in flushes:
            self._committed(flush.changes)
            if flush.connection == self._connection and self.figures.connected:
                self._ack(flush.tag, len(flush.changes.fingerprints) // 8)

    def _ack(self, tag: int, number: int) -> None:
        if not number:
            return
        try:
            self._source.ack(tag)
        except SourceLostError as exc:
            self._lose(str(exc))
        else:
            self.figures.unacked = max(0, self.figures.unacked - number)

    def _finish(self) -> None:
        """Everything applied is committed and acknowledged, or stays with the broker."""
        self._take(force=True)
        self._note_commits(self._committer.finish(self._clock.monotonic() + STOP_PATIENCE))
        if self._committer.waiting:
            _log.error(
                "The store could not be written before the end",
                lost="nothing: the broker delivers it again" if self._source.acknowledges else "the last flush",
            )
        self._source.close()
