"""The real Apprise, sending to a real HTTP server with its JSON service."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from celery_monitor.adapters.channels import Channel, CheckState, configured
from celery_monitor.adapters.channels.apprise import channel as apprise_channel
from celery_monitor.adapters.channels.apprise.send import Apprise, message_of
from celery_monitor.cli import main
from celery_monitor.core.model import FIRST_UPDATE, REFRESH, Action, MessageKind, OutboxItem
from celery_monitor.errors import ConfigError, InterruptedSendError, RejectedError, RetryableError
from celery_monitor.policy import secrets_of
from celery_monitor.ports import Sent
from celery_monitor.settings import Secret, SecretSource, load
from tests.contracts.values import NOW, incident
from tests.servers.ports import free_port
from tests.servers.recorder import Answer, Recorder

KEY = "shop.charge/2026-11-23T12Z"
ROW = OutboxItem(7, "chat", KEY, Action.TRIGGER, "", 1, 0, NOW, NOW, "pending", priority=1)
RESOLVE = replace(ROW, id=9, action=Action.RESOLVE, priority=FIRST_UPDATE)
TOKEN = "very-secret-token"


@pytest.fixture
def server() -> Iterator[Recorder]:
    """Accepts the messages of Apprise."""
    with Recorder().running() as running:
        yield running


def url_of(server: Recorder) -> str:
    """An Apprise URL of the server."""
    return f"{server.url.replace('http', 'json')}/{TOKEN}"


def sender(url: str, timeout: float = 120.0) -> Apprise:
    """A sender of one incident."""
    return Apprise(
        channel="chat",
        url=SecretSource(Secret(url)),
        timeout=timeout,
        incident=lambda _: incident(KEY, count=3, message="card declined"),
        external_url="https://monitor.example.com",
    )


def test_the_life_of_an_incident(server: Recorder) -> None:
    """A message when it opens, none for further failures, and one when it resolves."""
    one = sender(url_of(server))
    sent = one.send(ROW)
    assert (sent.count, one.send(RESOLVE)) == (3, Sent(0))
    assert one.send(replace(ROW, id=8, priority=REFRESH, receipt="x")) == Sent(0, "x", skipped=True)
    one.send(replace(RESOLVE, receipt=sent.receipt))
    opened, ended = (request.json for request in server.requests)
    assert opened["title"].startswith("[shop] shop.charge failed 3 times")
    assert (opened["type"], ended["type"]) == ("failure", "success")
    assert "https://monitor.example.com/incidents/shop.charge%2F2026-11-23T12Z" in opened["message"]
    assert ended["title"].startswith("Resolved: ")


def test_what_fails_is_tried_again_without_the_secret(server: Recorder) -> None:
    """Apprise does not report the reason; its log output is shown without the URL's parts."""
    server.answer = lambda _: Answer(403)
    errors = []
    for url in (url_of(server), f"json://127.0.0.1:{free_port()}/{TOKEN}"):
        with pytest.raises(RetryableError) as caught:
            sender(url).send(ROW)
        assert not caught.value.needs_repair
        errors.append(str(caught.value))
    with pytest.raises(RetryableError, match="Apprise cannot use the URL of chat") as caught:
        sender(f"nonsense://{TOKEN}").send(ROW)
    assert caught.value.needs_repair
    assert not any(TOKEN in text for text in (*errors, str(caught.value)))


def test_a_service_that_does_not_answer(server: Recorder) -> None:
    """Its process is killed at the timeout, and when the program stops."""
    asked, over = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        asked.set()
        over.wait(60)

    server.answer = hang
    one = sender(url_of(server))

    def end() -> None:
        asked.wait(60)
        one.stop()

    ending = threading.Thread(target=end)
    ending.start()
    try:
        with pytest.raises(InterruptedSendError):
            one.send(ROW)
        with pytest.raises(InterruptedSendError):
            one.send(ROW)
        with pytest.raises(RetryableError, match=r"within 0\.1 s"):
            sender(url_of(server), timeout=0.1).send(ROW)
    finally:
        over.set()
        ending.join()


@pytest.mark.parametrize("evil", ["@everyone", "<!channel>", "<@U1>", "@here", "<b>", "</b>"])
def test_nobody_is_mentioned(evil: str) -> None:
    """Text that a task controls is broken up where a service would interpret it."""
    one = incident(KEY, task=evil, message=evil, traceback=evil, exceptions={evil: 1})
    message = message_of(one, MessageKind.OPENED, None)
    assert evil not in f"{message}"


def test_without_an_incident_and_without_a_url() -> None:
    """Neither is retried."""
    one = sender("json://h")
    one._incident = lambda _: None
    with pytest.raises(RejectedError, match="no longer stored"):
        one.send(ROW)
    nothing = Apprise(channel="chat", url=SecretSource(None), timeout=1.0, incident=lambda _: None)
    assert nothing.rate_limit_key(ROW) is None


def channel(url: str) -> Channel:
    """The channel of a configuration."""
    entry = {"name": "chat", "type": "apprise", "url": url}
    return next(one for one in configured(load(None, {"channels": [entry]}, {})) if one.name == "chat")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({}, "channels[0].url: is required, here or by url_file"),
        ({"url": "hunter2"}, "channels[0].url: must be one Apprise URL"),
        ({"url": "json://a hunter2://b"}, "channels[0].url: must be one Apprise URL"),
        ({"url": "json://h", "timeout": "1s"}, "channels[0].timeout: "),
    ],
)
def test_settings(entry: dict[str, Any], problem: str) -> None:
    """The error does not contain the secret."""
    with pytest.raises(ConfigError) as caught:
        load(None, {"channels": [{"name": "chat", "type": "apprise"} | entry]}, {})
    assert str(caught.value).startswith(problem)
    assert "hunter2" not in str(caught.value)


def test_it_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it is not installed, the configuration error gives the remedy."""
    monkeypatch.setattr(apprise_channel, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"channels\[0\].type: Apprise is not installed: pip install"):
        channel("json://h")


def test_commands_and_secrets(server: Recorder, tmp_path: Path) -> None:
    """The test message is sent, the check sends none, and every part of the URL is hidden in the log."""
    file = tmp_path / "monitor.yaml"
    entry = {"name": "chat", "type": "apprise", "url": url_of(server)}
    file.write_text(yaml.safe_dump({"fleet": "shop", "channels": [entry]}))
    result = CliRunner().invoke(main, ["notify", "test", "chat", "--config", str(file)])
    assert result.exit_code == 0, result.output
    assert "nothing failed" in server.requests[0].json["message"]
    assert channel(url_of(server)).check().state is CheckState.OK
    assert channel(f"nonsense://{TOKEN}").check().state is CheckState.FAIL
    assert len(server.requests) == 1
    hidden = set(secrets_of(load(None, {"channels": [entry]}, {}))())
    assert {TOKEN, url_of(server)} <= hidden
