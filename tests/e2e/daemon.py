"""The daemon as users run it: a process with a configuration file, queried over HTTP."""

import http.client
import json
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import yaml
from prometheus_client.parser import text_string_to_metric_families

from celery_monitor.core.model import COUNTS, TaskRef
from tests.servers.ports import free_port
from tests.servers.process import ServerProcess
from tests.servers.waiting import wait_until

_ROOT = Path(__file__).resolve().parents[2]

Counts = Mapping[str, Mapping[str, int]]
"""Task name → kind of event (``received``) → number, where not 0."""


class Daemon(ServerProcess):
    """``celery-monitor run`` on a broker, with its store in ``directory`` (or in ``store_directory``).

    ``start`` waits until it answers HTTP; ``until_ready`` until it counts. ``settings`` are laid over the
    configuration section by section.
    """

    ready_timeout = 90.0

    def __init__(
        self,
        directory: Path,
        broker_url: str,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        store_directory: Path | None = None,
    ) -> None:
        """Choose the port; nothing is started yet."""
        super().__init__("daemon", directory)
        self.port = free_port()
        self.store = (store_directory or directory) / "monitor.db"
        self.settings: dict[str, dict[str, Any]] = {
            # Longer than any stall of the machine: a stream that is given up is lost events on Redis.
            "broker": {"url": broker_url, "probe_interval": "10s"},
            # Recorded events keep their own time, however old the recording is.
            "store": {"url": f"sqlite:///{self.store}", "retention": "36500d"},
            "web": {"host": "127.0.0.1", "port": self.port},
        }
        for section, fields in (settings or {}).items():
            self.settings.setdefault(section, {}).update(fields)

    @cached_property
    def config(self) -> Path:
        """The configuration file, written at each launch."""
        return self.directory / "celery-monitor.yaml"

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", "celery_monitor", "run", "--config", str(self.config)]

    def environment(self) -> Mapping[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CELERY_MONITOR_")}
        return {**inherited, "PYTHONPATH": str(_ROOT)}

    def launch(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config.write_text(yaml.safe_dump(self.settings))
        super().launch()

    def ready(self) -> bool:
        """Whether it answers HTTP, even without broker and store."""
        try:
            return self.get("/livez")[0] in {200, 503}
        except OSError:
            return False

    # --- HTTP

    def url(self, path: str = "/") -> str:
        """The URL of ``path``."""
        return f"http://127.0.0.1:{self.port}{path}"

    def get(self, path: str, timeout: float = 60.0) -> tuple[int, str]:
        """Status and body. Raises OSError if it does not answer."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as connection:
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read().decode()
            except http.client.HTTPException as exc:
                raise ConnectionResetError(f"no whole answer: {exc!r}") from exc

    def readyz(self) -> tuple[int, dict[str, str]]:
        """The status and each check's state: ``ok`` or the problem."""
        status, body = self.get("/readyz")
        return status, json.loads(body)["checks"]

    def is_ready(self) -> bool:
        """Whether /readyz answers 200."""
        try:
            return self.readyz()[0] == 200
        except OSError:
            return False

    def until_ready(self, timeout: float = 90.0) -> None:
        """Wait until /readyz answers 200."""
        wait_until(self.is_ready, timeout, every=0.05, what="the daemon's readiness")

    def until_trouble(self, *words: str, timeout: float = 90.0) -> str:
        """Wait until /readyz answers 503 and a check contains all ``words``; return the check."""
        shown: dict[str, str] = {}

        def found() -> str | None:
            status, checks = self.readyz()
            shown.update(checks)
            troubles = (text for text in checks.values() if text != "ok" and status == 503)
            return next((text for text in troubles if all(word in text for word in words)), None)

        try:
            return wait_until(found, timeout, every=0.02) or ""
        except TimeoutError as exc:
            message = f"/readyz never told of {words}; at last: {shown}"
            raise TimeoutError(message) from exc

    def counts(self) -> Counts:
        """Task → event → number over all queues, from /api/v1/tasks."""
        found: dict[str, Counter[str]] = {}
        for item in self._tasks():
            numbers = {kind: number for kind, number in item["counts"].items() if number}
            found.setdefault(item["name"], Counter()).update(numbers)
        return found

    def _tasks(self) -> Iterator[dict[str, Any]]:
        cursor = ""
        while True:
            status, body = self.get(f"/api/v1/tasks?limit=100{cursor}")
            if status != 200:
                raise ConnectionError(f"{status}: {body}")
            page = json.loads(body)
            yield from page["items"]
            if page["next"] is None:
                return
            cursor = f"&cursor={page['next']}"

    def metrics(self) -> dict[str, list[tuple[Mapping[str, str], float]]]:
        """Name of each sample → labels and values, from /metrics; an empty list for families without samples."""
        status, body = self.get("/metrics")
        assert status == 200, body
        found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in text_string_to_metric_families(body):
            found[f"{family.name}_total" if family.type == "counter" else family.name] = []
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of ``celery_<name>`` with these labels. Raises KeyError if there is no such metric."""
        wanted = labels.items()
        return sum(value for found, value in self.metrics()[f"celery_{name}"] if wanted <= found.items())

    def exceptions(self) -> dict[str, dict[str, int]]:
        """Task → short name of the exception's class → failures, from /metrics."""
        found: dict[str, Counter[str]] = {}
        for labels, value in self.metrics()["celery_task_failed_total"]:
            if value:
                found.setdefault(labels["name"], Counter())[labels["exception"]] += int(value)
        return {task: dict(numbers) for task, numbers in found.items()}

    def until_counts(self, expected: Counts, timeout: float = 90.0) -> None:
        """Wait until the API and the metrics have exactly these counts. Raises AssertionError with every difference."""
        found: Counts = {}

        def same() -> bool:
            nonlocal found
            try:
                found = self.counts()
                # The metrics are told of a commit when the store has it already.
                return found == expected and self._shown() == sum(map(Counter.total, map(Counter, expected.values())))
            except OSError:
                return False

        with suppress(TimeoutError):
            wait_until(same, timeout, every=0.1)
        assert found == expected, "\n".join(differences(expected, found))

    def _shown(self) -> float:
        """Sum of all counts in the metrics."""
        samples = self.metrics()
        return sum(value for kind in COUNTS for _, value in samples.get(f"celery_task_{kind}_total", []))

    # --- its process and its store

    def cpu_seconds(self) -> float:
        """CPU time of the process."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        return self._status_bytes("VmRSS")

    def peak_bytes(self) -> int:
        """Peak of the resident memory since the start."""
        return self._status_bytes("VmHWM")

    def _status_bytes(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith(name)).split()[1]) * 1024

    def tracked(self, uuids: AbstractSet[str]) -> AbstractSet[str]:
        """Those of the tasks that are active, according to the store."""
        marks = ",".join("?" * len(uuids))
        try:
            with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True, timeout=20)) as connection:
                rows = connection.execute(f"SELECT uuid, saved FROM tracked WHERE uuid IN ({marks})", list(uuids))  # noqa: S608
                found: set[tuple[str, int]] = set(rows)
                bodies = connection.execute("SELECT sequence, body FROM tracked_changes ORDER BY sequence").fetchall()
            for sequence, body in bodies:
                entries, removed = msgspec.msgpack.decode(
                    body, type=tuple[list[tuple[str, TaskRef]], list[tuple[str, int]]]
                )
                found = (found - set(removed)) | {(uuid, ref.saved or sequence) for uuid, ref in entries}
            return {uuid for uuid, _ in found} & uuids
        except sqlite3.OperationalError:  # killed before its first table
            return set()


def differences(expected: Counts, found: Counts) -> list[str]:
    """A line for each number that differs."""
    lines = []
    for task in sorted(set(expected) | set(found)):
        for kind in sorted(set(expected.get(task, {})) | set(found.get(task, {}))):
            wanted, got = expected.get(task, {}).get(kind, 0), found.get(task, {}).get(kind, 0)
            if wanted != got:
                lines.append(f"{task} {kind}: {got} instead of {wanted} ({got - wanted:+})")
    return lines
