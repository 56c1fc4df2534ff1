"""Helpers for the tests of the daily mail: a daemon that mails, its clock, events, and the numbers of a mail."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import yaml

from bench.publish import publisher
from tests.adapters.channels.email.mail_server import PASSWORD, USER, MailServer
from tests.e2e.daemon import Daemon
from tests.servers.waiting import wait_until

PEOPLE = ("ann@shop.example", "bob@shop.example", "carl@shop.example")
EXTERNAL_URL = "https://monitor.shop.example"
_DATA = Path(__file__).resolve().parents[1] / "data"
_TASK_ROW = re.compile(r"^ *([\d,]+)  (\S+)\n +\S+ % of ([\d,]+)", re.MULTILINE)
_HTML_TASK_ROW = re.compile(r"<bdi>(.*?)</bdi>.*?font-size:18px[^>]*>([\d,]+)</div>.*?>of ([\d,]+)</div>", re.DOTALL)


@dataclass(frozen=True)
class WallClock:
    """The daemon's clock: it shows ``shown`` (unix seconds) when it is created, and runs ``speed`` times as fast."""

    shown: float
    speed: float = 1.0
    real: float = field(default_factory=time.time)

    def now(self) -> float:
        """The current time."""
        return self.shown + (time.time() - self.real) * self.speed

    def until(self, at: float) -> None:
        """Wait until this time."""
        wait_until(lambda: self.now() >= at, 90, what=f"{at} on the daemon's clock")


class MailingDaemon(Daemon):
    """A daemon that mails ``server`` with STARTTLS and AUTH at 8 in ``zone``; the password comes from a file.

    Without a ``clock`` it is on the machine's. ``settings`` are laid over the configuration section by section.
    """

    def __init__(
        self,
        directory: Path,
        broker_url: str,
        server: MailServer,
        zone: str,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Choose the port; nothing is started yet."""
        password = directory / "smtp-password"
        email = {
            "host": "127.0.0.1",
            "port": server.port,
            "username": USER,
            "password_file": str(password),
            "from": "Shop monitor <monitor@shop.example>",
            "to": list(PEOPLE),
            "timezone": zone,
        }
        wanted = dict(settings or {})
        wanted["email"] = email | dict(wanted.get("email", {}))
        wanted["web"] = {"external_url": EXTERNAL_URL} | dict(wanted.get("web", {}))
        super().__init__(directory, broker_url, wanted)
        directory.mkdir(parents=True, exist_ok=True)
        password.write_text(f"{PASSWORD}\n")
        self.clock: WallClock | None = None
        self._server = server

    def program(self) -> Sequence[str]:
        """``celery-monitor`` with the daemon's clock."""
        if self.clock is None:
            return [sys.executable, "-m", "celery_monitor"]
        clock = (self.clock.real, self.clock.shown, self.clock.speed)
        return [sys.executable, "-m", "tests.e2e.other_clock", *map(repr, clock)]

    def command(self) -> Sequence[str]:
        return [*self.program(), "run", "--config", str(self.config)]

    def environment(self) -> Mapping[str, str]:
        certificate = self._server.certificate
        trusted = {"SSL_CERT_FILE": str(certificate.certificate)} if certificate else {}
        return {**super().environment(), **trusted}

    def beside(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command with the daemon's configuration, clock and environment (or another one)."""
        self.config.write_text(yaml.safe_dump(self.settings))
        return subprocess.run(
            [*self.program(), *arguments, "--config", str(self.config)],
            env=environment or self.environment(),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def api(self, path: str) -> Any:  # whatever JSON can hold
        """The answer of the API."""
        status, body = self.get(path)
        assert status == 200, body
        return json.loads(body)

    def until_mailed(self, number: int = 1, timeout: float = 90.0) -> None:
        """Wait until this many mails were accepted and their rows are recorded as delivered."""
        mails = self._server.mails
        wait_until(lambda: len(mails) >= number, timeout, what=f"mail {number}")
        wait_until(lambda: self.api("/api/v1/outbox")["items"] == [], timeout, what="its record")

    def until_polled(self) -> None:
        """Wait until the schedule has run and the outbox was read: due reports are in it or were delivered."""

        def polled() -> bool:
            return self.is_ready() and self.metric("monitor_report_last_success_timestamp_seconds") > 0

        wait_until(polled, 90, what="a poll of the outbox")


def replay(version: str, broker_url: str, start: float, end: float) -> None:
    """Publish a recording's task events (see `tests.e2e.test_recordings`), with their time stretched over [start, end).

    Without its heartbeats: one of another time is the sign of a worker whose clock is wrong.
    """
    lines = (_DATA / f"events-celery-{version}-rabbitmq.jsonl").read_text().splitlines()
    messages = [json.loads(json.loads(line)["body"]) for line in lines]
    messages = [message if isinstance(message, list) else [message] for message in messages]
    messages = [message for message in messages if not message[0]["type"].startswith("worker-")]
    events = [event for message in messages for event in message]
    first, last = (choose(event["timestamp"] for event in events) for choose in (min, max))
    stretch = (end - start - 1.0) / (last - first)
    failed: dict[str, float] = {}
    for event in events:
        at = event["timestamp"]
        # The twin of a failure stays as close to it as it was.
        begun = failed.setdefault(event["uuid"], at) if event["type"] == "task-failed" else at
        event["timestamp"] = start + (begun - first) * stretch + (at - begun)
    to = publisher(broker_url)
    for message in messages:
        to.publish(json.dumps(message).encode())
    to.settle()
    to.close()


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of a day in a report, in any format."""

    executed: int
    failed: int
    retried: int
    tasks: Mapping[str, tuple[int, int]]
    """Failing task → (failed, executed)."""


def in_text(text: str) -> Numbers:
    """The numbers of the text report."""
    sums = {}
    for label in ("executed", "failed", "retried"):
        found = re.search(rf"^  {label} +([\d,]+)", text, re.MULTILINE)
        assert found is not None, text
        sums[label] = _number(found[1])
    rows = _TASK_ROW.findall(text)
    return Numbers(**sums, tasks={name: (_number(failed), _number(executed)) for failed, name, executed in rows})


def in_html(html: str) -> Numbers:
    """The numbers of the HTML report, in a mail or on a page."""
    sums = {}
    for label in ("Executed", "Failed", "Retried"):
        found = re.search(rf">{label}</div>\s*<div[^>]*>([\d,]+)</div>", html)
        assert found is not None, html
        sums[label.lower()] = _number(found[1])
    rows = _HTML_TASK_ROW.findall(html.partition("Failing tasks")[2])
    tasks = {re.sub("<[^>]*>", "", name): (_number(failed), _number(executed)) for name, failed, executed in rows}
    return Numbers(**sums, tasks=tasks)


def in_json(document: Mapping[str, Any]) -> Numbers:
    """The numbers of the JSON report."""
    day = document["day"]
    tasks = {row["name"]: (row["failed"], row["executed"]) for row in document["tasks"]}
    return Numbers(day["executed"], day["failed"], day["retried"], tasks)


def in_counts(counts: Mapping[str, Mapping[str, int]]) -> Numbers:
    """The numbers of event counts by task."""

    def executed(numbers: Mapping[str, int]) -> int:
        return numbers.get("succeeded", 0) + numbers.get("failed", 0)

    failing = {name: numbers for name, numbers in counts.items() if numbers.get("failed")}
    return Numbers(
        executed=sum(map(executed, counts.values())),
        failed=sum(numbers["failed"] for numbers in failing.values()),
        retried=sum(numbers.get("retried", 0) for numbers in counts.values()),
        tasks={name: (numbers["failed"], executed(numbers)) for name, numbers in failing.items()},
    )


def part(message: EmailMessage, kind: str) -> str:
    """The plain or html part of a mail."""
    body = message.get_body((kind,))
    assert body is not None
    text: str = body.get_content()
    return text.replace("\r\n", "\n")


def _number(text: str) -> int:
    return int(text.replace(",", ""))
