"""The readers as processes: how to start them, read their counts and scrape them."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from tests.e2e import peer
from tests.e2e.daemon import Daemon
from tests.e2e.peer import CeleryExporter
from tests.servers.ports import answers, free_port
from tests.servers.process import ServerProcess

_FLOWER = ("flower==2.2.0", "redis>=6.1", "packaging")
"""kombu needs the last two for Redis."""
_ROOT = Path(__file__).resolve().parents[2]
_FLOWER_VENV = _ROOT / ".cache" / "flower-venv"
_SCHEDULED = 2
"""CPUCLOCK_SCHED of the kernel: the run time of a process's threads."""
_ANSWER = 15.0
"""Timeout of a scrape in seconds."""


class Reader(Protocol):
    """A running reader of the stream."""

    @property
    def pid(self) -> int:
        """The process ID."""

    @property
    def running(self) -> bool:
        """Whether the process is running."""

    def events(self, per_message: int) -> int:
        """The number of counted task events. ``per_message``: events per message."""

    def scrape(self) -> float | None:
        """Seconds that one scrape of /metrics takes; None if the reader has no metrics."""


def cpu_seconds(reader: Reader) -> float:
    """User and system time of the process, in nanosecond resolution. Raises OSError if the process has exited.

    The ID of another process's CPU clock is that of clock_getcpuclockid(3). /proc has only ticks of 10 ms, a tenth of
    the CPU time that an idle reader uses in ten seconds.
    """
    return time.clock_gettime((~reader.pid << 3) | _SCHEDULED)


def resident_bytes(reader: Reader) -> int:
    """Resident memory of its process."""
    return int(Path(f"/proc/{reader.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _total(exposition: str, prefix: str) -> int:
    """The sum of the samples whose line starts with ``prefix``, without worker events.

    Lines are summed as text, because a parser would take longer than the measured work.
    """
    lines = (line for line in exposition.splitlines() if line.startswith(prefix) and '"worker-' not in line)
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


def _fetch(port: int) -> tuple[str, float]:
    began = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_ANSWER) as answer:
        text = answer.read().decode()
    return text, time.perf_counter() - began


class Monitor(Daemon):
    """This daemon, with its default settings."""

    def __init__(self, directory: Path, url: str) -> None:
        """Choose a port."""
        super().__init__(directory, url, {"broker": {"probe_interval": "5s"}})

    def start(self) -> None:
        """Start it and wait until it counts events."""
        super().start()
        self.until_ready()

    def events(self, per_message: int) -> int:
        """As Reader.events."""
        del per_message
        return _total(_fetch(self.port)[0], 'celery_monitor_events_total{type="task-')

    def scrape(self) -> float:
        """As Reader.scrape."""
        return _fetch(self.port)[1]


class Exporter(CeleryExporter):
    """celery-exporter."""

    _COUNTERS = ("sent", "received", "started", "succeeded", "failed", "retried", "revoked", "rejected")

    def events(self, per_message: int) -> int:
        """As Reader.events."""
        del per_message
        text = _fetch(self.port)[0]
        return sum(_total(text, f"celery_task_{kind}_total{{") for kind in self._COUNTERS)

    def scrape(self) -> float:
        """As Reader.scrape."""
        return _fetch(self.port)[1]


class Flower(ServerProcess):
    """Flower, which also counts events for Prometheus."""

    def __init__(self, directory: Path, url: str) -> None:
        """Choose a port."""
        super().__init__("flower", directory)
        self.url = url
        self.port = free_port()

    @staticmethod
    def install() -> None:
        """Install it into a separate environment, once."""
        done = _FLOWER_VENV / "installed"
        if not done.exists() or json.loads(done.read_text()) != list(_FLOWER):
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(_FLOWER_VENV)], check=True)
            subprocess.run([str(_FLOWER_VENV / "bin/python"), "-m", "pip", "install", "-qq", *_FLOWER], check=True)
            done.write_text(json.dumps(list(_FLOWER)))

    def command(self) -> Sequence[str]:
        """Its command line, with its default settings."""
        flower = [str(_FLOWER_VENV / "bin/celery"), f"--broker={self.url}", "flower"]
        return [*flower, "--address=127.0.0.1", f"--port={self.port}"]

    def ready(self) -> bool:
        """Whether it serves requests."""
        return answers(self.port)

    def events(self, per_message: int) -> int:
        """As Reader.events."""
        del per_message
        return _total(_fetch(self.port)[0], "flower_events_total{")

    def scrape(self) -> float:
        """As Reader.scrape."""
        return _fetch(self.port)[1]


class Floor(ServerProcess):
    """kombu alone; see bench/peers/floor.py."""

    def __init__(self, directory: Path, url: str) -> None:
        """Nothing is started yet."""
        super().__init__("floor", directory)
        self.url = url
        self.counter = directory / "count"

    def command(self) -> Sequence[str]:
        """The script, in this environment."""
        return [sys.executable, str(Path(__file__).with_name("floor.py")), self.url, str(self.counter)]

    def ready(self) -> bool:
        """Whether it consumes."""
        return self.log.exists() and "ready" in self.log.read_text()

    def events(self, per_message: int) -> int:
        """As Reader.events."""
        return per_message * int.from_bytes(self.counter.read_bytes(), "little")

    def scrape(self) -> None:
        """None, because it has no metrics."""


READERS = {"celery-monitor": Monitor, "celery-exporter": Exporter, "Flower": Flower, "kombu, ack only": Floor}
"""Name in the tables → class."""


def install(names: Iterable[str]) -> None:
    """Install the readers that are not part of this environment. Raises CalledProcessError if that fails."""
    if "celery-exporter" in names:
        peer.install()
    if "Flower" in names:
        Flower.install()


def start(name: str, directory: Path, url: str) -> AbstractContextManager[Reader]:
    """A reader of a broker, started on entry and stopped on exit."""
    reader: AbstractContextManager[Reader] = READERS[name](directory, url)
    return reader


def versions() -> dict[str, str]:
    """Name in the tables → version."""
    return {
        "celery-monitor": version("celery-monitor"),
        "celery-exporter": "prometheus-exporter-celery 0.11.2",
        "Flower": _FLOWER[0].replace("==", " "),
        "kombu, ack only": f"kombu {version('kombu')}",
    }
