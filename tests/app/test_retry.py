"""Store, notifier and an incoming webhook of Slack together: the effect of `outbox retry` on what people see."""

from pathlib import Path

from celery_monitor.adapters.channels.slack.webhook import SlackWebhook
from celery_monitor.adapters.store import open_store
from celery_monitor.core.model import FIRST_UPDATE, Action, Changes, OutboxRequest
from celery_monitor.runtime.notifier import Notifier
from celery_monitor.settings import Secret, SecretSource
from tests.contracts.values import NOW, incident
from tests.fakes import ManualClock
from tests.servers.recorder import Answer
from tests.servers.slack import SlackServer


def test_a_page_that_was_refused_after_a_resolution(tmp_path: Path) -> None:
    """The incident opened again and Slack refused that message: after the repair, a retry sends it."""
    clock, one = ManualClock(time=NOW), incident()
    store = open_store(f"sqlite:///{tmp_path}/monitor.db", retention=86_400.0, fingerprint_window=10)
    sequence = store.start().sequence
    with SlackServer().running() as server:
        url = SecretSource(Secret(server.webhook_url))
        sender = SlackWebhook(channel="chat", url=url, incident=store.outbox.incident, clock=clock, timeout=60.0)
        notifier = Notifier(store.outbox, sender, clock)
        for action, priority, answer in (
            (Action.TRIGGER, 1, None),
            (Action.RESOLVE, FIRST_UPDATE, None),
            (Action.TRIGGER, 1, Answer(400, b"invalid_payload")),
        ):
            sequence += 1
            row = OutboxRequest("chat", one.key, action, "", clock.now(), priority)
            store.commit(Changes(clock.now(), sequence, incidents=[one], outbox=[row]))
            server.script.extend([] if answer is None else [answer])
            notifier.run_once()
            clock.advance(1.0)
        assert (len(server.messages), store.outbox.given_up()) == (2, {"chat": 1})
        assert store.outbox.revive(None, clock.now()) == 1
        notifier.run_once()
        assert [message.text[0] for message in server.messages] == [
            "\N{LARGE ORANGE CIRCLE}", "\N{WHITE HEAVY CHECK MARK}", "\N{LARGE ORANGE CIRCLE}",
        ]  # fmt: skip
        assert server.violations == []
    store.stop()
