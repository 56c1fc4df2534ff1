"""A private Prometheus that scrapes given targets and evaluates given rule files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.servers.ports import free_port
from tests.servers.process import ServerProcess, require
from tests.servers.unencrypted import NO_TLS
from tests.servers.waiting import wait_until


class Prometheus(ServerProcess):
    """``targets``: the ``host:port`` addresses of each job. ``interval``: of scrapes and rules (``1s``)."""

    def __init__(
        self,
        directory: Path,
        targets: Mapping[str, Sequence[str]],
        rule_files: Sequence[Path] = (),
        interval: str = "1s",
        *,
        labels: Mapping[str, Mapping[str, str]] | None = None,
        relabelling: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Choose the port; nothing is started yet. ``labels``: of each address. ``relabelling``: of all samples."""
        super().__init__("prometheus", directory)
        self.port = free_port()
        self.targets = targets
        self.rule_files = rule_files
        self.interval = interval
        self.labels = labels or {}
        self.relabelling = relabelling

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def _config(self) -> Path:
        return self.directory / "prometheus.yml"

    def command(self) -> Sequence[str]:
        return [
            require("prometheus"),
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--storage.tsdb.path={self.directory / 'tsdb'}",
            f"--config.file={self._config}",
            "--enable-feature=exemplar-storage",
        ]

    def launch(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        jobs = [
            {
                "job_name": job,
                "static_configs": [{"targets": [one], "labels": dict(self.labels.get(one, {}))} for one in addresses],
                "metric_relabel_configs": [dict(rule) for rule in self.relabelling],
            }
            for job, addresses in self.targets.items()
        ]
        every = {
            "scrape_interval": self.interval,
            "scrape_timeout": self.interval,
            "evaluation_interval": self.interval,
        }
        config = {
            "global": every,
            "scrape_configs": jobs,
            "rule_files": [str(path) for path in self.rule_files],
        }
        self._config.write_text(yaml.safe_dump(config))
        super().launch()

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=2, verify=NO_TLS).is_success
        except httpx.TransportError:
            return False

    def api(self, path: str, **parameters: str | float) -> Any:
        """Return ``data`` of the answer of ``/api/v1/path``. Raises RuntimeError with Prometheus's message."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30, verify=NO_TLS).json()
        if answer["status"] != "success":
            message = f"{path} {parameters}: {answer['error']}"
            raise RuntimeError(message)
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Evaluate an instant query that gives a vector or a scalar: labels and value of each sample, now."""
        data = self.api("query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(sample["metric"], float(sample["value"][1])) for sample in data["result"]]

    def wait_for(self, expression: str, timeout: float = 30.0) -> list[tuple[dict[str, str], float]]:
        """Query until the answer has at least one sample, and return it."""
        return wait_until(lambda: self.query(expression), timeout, every=0.1, what=f"a sample of {expression}")

    def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        return {alert["labels"]["alertname"] for alert in self.api("alerts")["alerts"] if alert["state"] == "firing"}
