"""Runs the monitor, as `run` does, in a thread of this process."""

import threading
from pathlib import Path
from typing import Final

import yaml

from celery_monitor.app import App
from celery_monitor.cli.demo.application import BROKER, COUNT, DEFAULT, NIGHTLY
from celery_monitor.cli.demo.fleet import EVERY
from celery_monitor.core.model import COUNTS
from celery_monitor.errors import MonitorError
from celery_monitor.settings import Settings, load

FLEET: Final = "shop"
_POLL: Final = 0.05
_READY_WITHIN: Final = 20.0
_STOPS_WITHIN: Final = 10.0


def configure(directory: Path, *, host: str, port: int, pager: str, notice: str) -> Settings:
    """Write the demo's configuration file and load it, ignoring the environment."""
    configuration = {
        "fleet": FLEET,
        "broker": {"url": BROKER, "probe_interval": "2s"},
        "store": {"url": f"sqlite:///{directory}/celery-monitor.db"},
        "metrics": {"poll_interval": "5s", "default_queue_name": DEFAULT},
        "web": {"host": host, "port": port, "external_url": f"http://{host}:{port}", "notice": notice},
        "alerts": {
            "rules": [
                {"name": "money", "match": ["shop.payments.*"], "severity": "critical", "threshold": 3},
                {"name": "mail", "match": ["shop.mail.*"], "severity": "warning", "threshold": 2},
                {
                    "name": "long queue",
                    "on": "backlog",
                    "queues": ["images"],
                    "more_than": 30,
                    "lasting": "10s",
                    "severity": "warning",
                },
                {"name": "legacy tasks do not page", "match": ["shop.legacy.*"], "page": False},
            ]
        },
        "schedules": [
            {"task": NIGHTLY, "cron": "30 2 * * *", "grace": "10m", "max_runtime": "15m"},
            {"task": COUNT, "every": f"{EVERY:.0f}s", "grace": "10s"},
        ],
        "pagerduty": {
            "routing_key": "0" * 32,
            "url": pager,
            "update_interval": "30s",
            "resolve": "on_success",
            "resolve_after": "20s",
        },
        "log": {"format": "console"},
    }
    file = directory / "celery-monitor.yaml"
    file.write_text(yaml.safe_dump(configuration, sort_keys=False), encoding="utf-8")
    return load(file, environ={})


class Daemon:
    """An App and its thread."""

    def __init__(self, settings: Settings) -> None:
        self.app = App(settings)
        self._error: MonitorError | None = None
        self._before = [0] * len(COUNTS)
        self._thread = threading.Thread(target=self._run, name="demo-monitor", daemon=True)

    def start(self, interrupted: threading.Event) -> None:
        """Start it and wait until it is ready or ``interrupted``. Raises MonitorError if it is not ready in time."""
        self._thread.start()
        for _ in range(round(_READY_WITHIN / _POLL)):
            self.check()
            if self.app.web.ready().ok or interrupted.wait(_POLL):
                self._before = self._totals()
                return
        wrong = {name: problem for name, problem in self.app.web.ready().checks.items() if problem}
        raise MonitorError(f"the monitor is not ready after {_READY_WITHIN:g} s: {wrong}")

    def check(self) -> None:
        """Raise MonitorError if it has ended by itself."""
        if not self._thread.is_alive():
            raise self._error or MonitorError("the monitor stopped unexpectedly")

    def stop(self) -> None:
        """Shut it down gracefully."""
        self.app.stop()
        if self._thread.is_alive():
            self._thread.join(_STOPS_WITHIN)

    def counts(self) -> dict[str, int]:
        """The counts of all tasks since it was ready."""
        grown = (now - before for now, before in zip(self._totals(), self._before, strict=True))
        return dict(zip(COUNTS, grown, strict=True))

    def _totals(self) -> list[int]:
        snapshot = self.app.web.snapshot()
        rows = [series.counts for series in snapshot.series] if snapshot is not None else []
        return list(map(sum, zip(*rows, strict=True))) if rows else [0] * len(COUNTS)

    def _run(self) -> None:
        try:
            self.app.run()
        except MonitorError as exc:
            self._error = exc
