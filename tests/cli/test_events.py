"""The output of `celery-monitor events`."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from celery_monitor.cli import events as module
from celery_monitor.cli import main
from celery_monitor.cli.events import _EventPrinter
from celery_monitor.core.model import Delivery, FleetTask
from celery_monitor.core.text import REPLACEMENT
from tests.servers.ports import free_port

NOW = 1_795_402_000.0
RECORDING = Path(__file__).parents[1] / "data" / "events-celery-5.7.0-rabbitmq.jsonl"


def message(**fields: Any) -> Delivery:
    """A message with one event."""
    return Delivery(json.dumps({"timestamp": NOW, "hostname": "celery@box", **fields}).encode())


def shown(*deliveries: Delivery, glob: str | None = None) -> list[str]:
    """The lines without the time."""
    return [click.unstyle(line).split("  ", 1)[1] for line in _EventPrinter(glob, []).lines(deliveries, NOW)]


def test_a_task_is_named_in_every_line_of_its_life() -> None:
    """Only two events contain the name; all lines show it, with the measured time."""
    received = message(type="task-received", uuid="u1", name="shop.charge")
    failed = message(type="task-failed", uuid="u1", exception="ValueError('no  such order')", traceback="")
    succeeded = message(type="task-succeeded", uuid="u1", runtime=0.25)
    lines = shown(received, message(type="task-started", uuid="u1"), failed, succeeded)
    assert all("shop.charge" in line and "u1" in line and "celery@box" in line for line in lines)
    assert lines[2].endswith("ValueError: no such order")
    assert lines[3].endswith("in 0.250 s")


def test_a_line_begins_with_the_time() -> None:
    """In milliseconds and UTC, as in the log, the API and the page."""
    (line,) = _EventPrinter(None, []).lines([message(type="worker-online")], NOW)
    assert line.startswith("2026-11-23T02:46:40.000Z  ")


def test_of_several_urls_one_that_can_be_reached_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Like the daemon, it tries the next one; if all fail, the first error is shown."""
    monkeypatch.setattr(module, "_INSPECT_TIMEOUT", 0.1)  # there is no worker
    refused = f"amqp://127.0.0.1:{free_port()}//"
    command = ["events", "--seconds", "0", "--broker"]
    assert CliRunner().invoke(main, [*command, f"{refused};memory://"]).exit_code == 0
    result = CliRunner().invoke(main, [*command, f"{refused};{refused}"])
    assert result.exit_code == 1
    assert "Connection refused" in result.output


TRACEBACK = "  File ...\ncelery.exceptions.Retry: Retry in 1s: RuntimeError('declined')\n"


@pytest.mark.parametrize(
    ("exception", "traceback"),
    [
        ("RuntimeError('declined')", TRACEBACK),
        ("Retry(Retry(...), RuntimeError('declined'), 1)", TRACEBACK),
        ("Retry(Retry(...), RuntimeError('declined'), datetime.datetime(2026, 11, 23, 14, 2))", None),
        ("None", TRACEBACK),
        (None, TRACEBACK.replace("in 1s", "at 2026-11-23 14:02:11.5+00:00")),
        ("Retry(Retry(...), None, 1)", TRACEBACK),
    ],
)
def test_a_retry_tells_its_cause(exception: str | None, traceback: str | None) -> None:
    """However the version of Celery reports it."""
    (line,) = shown(message(type="task-retried", uuid="u", exception=exception, traceback=traceback))
    assert line.endswith("  celery@box  RuntimeError: declined")


def test_a_retry_without_a_cause() -> None:
    """self.retry() alone has no cause."""
    (line,) = shown(message(type="task-retried", uuid="u", exception="Retry(Retry(...), None, 1)"))
    assert line.endswith("celery@box")


def test_a_monitor_s_probes_are_not_the_fleet_s() -> None:
    """They are omitted."""
    assert shown(message(type="monitor-probe", hostname="celery-monitor@probe")) == []


def test_what_began_before_is_named_by_the_workers() -> None:
    """A failure whose start was not seen has the name from a worker's answer, or is shown as unnamed."""
    failed = message(type="task-failed", uuid="u1", exception="KeyError('x')")
    stream = _EventPrinter(None, [])
    assert "(unknown)" in next(stream.lines([failed], NOW))
    learned = _EventPrinter(None, [])
    learned.learn([FleetTask("u1", "shop.charge", None, NOW)], NOW)
    assert "shop.charge" in next(learned.lines([failed], NOW))


def test_glob_leaves_only_tasks_of_such_a_name() -> None:
    """Other tasks, workers, tasks without a name and invalid messages are not shown."""
    lines = shown(
        message(type="task-received", uuid="u1", name="shop.charge"),
        message(type="task-received", uuid="u2", name="mail.remind"),
        message(type="task-started", uuid="u3"),
        message(type="worker-heartbeat", active=1, processed=2),
        Delivery(b"garbage"),
        message(type="task-started", uuid="u1"),
        glob="shop.*",
    )
    assert [line.split()[:2] for line in lines] == [["task-received", "shop.charge"], ["task-started", "shop.charge"]]


def test_hostile_text_does_not_reach_the_terminal() -> None:
    """Control characters and line breaks in any field are replaced."""
    evil = "\x1b[2J\nevil\u202e"
    lines = shown(
        message(type="task-received", uuid=evil, name=evil, hostname=evil),
        message(type="task-failed", uuid=evil, exception=f"Error({evil!r})", traceback=evil, hostname=evil),
        message(type=evil),
    )
    assert len(lines) == 3
    assert all("\n" not in line and "\u202e" not in line for line in lines)
    assert all("\x1b" not in line and REPLACEMENT in line for line in lines)


def test_messages_are_redacted_as_the_settings_say() -> None:
    """Text that matches tracking.redact is not shown."""
    import re

    stream = _EventPrinter(None, [re.compile(r"\d{4,}")])
    (line,) = stream.lines([message(type="task-failed", uuid="u", exception="ValueError('card 41111111')")], NOW)
    assert "41111111" not in line
    assert "[redacted]" in line


def test_what_cannot_be_counted_is_told() -> None:
    """A message with another content type and an invalid event each give a line."""
    lines = list(
        _EventPrinter(None, []).lines([Delivery(b"x", "application/x-python-serialize"), Delivery(b"[1]")], NOW)
    )
    assert ["content_type" in lines[0], "malformed" in lines[1]] == [True, True]


def test_a_real_fleet_is_shown_whole() -> None:
    """Every event of a recorded fleet gives a line, and every failure has a name and a class."""
    recorded = [json.loads(line) for line in RECORDING.read_text().splitlines()]
    deliveries = [Delivery(message["body"].encode(), message["content_type"]) for message in recorded]
    lines = shown(*deliveries)
    failed = [line for line in lines if "task-failed" in line]
    assert len(failed) == 20
    assert not [line for line in failed if "(unknown)" in line]
    assert sum("task-succeeded" in line for line in lines) == 48
