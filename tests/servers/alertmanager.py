"""A private Prometheus Alertmanager."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.servers.ports import free_port
from tests.servers.process import ServerProcess, require
from tests.servers.unencrypted import NO_TLS
from tests.servers.waiting import wait_until


class Alertmanager(ServerProcess):
    """``notify``: the URL of a webhook that is told of every alert by itself, quickly; None for nobody.

    ``resolve_timeout``: its own, for alerts that are sent without an end.
    """

    def __init__(self, directory: Path, notify: str | None = None, *, resolve_timeout: str = "5m") -> None:
        """Choose the port; nothing is started yet."""
        super().__init__("alertmanager", directory)
        self.port = free_port()
        self.notify = notify
        self.resolve_timeout = resolve_timeout

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        return [
            require("prometheus-alertmanager"),
            f"--config.file={self.directory / 'alertmanager.yml'}",
            f"--storage.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]

    def launch(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        receiver: dict[str, Any] = {"name": "test"}
        if self.notify is not None:
            receiver["webhook_configs"] = [{"url": self.notify, "send_resolved": True}]
        route = {"receiver": "test", "group_by": ["..."], "group_wait": "100ms", "group_interval": "200ms"}
        config = {"global": {"resolve_timeout": self.resolve_timeout}, "route": route, "receivers": [receiver]}
        (self.directory / "alertmanager.yml").write_text(yaml.safe_dump(config))
        super().launch()

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=2, verify=NO_TLS).is_success
        except httpx.TransportError:
            return False

    def alerts(self) -> list[dict[str, Any]]:
        """The firing alerts."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/api/v2/alerts", timeout=30, verify=NO_TLS).json()
        return found

    def fires(self, task: str) -> bool:
        """Whether an alert of a task fires now."""
        return any(alert["labels"].get("task") == task for alert in self.alerts())

    def until(self, task: str, *, fires: bool) -> None:
        """Wait until an alert of a task fires, or no longer does."""
        wait_until(lambda: self.fires(task) is fires, 60, every=0.05, what=f"{task} firing: {fires}")
