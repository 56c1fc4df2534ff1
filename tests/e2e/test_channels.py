"""Several channels: one that hangs does not delay others, and a killed daemon notifies each once."""

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from tests import outcomes
from tests.conftest import Start
from tests.e2e.campaign import seeded
from tests.e2e.daemon import Daemon
from tests.e2e.paging import (
    HOUR,
    KEY,
    Failing,
    assert_opened_once,
    in_one_hour,
    pager,
    publish,
    publish_events,
    publishing,
    succeeding,
    wait_until_reported,
    whole_hours,
)
from tests.servers.alertmanager import Alertmanager
from tests.servers.pagerduty import PagerDutyServer
from tests.servers.recorder import Recorder
from tests.servers.slack import CHANNEL, TOKEN, SlackServer
from tests.servers.waiting import wait_until

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
MANY = 1_000_000


def listed(daemon: Daemon, path: str) -> list[dict[str, Any]]:
    """The items of a list of the API."""
    items: list[dict[str, Any]] = json.loads(daemon.get(f"/api/v1/{path}")[1])["items"]
    return items


def with_channels(daemon: Daemon, *entries: dict[str, Any], to: Sequence[str]) -> Daemon:
    """The daemon, whose incidents are sent to these channels."""
    daemon.settings["channels"] = cast("dict[str, Any]", list(entries))
    daemon.settings.setdefault("alerts", {}).update({"to": list(to), "max_age": "4h", "storm": {"tasks": MANY}})
    return daemon


def chat(server: SlackServer, **more: Any) -> dict[str, Any]:
    """A channel of that Slack server."""
    known = {"name": "chat", "type": "slack", "bot_token": TOKEN, "channel": CHANNEL, "api_url": server.url}
    return known | {"timeout": "60s", "rate_limit": MANY} | more


@pytest.fixture
def slack() -> Iterator[SlackServer]:
    """One that runs."""
    with SlackServer().running() as running:
        yield running


def posted(slack: SlackServer) -> Counter[str]:
    """Task → messages that are not replies."""
    return Counter(one.text.split(" failed")[0].rpartition("] ")[2] for one in slack.threads())


def test_a_channel_that_hangs(rabbitmq_url: str, slack: SlackServer, start: Start, tmp_path: Path) -> None:
    """PagerDuty has every incident while Slack has not answered once; then Slack gets each, once."""
    began = whole_hours(1) + HOUR / 2
    failures = [Failing(f"shop.task{number}", began + number) for number in range(8)]
    slack.gate = threading.Event()
    with PagerDutyServer(keys={KEY}) as pagerduty:
        daemon = pager(tmp_path, rabbitmq_url, pagerduty)
        start(with_channels(daemon, chat(slack), to=["pagerduty", "chat"])).until_ready()
        publish(rabbitmq_url, failures)
        wait_until_reported(pagerduty, failures)
        wait_until(lambda: slack.requests, 60, what="a request to Slack")
        assert slack.messages == []
        slack.gate.set()
        wait_until(lambda: len(slack.threads()) >= len(failures), 60, what="all messages")
        assert_opened_once(pagerduty, failures)

    def delivered() -> bool:
        incidents = listed(daemon, "incidents")
        found = {(one["channel"], one["state"]) for incident in incidents for one in incident["deliveries"]}
        return found == {("pagerduty", "delivered"), ("chat", "delivered")}

    wait_until(delivered, 60, what="the record of all deliveries")
    assert posted(slack) == dict.fromkeys((failing.task for failing in failures), 1)
    assert slack.violations == []
    log = daemon.log.read_text()
    assert TOKEN not in log
    assert KEY not in log


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.campaign)])
def test_killed_daemon(kills: int, rabbitmq_url: str, slack: SlackServer, start: Start, tmp_path: Path) -> None:
    """Kill -9 at random moments, some between a message and its record: each channel is notified of each incident once.

    A webhook may be sent twice and is recognised by its ID; a repeated alert is the same alert.
    """
    randomly = seeded()
    began = whole_hours(1) + HOUR / 2
    number = kills * 8
    failures = [Failing(f"shop.task{n}", began + n / 9) for n in range(number)]
    between: list[Failing] = []
    alertmanager = start(Alertmanager(tmp_path / "alertmanager"))
    with Recorder().running() as hooks:
        daemon = with_channels(
            Daemon(tmp_path / "daemon", rabbitmq_url),
            chat(slack),
            {"name": "hook", "type": "webhook", "url": hooks.url, "secret": SECRET, "rate_limit": MANY},
            {"name": "am", "type": "alertmanager", "urls": [alertmanager.url], "rate_limit": MANY, "repeat": "5s"},
            to=["chat", "hook", "am"],
        )
        start(daemon).until_ready()
        with publishing(rabbitmq_url, failures, rate=20) as progress:
            for kill, moment in enumerate(sorted(randomly.randrange(number) for _ in range(kills))):
                progress.until(moment)
                if kill % 2 == 0:
                    more = [Failing(f"shop.more{kill}", began)]
                    between += more
                    killed_between_message_and_record(rabbitmq_url, slack, daemon, more)
                else:
                    daemon.kill()
                daemon.launch()
        daemon.until_ready()
        tasks = {failing.task for failing in (*failures, *between)}
        wait_until(lambda: posted(slack).keys() >= tasks, 90, what="all messages")
        wait_until(lambda: {event["data"]["task"] for event in events(hooks)} >= tasks, 90, what="all events")
        wait_until(lambda: {one["labels"]["task"] for one in alertmanager.alerts()} >= tasks, 90, what="all alerts")
        wait_until(lambda: listed(daemon, "outbox") == [], 90, what="the record of all deliveries")
    assert posted(slack) == dict.fromkeys(tasks, 1)
    assert slack.violations == []
    ids = defaultdict(set)
    for request in hooks.requests:
        ids[request.json["data"]["task"], request.json["type"]].add(request.headers["webhook-id"])
    assert {message: len(known) for message, known in ids.items()} == {(task, "incident.opened"): 1 for task in tasks}
    assert len(alertmanager.alerts()) == len(tasks)
    outcomes.figures("Slack, webhook, Alertmanager", kills=kills, incidents=len(tasks))


def events(hooks: Recorder) -> list[dict[str, Any]]:
    """The events that the webhook received."""
    return [request.json for request in list(hooks.requests)]


def killed_between_message_and_record(url: str, slack: SlackServer, daemon: Daemon, more: Sequence[Failing]) -> None:
    """Kill the daemon when Slack has a message whose sender waits for the answer."""
    slack.answering = threading.Event()
    before = len(slack.messages)
    publish(url, more)
    wait_until(lambda: len(slack.messages) > before, 60, what="a message")
    daemon.kill()
    slack.answering.set()


FIRING_FOR = 600.0
"""Seconds: ten repetitions by the default settings, and as long as an alert outlives its last one."""


@pytest.mark.campaign
def test_an_open_incident_keeps_firing(rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """With the default intervals, over a kill and an absence of two minutes; it is notified at its begin and its end.

    That Alertmanager resolves by itself what has no end after 5 s does not matter.
    """
    with Recorder().running() as notified:
        server = start(Alertmanager(tmp_path / "am", notified.url, resolve_timeout="5s"))
        daemon = Daemon(tmp_path / "daemon", rabbitmq_url)
        with_channels(daemon, {"name": "am", "type": "alertmanager", "urls": [server.url]}, to=["am"])
        daemon.settings["alerts"] |= {"resolve": "on_success", "resolve_after": "1s"}
        start(daemon)
        daemon.until_ready()
        failing = Failing("shop.billing", in_one_hour(FIRING_FOR + 120))
        publish(rabbitmq_url, [failing])
        server.until("shop.billing", fires=True)
        began = time.monotonic()

        def fires_until(seconds: float) -> None:
            def over() -> bool:
                assert server.fires("shop.billing"), f"after {time.monotonic() - began:.0f} s"
                return time.monotonic() - began > seconds

            wait_until(over, FIRING_FOR + 60, every=2.0)

        fires_until(0.2 * FIRING_FOR)
        daemon.kill()
        daemon.start()
        fires_until(0.4 * FIRING_FOR)
        daemon.stop()
        fires_until(0.6 * FIRING_FOR)
        daemon.start()
        fires_until(FIRING_FOR)
        publish_events(rabbitmq_url, succeeding("shop.billing", time.time()))
        server.until("shop.billing", fires=False)
        wait_until(lambda: len(notified.requests) > 1, 60, what="the notification of the end")
        notified_states = [alert["status"] for request in notified.requests for alert in request.json["alerts"]]
        assert notified_states == ["firing", "resolved"]
        outcomes.figures("Alertmanager", seconds=round(time.monotonic() - began), notifications=len(notified_states))
