"""Slack with a bot and an incoming webhook, against a server that checks Slack's documented rules."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from msgspec import structs

from celery_monitor.adapters.channels import Channel, CheckState, configured
from celery_monitor.adapters.channels.slack.bot import SlackBot
from celery_monitor.adapters.channels.slack.render import escaped, message
from celery_monitor.adapters.channels.slack.webhook import SlackWebhook
from celery_monitor.cli import main
from celery_monitor.core.model import FIRST_UPDATE, REFRESH, STORM, Action, Incident, MessageKind, OutboxItem, Reason
from celery_monitor.errors import (
    ConfigError,
    DeliveryError,
    InterruptedSendError,
    RejectedError,
    RetryableError,
    StoreUnavailableError,
)
from celery_monitor.policy import secrets_of
from celery_monitor.ports import Sent
from celery_monitor.settings import Secret, SecretSource, load
from tests.contracts.values import NOW, incident
from tests.fakes import ManualClock
from tests.servers.ports import free_port
from tests.servers.recorder import Answer
from tests.servers.slack import CHANNEL, TOKEN, WEBHOOK, SlackServer, refused, throttled

KEY = "shop.charge/2026-11-23T12Z"
ROW = OutboxItem(7, "chat", KEY, Action.TRIGGER, "", 1, 0, NOW, NOW, "pending", priority=1)
BOT = {"name": "chat", "type": "slack", "bot_token": TOKEN, "channel": CHANNEL}
HOOK = {"name": "chat", "type": "slack", "webhook_url": f"https://hooks.slack.com{WEBHOOK}"}


@pytest.fixture
def server() -> Iterator[SlackServer]:
    """A running server; all messages that it receives must be within the limits and mention nobody."""
    with SlackServer().running() as running:
        yield running
    assert running.violations == []


class Bench:
    """A bot, its incident, and the stored rows."""

    def __init__(self, url: str) -> None:
        self.one: Incident = incident(
            KEY, count=3, message="card declined", runbook_url="https://wiki.example/x?a=1&b=2"
        )
        self.rows: dict[int, OutboxItem] = {}
        self.receipt: str | None = None
        self.store_away = False
        self.url = url
        self.start()

    def start(self) -> None:
        """Start as after a restart, with only the stored state."""
        self.bot = SlackBot(
            channel="chat",
            api_url=self.url,
            token=SecretSource(Secret(TOKEN)),
            to=CHANNEL,
            incident=lambda _: self.one,
            note=self.note,
            clock=ManualClock(time=NOW),
            timeout=60.0,
            external_url="https://monitor.example.com/",
        )

    def note(self, item: OutboxItem, progress: str) -> None:
        if self.store_away:
            raise StoreUnavailableError("away")
        self.rows[item.id] = replace(self.rows[item.id], progress=progress)

    def send(self, item: OutboxItem) -> Sent:
        """Send a stored row, with the receipt of earlier deliveries."""
        item = self.rows.setdefault(item.id, item)
        sent = self.bot.send(replace(item, receipt=self.receipt))
        self.receipt = sent.receipt or self.receipt
        return sent


@pytest.fixture
def bench(server: SlackServer) -> Bench:
    """A bot for the server's channel."""
    return Bench(server.url)


def update(number: int, **parts: Any) -> OutboxItem:
    """Row ``number``, an update."""
    return replace(ROW, id=number, priority=REFRESH + 1, **parts)


def resolve(number: int) -> OutboxItem:
    """Row ``number``, a resolution."""
    return replace(ROW, id=number, action=Action.RESOLVE, priority=FIRST_UPDATE)


def test_the_life_of_an_incident(bench: Bench, server: SlackServer) -> None:
    """One message, updated in place, with replies in its thread; a reopening is also shown in the channel."""
    assert bench.send(ROW).count == 3
    (first,) = server.messages
    assert "shop.charge failed 3 times" in first.text
    assert "card declined" in str(first.blocks)
    assert "<https://monitor.example.com/incidents/shop.charge%2F2026-11-23T12Z|Incident>" in str(first.blocks)
    assert "<https://wiki.example/x?a=1&amp;b=2|Runbook>" in str(first.blocks)
    bench.one = structs.replace(bench.one, count=9)
    assert bench.send(update(8)).count == 9
    assert bench.send(resolve(9)).count == 0
    bench.send(replace(ROW, id=10))
    assert len(server.threads()) == 1
    assert server.threads()[0].updates == 3
    assert [(one.text.split(":")[0].lstrip("✅ "), one.broadcast) for one in server.replies()] == [
        ("Update", False), ("Resolved", False), ("Open again", True),
    ]  # fmt: skip
    assert "9 times" in server.threads()[0].text
    assert {one.thread_ts for one in server.replies()} == {first.ts}


def test_an_end_that_nobody_was_told_the_beginning_of(bench: Bench, server: SlackServer) -> None:
    """Nothing is posted."""
    assert bench.send(resolve(9)) == Sent(0)
    assert server.requests == []


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("row", [ROW, update(8), resolve(9)])
def test_a_lost_answer_posts_nothing_twice(
    bench: Bench, server: SlackServer, row: OutboxItem, *, restarted: bool
) -> None:
    """A message that was accepted without an answer is found in the channel or thread, also by the next process."""
    server.page = 2
    if row is not ROW:
        bench.send(ROW)
        server.script.append(_PASS)
    for number in range(5):  # what others have posted before
        server._add({"text": f"lunch {number}"})
    server.script.append("lost")
    with pytest.raises(RetryableError):
        bench.send(row)
    if restarted:
        bench.start()
    bench.send(row)
    assert len([one for one in server.threads() if "shop.charge" in one.text]) == 1
    assert len(server.replies()) == (row is not ROW)


_PASS: Any = Answer(200, b'{"ok":true,"ts":"1"}')
"""In place of chat.update."""


def test_a_post_that_was_not_taken_is_posted(bench: Bench, server: SlackServer) -> None:
    """The search does not find it, so it is posted; a row that was never tried is not searched for."""
    server.script.append(None)
    with pytest.raises(RetryableError):
        bench.send(ROW)
    assert server.methods() == ["chat.postMessage"]
    bench.send(ROW)
    assert server.methods() == ["chat.postMessage", "conversations.history", "chat.postMessage"]
    assert len(server.messages) == 1


def test_without_the_scope_it_is_posted_again(bench: Bench, server: SlackServer) -> None:
    """Better twice than not at all."""
    server.scopes.discard("channels:history")
    server.script.append("lost")
    with pytest.raises(RetryableError):
        bench.send(ROW)
    bench.send(ROW)
    assert len(server.messages) == 2


@pytest.mark.parametrize("answer", [refused("internal_error"), refused("ratelimited"), throttled(17), Answer(503)])
@pytest.mark.parametrize("row", [ROW, update(8), resolve(9)])
def test_a_search_that_fails_for_a_while_posts_nothing_twice(
    bench: Bench, server: SlackServer, row: OutboxItem, answer: Answer
) -> None:
    """After a temporary error of the search, the next attempt searches again instead of posting the message again."""
    if row is not ROW:
        bench.send(ROW)
        server.script.append(_PASS)
    server.script.append("lost")
    server.searches.append(answer)
    for _ in range(2):
        with pytest.raises(RetryableError):
            bench.send(row)
    bench.send(row)
    assert (len(server.threads()), len(server.replies())) == (1, int(row is not ROW))


def test_the_store_is_away(bench: Bench, server: SlackServer) -> None:
    """A page does not wait for its claim; while the process lives, nothing is posted twice."""
    bench.store_away = True
    server.script.append("lost")
    with pytest.raises(RetryableError):
        bench.send(ROW)
    bench.send(ROW)
    assert len(server.messages) == 1
    bench.receipt = None
    bench.send(replace(ROW, id=-1))  # from memory: there is no row to keep anything with
    assert len(server.messages) == 2


def test_a_message_that_is_gone(bench: Bench, server: SlackServer) -> None:
    """For a deleted message, an update posts it again, and a resolution posts nothing."""
    bench.send(ROW)
    server.messages.clear()
    bench.send(update(8))
    assert len(server.threads()) == 1
    server.messages.clear()
    bench.send(resolve(9))
    assert server.messages == []


@pytest.mark.parametrize("receipt", ["msg_1f0c", "<incident-1@example.com>", '{"alertname": "x"}', ":", "C9:", "C9:x"])
def test_a_channel_that_had_another_type(bench: Bench, server: SlackServer, receipt: str) -> None:
    """The receipt of another sender names no message of the bot: an update posts one, a resolution posts nothing."""
    bench.receipt = receipt
    assert bench.send(resolve(9)).count == 0
    assert server.requests == []
    bench.send(update(8))
    assert [one.text.startswith("\N{LARGE ORANGE CIRCLE}") for one in server.threads()] == [True]
    bench.send(resolve(9))
    assert (len(server.threads()), server.threads()[0].updates) == (1, 1)


def test_another_channel_of_slack(bench: Bench, server: SlackServer) -> None:
    """A message in a channel that the bot cannot reach any more is posted in the new one."""
    bench.receipt = "C0OLD:1700000000.000100"
    bench.send(resolve(7))
    assert server.messages == []
    bench.send(replace(ROW, id=8))
    assert (len(server.threads()), bench.receipt) == (1, f"{CHANNEL}:{server.threads()[0].ts}")


@pytest.mark.parametrize(
    ("answer", "error", "repair", "after"),
    [
        (throttled(17), RetryableError, False, 17.0),
        (Answer(503), RetryableError, False, None),
        (Answer(200, b"<html>proxy</html>"), RetryableError, True, None),
        (Answer(404), RetryableError, True, None),
        (Answer(200, b'{"ok":'), RetryableError, True, None),
        (refused("internal_error"), RetryableError, False, None),
        (refused("invalid_auth"), RetryableError, True, None),
        (refused("not_in_channel"), RetryableError, True, None),
        (refused("an_error_of_tomorrow"), RetryableError, True, None),
        (refused("msg_too_long"), RejectedError, False, None),
        (None, RetryableError, False, None),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_answers(
    bench: Bench, server: SlackServer, answer: Answer | None, error: type[DeliveryError], *, repair: bool,
    after: float | None, first: bool,
) -> None:  # fmt: skip
    """Temporary errors are retried, those that somebody has to repair rarely, and permanent ones are given up."""
    if not first:
        bench.send(ROW)
    server.script.append(answer)
    with pytest.raises(error) as caught:
        bench.send(ROW if first else update(8))
    assert (getattr(caught.value, "needs_repair", False), getattr(caught.value, "after", None)) == (repair, after)
    assert TOKEN not in str(caught.value)
    assert bool(caught.value.remedy) is repair or answer is None


def webhook(url: str, one: Incident | None = None) -> SlackWebhook:
    """A sender with an incoming webhook."""
    return SlackWebhook(
        channel="chat",
        url=SecretSource(Secret(url)),
        incident=lambda _: one or incident(KEY, count=3),
        clock=ManualClock(time=NOW),
        timeout=60.0,
    )


def test_the_incoming_webhook(server: SlackServer) -> None:
    """A message when it opens and one when it resolves; an update sends nothing and reports that."""
    sender = webhook(server.webhook_url)
    sent = sender.send(ROW)
    assert (sent.count, sender.send(update(8, receipt=sent.receipt))) == (3, Sent(0, sent.receipt, skipped=True))
    assert sender.send(replace(resolve(9), receipt=sent.receipt)) == Sent(0, sent.receipt)
    assert sender.send(resolve(9)) == Sent(0)
    opened, ended = server.messages
    assert "shop.charge failed 3 times" in opened.text
    assert "Resolved:" in ended.text


@pytest.mark.parametrize(
    ("answer", "error", "repair"),
    [
        (throttled(17), RetryableError, False),
        (Answer(500, b"rollup_error"), RetryableError, False),
        (Answer(400, b"invalid_payload"), RejectedError, False),
        (Answer(404, b"no_service"), RetryableError, True),
        (Answer(410, b"channel_is_archived"), RetryableError, True),
        (Answer(403, b"action_prohibited " + WEBHOOK.encode()), RetryableError, True),
        (None, RetryableError, False),
    ],
)
def test_answers_of_the_webhook(
    server: SlackServer, answer: Answer | None, error: type[DeliveryError], *, repair: bool
) -> None:
    """Like those of the API, without the URL, which is secret."""
    server.script.append(answer)
    with pytest.raises(error) as caught:
        webhook(server.webhook_url).send(ROW)
    assert getattr(caught.value, "needs_repair", False) is repair
    assert "XXXX" not in f"{caught.value} {caught.value.remedy}"


def test_a_server_that_is_away() -> None:
    """The error contains neither the token nor the URL."""
    away = f"http://127.0.0.1:{free_port()}"
    for sender in (Bench(away), webhook(f"{away}{WEBHOOK}")):
        with pytest.raises(RetryableError) as caught:
            sender.send(ROW)
        assert not any(secret in f"{caught.value} {caught.value.remedy}" for secret in (TOKEN, "XXXX"))


def test_stopped(server: SlackServer) -> None:
    """A stopped sender sends nothing, and that does not count as an attempt."""
    sender = webhook(server.webhook_url)
    sender.stop()
    with pytest.raises(InterruptedSendError):
        sender.send(ROW)


@pytest.mark.parametrize(
    "evil",
    [
        "x", "&", "<", "<!channel>", "<!here|here>", "<@U123>", "@channel ", "@here", "@Everyone", "*", "`", "```",
        "_~>",         "\x00", "\ud800", "\U0001f600", "\n", "<https://evil.example|Runbook>", "&lt;!channel&gt;",
    ],
)  # fmt: skip
def test_hostile_texts(server: SlackServer, evil: str) -> None:
    """Text that a task controls mentions nobody, adds no links, and stays within every limit."""
    for times in (1, 5_000):
        long = evil * times
        names = {f"{long[:1_000]}{number}": number for number in range(30)}
        one = incident(
            KEY, task=long, fleet=long, rule=long, message=long, traceback=long, exceptions=names, workers=names,
            queues=names, tasks=names, samples=(long[:300],) * 5, count=30,
        )  # fmt: skip
        storm = structs.replace(one, task=STORM, reason=Reason.STORM_OPENED)
        for state, then in ((one, update(8)), (storm, resolve(9))):
            bench = Bench(server.url)
            bench.one = state
            bench.send(ROW)
            bench.send(then)
            assert len(server.replies()) == 1
            server.messages.clear()


def test_escaping() -> None:
    """A text is cut between escaped characters."""
    assert escaped("a<b>&c", 100) == "a&lt;b&gt;&amp;c"
    assert escaped("<<<<", 10) == "&lt;&lt;…"
    rendered = message(incident(KEY, traceback="Traceback\n  x < y & z\nValueError: ```"), MessageKind.OPENED, None)
    texts = [block["text"]["text"] for block in rendered["blocks"] if "text" in block]
    assert "```Traceback\n  x &lt; y &amp; z\nValueError: '''```" in texts


def channel(entry: dict[str, Any], **more: Any) -> Channel:
    """The channel of a configuration."""
    found = configured(load(None, {"channels": [entry | more]}, {}))
    return next(one for one in found if one.name == "chat")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (
            {"name": "chat", "type": "slack"},
            "channels[0].webhook_url: is required, here or by webhook_url_file; or set",
        ),
        (BOT | HOOK, "channels[0].bot_token: set either webhook_url or bot_token, not both"),
        (BOT | {"channel": None}, "channels[0].channel: is required with bot_token"),
        (BOT | {"channel": "#alerts"}, "channels[0].channel: must be the ID of a channel, like C0123456789"),
        (HOOK | {"channel": CHANNEL}, "channels[0].channel: an incoming webhook has a channel of its own"),
        (BOT | {"bot_token": "hunter2"}, "channels[0].bot_token: must be a bot token, which begins with xoxb-"),
        (HOOK | {"webhook_url": "hunter2"}, "channels[0].webhook_url: must be the whole URL of an incoming webhook"),
        (
            HOOK | {"webhook_url": "https://example.com"},
            "channels[0].webhook_url: must be the whole URL of an incoming",
        ),
        (HOOK | {"webhook": "hunter2"}, "channels[0].webhook: unknown key; did you mean `webhook_url`?"),
        (BOT | {"api_url": "slack.com"}, "channels[0].api_url: must be a URL like"),
    ],
)
def test_settings(entry: dict[str, Any], problem: str) -> None:
    """The error gives the path and the valid form, and never a secret."""
    with pytest.raises(ConfigError) as caught:
        channel(entry)
    assert str(caught.value).startswith(problem)
    assert not any(secret in str(caught.value) for secret in ("hunter2", TOKEN, "XXXX"))


@pytest.mark.parametrize(("field", "secret"), [("bot_token", TOKEN), ("webhook_url", f"https://h.example{WEBHOOK}")])
def test_secrets_in_files(tmp_path: Path, field: str, secret: str) -> None:
    """They are validated with the configuration, read again when they change, and hidden in the log."""
    file = tmp_path / "secret"
    file.write_text("hunter2")
    entry = {"name": "chat", "type": "slack", f"{field}_file": str(file)} | (
        {"channel": CHANNEL} if "bot" in field else {}
    )
    with pytest.raises(ConfigError, match=f"{field}_file: {re.escape(str(file))}: must be"):
        channel(entry)
    file.write_text(f"{secret}\n")
    hidden = set(secrets_of(load(None, {"channels": [entry]}, {}))())
    assert secret in hidden
    assert "bot" in field or WEBHOOK in hidden
    assert "XXXX" not in f"{channel(entry)}"


def notify(tmp_path: Path, entry: dict[str, Any]) -> Result:
    """``celery-monitor notify test chat``."""
    file = tmp_path / "monitor.yaml"
    file.write_text(yaml.safe_dump({"fleet": "shop", "channels": [entry]}))
    return CliRunner().invoke(main, ["notify", "test", "chat", "--config", str(file)])


def test_the_commands(server: SlackServer, tmp_path: Path) -> None:
    """A marked message is posted, and the answer is printed; the check posts nothing."""
    bot, hook = BOT | {"api_url": server.url}, HOOK | {"webhook_url": server.webhook_url}
    for entry, expected in ((bot, f"as 1700000000.000100 in channel {CHANNEL}"), (hook, "accepted the test message")):
        result = notify(tmp_path, entry)
        assert (result.exit_code, expected in result.output) == (0, True), result.output
    assert all("nothing failed" in one.text for one in server.messages)
    refused_one = notify(tmp_path, bot | {"bot_token": "xoxb-wrong"})
    assert refused_one.exit_code == 1
    assert "invalid_auth: set a valid bot_token" in refused_one.output
    posted = len(server.messages)
    checks: list[tuple[dict[str, Any], CheckState]] = [
        (bot, CheckState.OK),
        (hook, CheckState.OK),
        (bot | {"bot_token": "xoxb-wrong"}, CheckState.FAIL),
        (bot | {"channel": "C9999999999"}, CheckState.FAIL),
        (bot | {"api_url": f"http://127.0.0.1:{free_port()}"}, CheckState.FAIL),
    ]
    assert [channel(entry).check().state for entry, _ in checks] == [state for _, state in checks]
    server.scopes.discard("channels:history")
    assert channel(bot).check().state is CheckState.WARN
    assert len(server.messages) == posted
