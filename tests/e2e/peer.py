"""celery-exporter, from PyPI, as a process, to compare its metrics with ours."""

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.servers.ports import answers, free_port
from tests.servers.process import ServerProcess

_STEPS = (["prometheus-exporter-celery==0.11.2"], ["packaging", "redis>=6.1"])
"""The second is what the first forgets or forbids, and kombu needs for Redis."""
_VENV = Path(__file__).resolve().parents[2] / ".cache" / "peer-venv"
_PYTHON = _VENV / "bin" / "python"

_OURS = {"lost"}
"""Events that celery-exporter does not count."""

Series = Mapping[tuple[str, ...], int]
"""(event, name, queue_name) and for failures exception → number, where not 0."""


def install() -> None:
    """Install it once into a separate virtual environment."""
    done = _VENV / "installed"
    if done.exists() and done.read_text() == str(_STEPS):
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(_VENV)], check=True)
    for packages in _STEPS:
        subprocess.run([str(_PYTHON), "-m", "pip", "install", "--quiet", *packages], check=True)
    done.write_text(str(_STEPS))


class CeleryExporter(ServerProcess):
    """celery-exporter on a broker; ready when it serves. ``options``: of its command line."""

    def __init__(self, directory: Path, broker_url: str, options: Sequence[str] = ()) -> None:
        """Installs it if needed."""
        super().__init__("celery-exporter", directory)
        install()
        self.broker_url = broker_url
        self.port = free_port()
        self.options = options

    def command(self) -> Sequence[str]:
        program = [str(_PYTHON), "-c", "from src.cli import cli; cli()"]
        return [*program, f"--broker-url={self.broker_url}", "--host=127.0.0.1", f"--port={self.port}", *self.options]

    def ready(self) -> bool:
        return answers(self.port)

    def counts(self) -> Series:
        """The exported counts."""
        return counts(httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=30).text)


def counts(exposition: str) -> Series:
    """All task counters, over all hosts."""
    found: Counter[tuple[str, ...]] = Counter()
    for family in text_string_to_metric_families(exposition):
        if family.type != "counter" or not family.name.startswith("celery_task_"):
            continue
        event = family.name.removeprefix("celery_task_")
        if event in _OURS:
            continue
        for sample in family.samples:
            labels = sample.labels
            if sample.name.endswith("_total"):
                exception = (labels["exception"],) if event == "failed" else ()
                found[event, labels["name"], labels["queue_name"], *exception] += int(sample.value)
    return +found
