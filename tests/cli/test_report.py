"""``celery-monitor report``."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from celery_monitor.adapters.store import open_store
from celery_monitor.cli import main
from celery_monitor.core.model import (
    BUCKET_SECONDS,
    FAILED,
    SUCCEEDED,
    BucketDelta,
    Changes,
    ErrorDelta,
    ErrorGroup,
    Incident,
    IncidentState,
    Reason,
    Severity,
)
from celery_monitor.core.summarize import day_bounds
from tests.adapters.channels.email.mail_server import MailServer, serving
from tests.fakes import ManualClock

DAY = 86_400
NOW = 1_795_442_531.0
"""2026-11-23T14:02:11Z: neither at midnight, nor another day in each process that collects these tests."""
TODAY = dt.datetime.fromtimestamp(NOW, dt.UTC).date()
YESTERDAY = TODAY - dt.timedelta(days=1)
START, END = day_bounds(YESTERDAY, dt.UTC)


def bucket(start: int, name: str, succeeded: int, failed: int) -> BucketDelta:
    """A bucket of a flush."""
    counts = [0] * 8
    counts[SUCCEEDED], counts[FAILED] = succeeded, failed
    return BucketDelta(start, name, "celery", tuple(counts), 0.0, 0)


CHANGES = Changes(
    now=START + 10.0,
    sequence=1,
    buckets=[
        bucket(START - BUCKET_SECONDS, "shop.a", 10, 1),
        bucket(START, "shop.a", 5, 2),
        bucket(END - BUCKET_SECONDS, "shop.\u202eb", 0, 1),
        bucket(END, "shop.a", 0, 50),
    ],
    groups=[ErrorGroup("0" * 16, "shop.a", "builtins.ValueError", "shop/a.py:run", START + 1.0, START + 2.0)],
    errors=[ErrorDelta(START, "0" * 16, 2)],
    incidents=[
        Incident(
            key="shop.a/hour",
            fleet="shop",
            task="shop.a",
            rule="",
            route="",
            severity=Severity.ERROR,
            state=IncidentState.OPEN,
            reason=Reason.OPENED,
            hour="hour",
            opened_at=START + 2.0,
            first_at=START + 1.0,
            last_at=START + 2.0,
            count=2,
            threshold=1,
        )
    ],
    counters={"uptime_seconds": 7_200.0, "starts": 1.0},
)


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs at that time."""
    monkeypatch.setattr("celery_monitor.cli.report.SystemClock", lambda: ManualClock(NOW))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """The URL of a store with CHANGES, whose daemon runs."""
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    daemon = open_store(url, retention=30.0 * DAY, fingerprint_window=10)
    daemon.start()
    daemon.commit(CHANGES)
    yield url
    daemon.stop()


@pytest.fixture
def mail() -> Iterator[MailServer]:
    """A mail server."""
    with serving(MailServer()) as server:
        yield server


def invoke(tmp_path: Path, store: str, *arguments: str, **settings: Any) -> Result:
    """Run the command with this configuration."""
    file = tmp_path / "monitor.yaml"
    file.write_text(yaml.safe_dump({"fleet": "shop", "store": {"url": store}} | settings))
    return CliRunner().invoke(main, ["report", *arguments, "--config", str(file)])


def test_yesterday_as_text(tmp_path: Path, store: str) -> None:
    """By default yesterday's summary, while the daemon runs."""
    result = invoke(tmp_path, store)
    assert result.exit_code == 0, result.output
    assert "3 FAILURES IN 2 TASKS, 1 NEW ERROR" in result.output
    assert "The monitor was down for 22 h of 24 h." in result.output
    assert "shop.�b" in result.output
    assert result.output.endswith("\n")


def test_a_day_as_json(tmp_path: Path, store: str) -> None:
    """The API's document in ASCII, so that it cannot control a terminal."""
    result = invoke(tmp_path, store, "--date", str(YESTERDAY), "--format", "json")
    document = json.loads(result.output)
    assert result.output.isascii()
    assert document["date"] == str(YESTERDAY)
    assert document["day"] == {"executed": 8, "failed": 3, "retried": 0, "rate": 0.375}
    assert document["before"]["failed"] == 1
    assert [(task["name"], task["failed"]) for task in document["tasks"]] == [("shop.a", 2), ("shop.\u202eb", 1)]
    assert [(error["task"], error["count"], error["new"]) for error in document["errors"]] == [("shop.a", 2, True)]
    assert document["health"]["uptime"] == 7_200.0


def test_a_day_as_html_with_links(tmp_path: Path, store: str) -> None:
    """The HTML of the mail."""
    result = invoke(tmp_path, store, "--format", "html", web={"external_url": "https://monitor.example"})
    assert result.output.startswith("<!doctype html>")
    assert 'href="https://monitor.example/tasks/shop.a"' in result.output


@pytest.mark.parametrize(("pagerduty", "undelivered"), [({}, 0), ({"routing_key": "0" * 32}, 1)])
def test_incidents_are_undelivered_only_where_somebody_is_paged(
    tmp_path: Path, store: str, pagerduty: dict[str, str], undelivered: int
) -> None:
    """Without a routing key, an incident that was not sent does not count as undelivered."""
    result = invoke(tmp_path, store, "--format", "json", pagerduty=pagerduty)
    incidents = json.loads(result.output)["incidents"]
    assert (incidents["opened"], len(incidents["undelivered"])) == (1, undelivered)


def test_the_day_is_the_one_of_the_mails_time_zone(tmp_path: Path, store: str) -> None:
    """Midnight is email.timezone's."""
    result = invoke(
        tmp_path, store, "--date", str(YESTERDAY), "--format", "json", email={"timezone": "Pacific/Kiritimati"}
    )
    document = json.loads(result.output)
    assert document["start"] == f"{YESTERDAY - dt.timedelta(days=1)}T10:00:00Z"
    assert document["day"]["failed"] == 3  # 1 of the evening before, 2 of the day, none of its last hours


def test_send_mails_it_and_says_what_the_server_said(tmp_path: Path, store: str, mail: MailServer) -> None:
    """Every call is a mail of its own."""
    email = {
        "host": "127.0.0.1",
        "port": mail.port,
        "security": "none",
        "from": "m@shop.example",
        "to": ["a@shop.example"],
    }
    result = invoke(tmp_path, store, "--send", email=email)
    assert result.exit_code == 0, result.output
    assert result.output == f"127.0.0.1:{mail.port} accepted it for a@shop.example: 250 OK queued as 4711\n"
    assert mail.message()["Subject"].startswith("[shop] 3 failures in 2 tasks on ")
    mail.refusals = {"a@shop.example": "550 no such user"}
    refused = invoke(tmp_path, store, "--send", email=email)
    assert refused.exit_code == 1
    assert "550 no such user" in refused.output


def test_sending_needs_recipients(tmp_path: Path, store: str) -> None:
    """The error names the fields."""
    result = invoke(tmp_path, store, "--send")
    assert result.exit_code == 2
    assert "email.to: must be set" in result.output


def test_today_so_far(tmp_path: Path, store: str) -> None:
    """The day that is not over yet has a name, too."""
    result = invoke(tmp_path, store, "--date", "today", "--format", "json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert document["date"] == str(TODAY)


def test_another_store(tmp_path: Path, store: str) -> None:
    """--store wins over the configuration."""
    result = invoke(tmp_path, f"sqlite:///{tmp_path}/none.db", "--store", store, "--format", "json")
    assert json.loads(result.output)["day"]["failed"] == 3


@pytest.mark.parametrize("date", ["23.11.2026", "tomorrow", "0001-01-01", str(TODAY + dt.timedelta(days=2))])
def test_what_is_no_past_day_is_a_usage_error(tmp_path: Path, store: str, date: str) -> None:
    """It says how to write a date."""
    result = invoke(tmp_path, store, "--date", date)
    assert result.exit_code == 2
    assert "--date" in result.output


def test_without_a_store_there_is_no_report(tmp_path: Path) -> None:
    """An empty one is not made up."""
    result = invoke(tmp_path, f"sqlite:///{tmp_path / 'none.db'}")
    assert result.exit_code == 1
    assert not (tmp_path / "none.db").exists()
