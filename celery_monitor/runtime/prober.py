"""The round-trip probe: sends an event of the monitor's own on a second connection and expects it on the stream.

This detects faults that raise no error on any transport: half-open connections and lost subscriptions.
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
"""Probe intervals without an answer after which the stream counts as silent; detected within three intervals."""
MIN_TIMEOUT: Final = 1.0
MAX_TIMEOUT: Final = 10.0
"""Maximum seconds for sending a probe, whatever the interval is, so that the thread keeps sending heartbeats."""
MAX_WAIT: Final = 1.0
_SILENT: Final = (
    "the stream was silent, and nothing has arrived since it was reopened: compare broker.exchange with Celery's "
    "event_exchange, which is a topic exchange on RabbitMQ"
)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _UnansweredProbe:
    at: float
    """Monotonic time at which it was sent."""
    unread: float = 0.0
    """Seconds since then during which the stream was not read."""


class Prober:
    """Sends probes and tracks which are unanswered. ``probe_returned`` and ``not_read`` belong to the pump's thread."""

    def __init__(self, probe: Probe, clock: Clock, interval: float) -> None:
        """``interval`` in seconds."""
        self.instance = int.from_bytes(os.urandom(6), "big")
        """Distinguishes the probes of this process from those of others and of earlier runs."""
        self.roundtrip: float | None = None
        """Round-trip seconds of the last answered probe."""
        self.error: str | None = None
        """Why the last probe could not be sent; None if it was."""
        self.forbidden = False
        """The broker forbids sending probes, so silence proves nothing."""
        self._silent = False
        """A stream was closed because it was silent, and nothing has arrived since, on any connection."""
        self._delivered = False
        """The probe was sent in spite of ``error``."""
        self._sender = probe
        self._clock = clock
        self._interval = interval
        self._number = 0
        self._sent: dict[int, _UnansweredProbe] = {}
        self._due_at = 0.0
        self._open = threading.Event()
        self._lock = threading.Lock()

    def run(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        """Send a probe when the stream opens, and then one per interval, until ``stop`` is set."""
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
        """A probe arrived on the stream."""
        if instance != self.instance:
            return
        with self._lock:
            sent = self._sent.get(number)
            if sent is not None:
                self.roundtrip = max(0.0, self._clock.monotonic() - sent.at)
            self._sent = {other: probe for other, probe in self._sent.items() if other > number}

    def opened(self) -> None:
        """A new stream was opened: probes sent before will not arrive."""
        self._forget()
        self._due_at = 0.0
        self._open.set()

    def closed(self) -> None:
        """The stream was closed, so no probe can arrive."""
        self._open.clear()
        self.error = None

    def given_up(self) -> None:
        """The stream was silent for too long and is reopened, which alone does not prove that it works."""
        self._silent = True

    def message_received(self) -> None:
        """A message of any kind arrived on the stream."""
        self._silent = False

    def not_read(self, seconds: float) -> None:
        """The stream was not read for the last ``seconds``, so no probe could arrive."""
        now = self._clock.monotonic()
        with self._lock:
            self._sent = {
                number: _UnansweredProbe(probe.at, probe.unread + min(seconds, now - probe.at))
                for number, probe in self._sent.items()
            }

    def overdue(self, last_received_at: float) -> float | None:
        """Seconds for which the stream was read without any message since a probe was sent, if too many; else None.

        ``last_received_at``: monotonic time of the last message of any kind. A stream that still delivers messages
        lags but is not silent.
        """
        with self._lock:
            unanswered = [probe for probe in self._sent.values() if probe.at >= last_received_at]
        if not unanswered:
            return None
        oldest = min(unanswered, key=lambda probe: probe.at)
        waited = self._clock.monotonic() - oldest.at - oldest.unread
        return waited if waited > max(MIN_TIMEOUT, OVERDUE * self._interval) else None

    def trouble(self, last_received_at: float) -> str | None:
        """What is wrong with the round trip, for /readyz; None when it works."""
        silence = self.overdue(last_received_at)
        if silence is not None:
            return f"no probe returned for {silence:.0f} s"
        if self.error is None:
            return _SILENT if self._silent else None
        return self.error if self._delivered else f"cannot send probes: {self.error}"

    def probe(self) -> None:
        """Send one probe."""
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
