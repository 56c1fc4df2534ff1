"""Incidents as alerts of a real Alertmanager, and simulated answers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from msgspec import structs

from celery_monitor.adapters.channels import Channel, CheckState, configured
from celery_monitor.adapters.channels.alertmanager.send import Alertmanagers
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.cli import main
from celery_monitor.core.model import FIRST_UPDATE, REFRESH, Action, Incident, OutboxItem, Severity
from celery_monitor.core.paging import Page
from celery_monitor.errors import ConfigError, RejectedError, RetryableError
from celery_monitor.policy import secrets_of
from celery_monitor.ports import RepeatingSender
from celery_monitor.runtime.repeater import BATCH, Repeater
from celery_monitor.settings import Secret, SecretSource, load
from tests.contracts.values import incident
from tests.servers.alertmanager import Alertmanager
from tests.servers.ports import free_port
from tests.servers.recorder import Answer, Recorder, Request
from tests.servers.waiting import wait_until

CLOCK = SystemClock()


@dataclass
class Running:
    """An Alertmanager, and the notifications that it sends."""

    server: Alertmanager
    notified: Recorder

    def statuses(self, task: str) -> list[str]:
        """The state of each notification about a task's alert."""
        alerts = [alert for request in self.notified.requests for alert in request.json["alerts"]]
        return [alert["status"] for alert in alerts if alert["labels"].get("task") == task]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all tests of the module: each has its own tasks."""
    with Recorder().running() as notified:
        server = Alertmanager(tmp_path_factory.mktemp("alertmanager"), notified.url)
        server.start()
        yield Running(server, notified)
        server.stop()


def an_incident(task: str, **parts: Any) -> Incident:
    """An incident that was opened a minute ago."""
    now = CLOCK.now()
    known = {"task": task, "opened_at": now - 60, "first_at": now - 61, "last_at": now - 1, "count": 3}
    return incident(f"{task}/2026-11-23T12Z", **(known | parts))


def sender(*urls: str, one: Incident | None = None, hold: float = 600.0, **more: Any) -> Alertmanagers:
    """A sender of one incident."""
    known: dict[str, Any] = {"labels": {"team": "billing"}, "username": None, "password": SecretSource(None)}
    return Alertmanagers(
        channel="am",
        urls=urls,
        hold=hold,
        incident=lambda _: one or an_incident("shop.any"),
        clock=CLOCK,
        timeout=60.0,
        external_url="https://monitor.example.com/",
        **(known | more),
    )


def row(one: Incident, action: Action = Action.TRIGGER, **parts: Any) -> OutboxItem:
    """A row of an incident, decided now."""
    now = CLOCK.now()
    priority = FIRST_UPDATE if action is Action.RESOLVE else 1
    return replace(OutboxItem(7, "am", one.key, action, "", 1, 0, now, now, "pending", priority=priority), **parts)


def test_the_life_of_an_incident(running: Running) -> None:
    """It fires, is updated, and resolves; Alertmanager notifies once for each."""
    one = an_incident("shop.life")
    alertmanagers = sender(running.server.url, one=one)
    sent = alertmanagers.send(row(one))
    running.server.until("shop.life", fires=True)
    (alert,) = [alert for alert in running.server.alerts() if alert["labels"]["task"] == "shop.life"]
    assert alert["labels"] == {
        "alertname": "CeleryIncident", "condition": "failure", "fleet": "shop", "incident": one.key,
        "severity": "error", "task": "shop.life", "team": "billing",
    }  # fmt: skip
    assert alert["annotations"]["summary"].startswith("[shop] shop.life failed 3 times")
    assert alert["generatorURL"] == "https://monitor.example.com/incidents/shop.life%2F2026-11-23T12Z"
    wait_until(lambda: running.statuses("shop.life") == ["firing"], 60, what="the notification")

    alertmanagers._incident = lambda _: structs.replace(one, count=9)
    updated = alertmanagers.send(row(one, priority=REFRESH + 1, receipt=sent.receipt))
    (alert,) = [alert for alert in running.server.alerts() if alert["labels"]["task"] == "shop.life"]
    assert (updated.count, alert["annotations"]["failures"]) == (9, "9")

    resolved = alertmanagers.send(row(one, Action.RESOLVE, receipt=updated.receipt))
    assert (resolved.count, resolved.receipt) == (0, sent.receipt)
    running.server.until("shop.life", fires=False)
    wait_until(lambda: running.statuses("shop.life") == ["firing", "resolved"], 60, what="the end")
    # Again, as after a crash between sending and recording.
    alertmanagers.send(row(one, Action.RESOLVE, receipt=updated.receipt))
    assert not running.server.fires("shop.life")


def test_repeated_while_it_is_open(running: Running) -> None:
    """Repeated alerts keep firing beyond their end; others end by themselves."""
    repeated, left = an_incident("shop.kept"), an_incident("shop.left")
    alertmanagers = sender(running.server.url, hold=1.5)
    assert isinstance(alertmanagers, RepeatingSender)

    class Open:
        def open_incidents(self, channel: str, limit: int, cursor: str | None = None) -> Page[Incident]:
            del channel, limit, cursor
            return Page([repeated])

    alertmanagers.repeat([repeated, left])
    repeater = Repeater(Open(), "am", alertmanagers.repeat, CLOCK, 0.2)
    fired = []

    def over() -> bool:
        repeater.run_once()
        fired.append(running.server.fires("shop.kept"))
        return not running.server.fires("shop.left")

    wait_until(over, 60, every=0.1, what="the end of what is not repeated")
    assert all(fired)
    running.server.until("shop.kept", fires=False)


def test_a_rule_that_has_changed(running: Running) -> None:
    """The alert with the old labels ends with the first one that has the new labels."""
    one = an_incident("shop.rule")
    alertmanagers = sender(running.server.url, one=one)
    before = alertmanagers.send(row(one)).receipt
    alertmanagers._incident = lambda _: structs.replace(one, severity=Severity.CRITICAL)
    after = alertmanagers.send(row(one, receipt=before))
    assert after.receipt != before
    firing = [alert["labels"]["severity"] for alert in running.server.alerts() if alert["labels"]["task"] == one.task]
    assert firing == ["critical"]
    # Its severity changes back before the resolve is sent: what ends is what was told.
    alertmanagers._incident = lambda _: one
    alertmanagers.send(row(one, Action.RESOLVE, receipt=after.receipt))
    running.server.until("shop.rule", fires=False)


def test_labels_that_change_over_a_restart(running: Running) -> None:
    """Repetitions have the new labels: the resolution ends the alerts with both."""
    one = an_incident("shop.labels")
    opened = sender(running.server.url, one=one).send(row(one))
    restarted = sender(running.server.url, one=one, labels={"team": "payments"})
    restarted.repeat([one])
    alerts = [alert for alert in running.server.alerts() if alert["labels"]["task"] == one.task]
    assert sorted(alert["labels"]["team"] for alert in alerts) == ["billing", "payments"]
    restarted.send(row(one, Action.RESOLVE, receipt=opened.receipt))
    running.server.until("shop.labels", fires=False)


@pytest.mark.parametrize("char", ["\x00", "\ud800", "\U0001f600", '"', "\\", "\n", "{{"])
def test_hostile_names(running: Running, char: str) -> None:
    """Alertmanager accepts the alert, whatever text a task controls."""
    long, task = char * 3_000, f"hostile{ord(char[0])}"
    one = an_incident(
        f"{task}{long}", fleet=long, rule=long, message=long, exceptions={long: 3}, workers={long: 1},
        samples=(long,) * 5,
    )  # fmt: skip
    sender(running.server.url, one=one).send(row(one))
    wait_until(lambda: any(a["labels"].get("task", "").startswith(task) for a in running.server.alerts()), 60)


def test_one_of_several_is_down(running: Running) -> None:
    """The others get it without waiting for the failed one again; if none answers, all are tried, and later again."""
    one = an_incident("shop.several")
    with Recorder(lambda _: None).running() as broken:
        alertmanagers = sender(broken.url, running.server.url, one=one)
        for _ in range(3):
            alertmanagers.send(row(one))
        assert running.server.fires("shop.several")
        assert len(broken.requests) == 1
        alertmanagers = sender(broken.url, broken.url + "/", one=one)
        for _ in range(2):
            with pytest.raises(RetryableError, match=broken.url.removeprefix("http://")):
                alertmanagers.send(row(one))
        assert len(broken.requests) == 5


@pytest.mark.parametrize(
    ("answer", "error", "repair"),
    [
        (Answer(400, b"bad label"), RejectedError, False),
        (Answer(401, b"hunter2 is wrong"), RetryableError, True),
        (Answer(404), RetryableError, True),
        (Answer(302, headers=(("location", "/"),)), RetryableError, True),
        (Answer(429, headers=(("retry-after", "17"),)), RetryableError, False),
        (Answer(503), RetryableError, False),
        (None, RetryableError, False),
    ],
)
def test_other_answers(answer: Answer | None, error: type[Exception], repair: bool) -> None:  # noqa: FBT001 - a table
    """Rejected alerts are given up; others are retried, rarely if somebody has to repair something."""
    with Recorder(lambda _: answer).running() as server:
        alertmanagers = sender(server.url, username="monitor", password=SecretSource(Secret("hunter2")))
        with pytest.raises(error) as caught:
            alertmanagers.send(row(an_incident("shop.any")))
    assert getattr(caught.value, "needs_repair", False) is repair
    assert getattr(caught.value, "after", None) == (17.0 if answer and answer.status == 429 else None)
    assert "hunter2" not in str(caught.value)
    (request,) = server.requests
    assert (request.path, request.headers["authorization"]) == ("/api/v2/alerts", "Basic bW9uaXRvcjpodW50ZXIy")


def test_many_large_alerts_are_repeated() -> None:
    """A proxy that accepts 1 MB gets a batch of incidents with long texts in several requests, and each alert once."""
    long = "\N{PILE OF POO}" * 4_000
    incidents = [
        an_incident(f"shop.t{n}", message=long, exceptions={f"{k}{long}": 1 for k in range(9)}) for n in range(BATCH)
    ]

    def answer(request: Request) -> Answer:
        return Answer(413 if len(request.body) > 1_000_000 else 200)

    with Recorder(answer).running() as server:
        sender(server.url).repeat(incidents)
        sent = [alert["labels"]["task"] for request in server.requests for alert in request.json]
        assert sent == [one.task for one in incidents]
        server.requests.clear()
        server.answer = lambda _: Answer(413 if len(server.requests) == 1 else 200)
        with pytest.raises(RejectedError):
            sender(server.url).repeat(incidents)
        assert [alert["labels"]["task"] for request in server.requests for alert in request.json] == sent
        server.requests.clear()
        sender(server.url).repeat(incidents[:0])
        assert server.requests == []


def channel(**entry: Any) -> Channel:
    """The channel of a configuration."""
    known = {"name": "am", "type": "alertmanager", "urls": ["http://am:9093/"]}
    found = configured(load(None, {"channels": [known | entry]}, {}))
    return next(one for one in found if one.name == "am")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"urls": []}, "channels[0].urls: must list at least 1"),
        ({"urls": ["am:9093"]}, "channels[0].urls[0]: must be a URL like"),
        ({"urls": ["http://u:hunter2@am:9093"]}, "channels[0].urls[0]: must not contain a user name or password"),
        ({"username": "monitor"}, "channels[0].password: must be set with a user name"),
        ({"labels": {"my-team": "x"}}, "channels[0].labels: 'my-team' is not a label name"),
        ({"labels": {"severity": "x"}}, "channels[0].labels: severity is set by the monitor"),
        ({"repeat": "5m"}, "channels[0].resolve_timeout: must be at least three times repeat"),
        ({"repeat": 5}, "channels[0].repeat: has no unit"),
    ],
)
def test_settings(entry: dict[str, Any], problem: str) -> None:
    """The error gives the path and the valid form, and never a secret."""
    with pytest.raises(ConfigError) as caught:
        channel(**({"resolve_timeout": "10m"} | entry))
    assert str(caught.value).startswith(problem)
    assert "hunter2" not in str(caught.value)


def test_the_defaults(tmp_path: Path) -> None:
    """They are valid, a copied API URL is accepted as its base, and the password is hidden in logs."""
    file = tmp_path / "password"
    file.write_text("hunter2-of-alertmanager")
    entry = {"urls": ["http://am:9093/api/v2/alerts"], "username": "monitor", "password_file": str(file)}
    one = channel(**entry)
    assert (one.repeat, one.summary) == (60.0, "on, to http://am:9093")
    known = {"name": "am", "type": "alertmanager"} | entry
    assert "hunter2-of-alertmanager" in set(secrets_of(load(None, {"channels": [known]}, {}))())


def test_the_commands(running: Running, tmp_path: Path) -> None:
    """The test alert fires and is marked as a test; the check fires nothing, and names an unreachable Alertmanager."""
    down = f"http://127.0.0.1:{free_port()}"
    file = tmp_path / "monitor.yaml"
    entry = {"name": "am", "type": "alertmanager", "urls": [running.server.url]}
    file.write_text(yaml.safe_dump({"fleet": "shop", "channels": [entry]}))
    result = CliRunner().invoke(main, ["notify", "test", "am", "--config", str(file)])
    assert result.exit_code == 0, result.output
    (alert,) = [alert for alert in running.server.alerts() if "test" in alert["labels"]]
    assert "nothing failed" in alert["annotations"]["summary"]
    assert alert["labels"]["test"] in result.output
    for urls, state in (
        ([running.server.url], CheckState.OK),
        ([running.server.url, down], CheckState.WARN),
        ([down], CheckState.FAIL),
        ([f"{running.server.url}/nothing"], CheckState.FAIL),
    ):
        assert channel(urls=urls).check().state is state
