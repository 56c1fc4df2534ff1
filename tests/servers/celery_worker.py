"""A real Celery worker as a child process."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.process import ServerProcess

_ROOT = Path(__file__).resolve().parents[2]


class CeleryWorker(ServerProcess):
    """A worker of ``app`` on ``broker_url``; ready when its log says so, which is after ``worker-online``.

    ``kill`` ends it with all its children, as a lost machine does; ``signal(SIGKILL)`` only the parent.
    ``settings`` are further environment variables (see ``tests.fleet.app``), ``options`` further options of
    ``celery worker``.
    """

    ready_timeout = 120.0
    stop_timeout = 20.0

    def __init__(
        self,
        directory: Path,
        broker_url: str,
        *,
        hostname: str = "worker",
        app: str = "tests.fleet.app",
        pool: str = "prefork",
        concurrency: int = 2,
        events: bool = True,
        options: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """``hostname`` is the part after ``celery@``; ``events`` is the worker's flag ``-E``."""
        super().__init__(f"worker-{hostname}", directory)
        self.broker_url = broker_url
        self.hostname = f"celery@{hostname}"
        self.app = app
        self.pool = pool
        self.concurrency = concurrency
        self.events = events
        self.options = tuple(options)
        self.settings = dict(settings or {})
        self._log_start = 0

    def command(self) -> Sequence[str]:
        options = ["--hostname", self.hostname, "--pool", self.pool, "--concurrency", str(self.concurrency)]
        if self.events:
            options.append("-E")
        program = [sys.executable, "-m", "celery", "--app", self.app, "worker", "--loglevel", "INFO"]
        return [*program, *options, *self.options]

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "PYTHONPATH": str(_ROOT), "FLEET_BROKER_URL": self.broker_url, **self.settings}

    def launch(self) -> None:
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        super().launch()

    def ready(self) -> bool:
        return f"{self.hostname} ready.".encode() in self.log.read_bytes()[self._log_start :]
