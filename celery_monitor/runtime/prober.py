"""The round trip: an event of the monitor's own goes out on a second connection and must come back on the stream.

It finds what raises no error on any transport: half-open connections and lost subscriptions.
"""

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from celery_monitor.core.monitor import PROBE
from celery_monitor.errors import SourceLostError, TasksRefusedError
from celery_monitor.ports import Clock, Probe

OVERDUE: Final = 1.5
"""Probe intervals without an answer after which the stream counts as silent: so it is noticed within three."""
MIN_TIMEOUT: Final = 1.0
MAX_TIMEOUT: Final = 10.0
"""Seconds that sending may take, whatever the interval is: the thread has to turn."""
MAX_WAIT: Final = 1.0
_SILENT: Final = (
    "the stream was silent, and nothing has arrived since it was reopened: compare broker.exchange with Celery's "
    "event_exchange, which is a topic exchange on RabbitMQ"
)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _UnansweredProbe:
    at: float
    """Monotonic time at which it went out."""
    unread: float = 0.0
    """Seconds since then in which nobody read the stream."""


class Prober:
    """Sends probes and knows which are unanswered. ``probe_returned`` and ``not_read`` belong to the pump's thread."""

    def __init__(self, probe: Probe, clock: Clock, interval: float) -> None:
        """``interval`` in seconds."""
        self.instance = int.from_bytes(os.urandom(6), "big")
        """Tells this process's probes from those of others and of earlier runs."""
        self.roundtrip: float | None = None
        """Seconds that the last answered probe took."""
        self.error: str | None = None
        """Why probes cannot be sent, as of the last try."""
        self.forbidden = False
        """They may not be sent: silence then means nothing."""
        self._silent = False
        """A stream was given up because it was silent, and nothing has come since, on whichever connection."""
        self._delivered = False
        """The probe is on its way, in spite of ``error``."""
        self._sender = probe
        self._clock = clock
        self._interval = interval
        self._number = 0
        self._sent: dict[int, _UnansweredProbe] = {}
        self._due_at = 0.0
        self._open = threading.Event()
        self._lock = threading.Lock()

    def run(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        """Send one probe when the stream is open, and one an interval from then on, until ``stop`` is set."""
        try:
            while not stop.is_set():
                heartbeat()
                if not self._open.wait(MAX_WAIT):
                    continue
                wait = self._due_at - self._clock.monotonic()
                if wait > 0:
                    stop.wait(min(wait, MAX_WAIT))
                else:
                    self._due_at = self._clock.monotonic() + self._interval
                    self.probe()
        finally:
            self._sender.close()

    def probe_returned(self, instance: int, number: int) -> None:
        """A probe came in on the stream."""
        if instance != self.instance:
            return
        with self._lock:
            sent = self._sent.get(number)
            if sent is not None:
                self.roundtrip = max(0.0, self._clock.monotonic() - sent.at)
            self._sent = {other: probe for other, probe in self._sent.items() if other > number}

    def opened(self) -> None:
        """The stream is a new one: what was sent before will not come."""
        self._forget()
        self._due_at = 0.0
        self._open.set()

    def closed(self) -> None:
        """There is no stream to come back on."""
        self._open.clear()
        self.error = None

    def given_up(self) -> None:
        """The stream was silent for too long, and is opened anew: that alone does not make it well."""
        self._silent = True

    def message_received(self) -> None:
        """A message of any kind came in on the stream."""
        self._silent = False

    def not_read(self, seconds: float) -> None:
        """Nobody read the stream for this time until now: no probe could come back in it."""
        now = self._clock.monotonic()
        with self._lock:
            self._sent = {
                number: _UnansweredProbe(probe.at, probe.unread + min(seconds, now - probe.at))
                for number, probe in self._sent.items()
            }

    def overdue(self, last_received_at: float) -> float | None:
        """Seconds of reading since the first probe went out after which nothing came, if those are too many; else None.

        ``last_received_at``: monotonic time of the last message of any kind. A stream that still brings messages is
        behind, not silent.
        """
        with self._lock:
            unanswered = [probe for probe in self._sent.values() if probe.at >= last_received_at]
        if not unanswered:
            return None
        oldest = min(unanswered, key=lambda probe: probe.at)
        waited = self._clock.monotonic() - oldest.at - oldest.unread
        return waited if waited > max(MIN_TIMEOUT, OVERDUE * self._interval) else None

    def trouble(self, last_received_at: float) -> str | None:
        """What is wrong with the round trip, for /readyz; None when it is well."""
        silence = self.overdue(last_received_at)
        if silence is not None:
            return f"no probe returned for {silence:.0f} s"
        if self.error is None:
            return _SILENT if self._silent else None
        return self.error if self._delivered else f"cannot send probes: {self.error}"

    def probe(self) -> None:
        """Send one."""
        self._number += 1
        body = {
            "type": PROBE,
            "hostname": "celery-monitor@probe",
            "timestamp": self._clock.now(),
            "utcoffset": 0,
            "pid": os.getpid(),
            "clock": 0,
            "probe_instance": self.instance,
            "probe_number": self._number,
        }
        with self._lock:
            self._sent[self._number] = _UnansweredProbe(self._clock.monotonic())
        try:
            self._sender.send(json.dumps(body).encode(), min(max(MIN_TIMEOUT, self._interval), MAX_TIMEOUT))
        except SourceLostError as exc:
            if self.error is None:
                _log.warning("Cannot send the round-trip probe", error=str(exc))
            self.error, self._delivered = str(exc), isinstance(exc, TasksRefusedError)
            self.forbidden = exc.remedy is not None
            if self.forbidden:
                self._forget()
        else:
            self.error, self.forbidden = None, False

    def _forget(self) -> None:
        with self._lock:
            self._sent.clear()
