"""Mails about incidents: one when it opens, one when it resolves, in one thread, exactly once as far as SMTP allows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from msgspec import structs

from celery_monitor.adapters.channels import Channel, CheckState, Context, configured
from celery_monitor.adapters.channels.email.incident import body_of, subject_of
from celery_monitor.cli import main
from celery_monitor.core.model import FIRST_UPDATE, REFRESH, Action, Condition, Incident, MessageKind, OutboxItem
from celery_monitor.errors import (
    DeliveryError,
    MaybeDeliveredError,
    RejectedError,
    RetryableError,
    StoreUnavailableError,
    UncertainError,
)
from celery_monitor.policy import secrets_of
from celery_monitor.ports import Sender, Sent
from celery_monitor.settings import load
from celery_monitor.settings.lint import warnings_of
from tests.adapters.channels.email.mail_server import MailServer
from tests.contracts.values import NOW, incident
from tests.fakes import ManualClock

ANN, BOB = "ann@shop.example", "bob@shop.example"
KEY = "shop.charge/2026-11-23T12Z"
ROW = OutboxItem(7, "team", KEY, Action.TRIGGER, "", 1, 0, NOW, NOW, "pending", priority=1)
RESOLVE = replace(ROW, id=9, action=Action.RESOLVE, priority=FIRST_UPDATE)


def settings(mail: MailServer, **section: Any) -> dict[str, Any]:
    """A channel with two recipients on that server."""
    known = {"host": "127.0.0.1", "port": mail.port, "security": "none", "from": "monitor@shop.example"}
    found: dict[str, Any] = {f"email.{key}": value for key, value in (known | section).items()}
    return found | {"channels": [{"name": "team", "type": "email", "to": [ANN, BOB]}], "alerts.to": ["team"]}


def channel(mail: MailServer, **section: Any) -> Channel:
    """That channel."""
    return next(one for one in configured(load(None, settings(mail, **section), {})) if one.name == "team")


class Bench:
    """A sender, its incident, and the stored row."""

    def __init__(self, mail: MailServer) -> None:
        self.mail = mail
        self.one: Incident | None = incident(KEY, count=3, message="card declined", traceback="Traceback\nE: x")
        self.item = ROW
        self.receipt: str | None = None
        self.start()

    def start(self) -> None:
        """Start as after a restart."""
        context = Context(
            clock=ManualClock(time=NOW),
            incident=lambda _: self.one,
            summary=lambda *_: (_ for _ in ()).throw(StoreUnavailableError("none")),
            note=self.note,
            external_url="https://monitor.example.com",
        )
        self.sender: Sender = channel(self.mail).sender(context)

    def note(self, item: OutboxItem, progress: str) -> None:
        self.item = replace(item, progress=progress)

    def send(self, item: OutboxItem) -> Sent:
        """Send a stored row."""
        if item.id == self.item.id:
            item = replace(item, progress=self.item.progress, attempts=self.item.attempts)
        self.item = replace(item, receipt=self.receipt)
        sent = self.sender.send(self.item)
        self.receipt = sent.receipt or self.receipt
        return sent


@pytest.fixture
def bench(mail: MailServer) -> Bench:
    """A sender with a server."""
    return Bench(mail)


def test_the_life_of_an_incident(bench: Bench, mail: MailServer) -> None:
    """A mail when it opens, none for further failures, and a reply when it resolves."""
    assert bench.send(ROW).count == 3
    assert bench.send(replace(ROW, id=8, priority=REFRESH + 1)) == Sent(0, bench.receipt, skipped=True)
    assert bench.send(RESOLVE) == Sent(0, bench.receipt)
    assert [recipients for recipients, _ in mail.mails] == [[ANN, BOB], [ANN, BOB]]
    opened, ended = mail.message(0), mail.message(1)
    assert opened["Subject"].startswith("ERROR: [shop] shop.charge failed 3 times")
    assert ended["Subject"].startswith("Resolved: [shop] shop.charge failed 3 times")
    assert (opened["Message-ID"], opened["In-Reply-To"]) == (bench.receipt, None)
    assert (ended["In-Reply-To"], ended["References"]) == (bench.receipt, bench.receipt)
    text = opened.get_content()
    assert "Incident: https://monitor.example.com/incidents/shop.charge%2F2026-11-23T12Z" in text
    assert "Traceback\nE: x" in text.replace("\r", "")
    assert "This incident is resolved." in ended.get_content()


def test_an_end_that_nobody_was_told_the_beginning_of(bench: Bench, mail: MailServer) -> None:
    """No mail is sent."""
    assert bench.send(RESOLVE) == Sent(0)
    assert mail.mails == []


def test_a_retry_is_the_same_mail_for_the_others(bench: Bench, mail: MailServer) -> None:
    """Recipients that have it do not get it again, even by the next process; a refused one does not affect others."""
    mail.refusals = {BOB: "450 greylisted"}
    with pytest.raises(RetryableError, match=r"bob@shop\.example: 450 greylisted"):
        bench.send(ROW)
    bench.start()
    mail.refusals = {}
    bench.send(replace(ROW, revision=2))
    assert [recipients for recipients, _ in mail.mails] == [[ANN], [BOB]]
    assert mail.message(0)["Message-ID"] == mail.message(1)["Message-ID"]


def test_an_unknown_outcome(bench: Bench, mail: MailServer) -> None:
    """As for the daily report: three attempts, rarely, then the row has an unknown outcome."""
    mail.data.extend(["drop"] * 9)
    raised: list[type[DeliveryError]] = []
    for attempt in range(3):
        bench.item = replace(bench.item, attempts=attempt)
        with pytest.raises(DeliveryError) as caught:
            bench.send(ROW)
        raised.append(type(caught.value))
        bench.start()
    assert raised == [UncertainError, UncertainError, MaybeDeliveredError]


def test_an_incident_that_is_gone(bench: Bench) -> None:
    """Nothing is sent about an incident that is no longer stored."""
    bench.one = None
    with pytest.raises(RejectedError, match="no longer stored"):
        bench.send(ROW)


@pytest.mark.parametrize("char", ["x", "\x00", "\ud800", "\U0001f600", "\n", "\r\nBcc: eve@evil.example\r\n", "\u202e"])
def test_hostile_texts(bench: Bench, mail: MailServer, char: str) -> None:
    """Text that a task controls is in the mail's text, and never adds a header."""
    for times in (1, 4_000):
        long = char * times
        names = {f"{long[:900]}{number}": number for number in range(30)}
        bench.one = incident(
            KEY, task=long, fleet=long, rule=long, message=long, traceback=long, exceptions=names, tasks=names
        )
        bench.receipt = None
        bench.send(replace(ROW, id=times))
        made = mail.message()
        assert made["Bcc"] is None
        assert made["To"] == f"{ANN}, {BOB}"
        assert made["Subject"].isprintable()
        assert len(mail.mails[-1][1]) < 200_000


def test_conditions_need_nothing_here() -> None:
    """Their texts come from the common module for conditions."""
    one = structs.replace(
        incident(KEY), condition=Condition.BACKLOG, subject="mail", message="queue mail holds 900 tasks",
        details=(("Longest", "901"),), unwatched=90.0,
    )  # fmt: skip
    assert "queue mail holds 900 tasks" in subject_of(one, MessageKind.OPENED)
    body = body_of(one, MessageKind.OPENED, None)
    assert "Longest:" in body
    assert "Not watched:" in body


def test_settings_and_commands(mail: MailServer, tmp_path: Path) -> None:
    """The test mail is sent to the channel's recipients; the check sends none; the password stays hidden."""
    file = tmp_path / "monitor.yaml"
    section = {"host": "127.0.0.1", "port": mail.port, "security": "none", "from": "monitor@shop.example"}
    entry = {"name": "team", "type": "email", "to": [ANN, ANN.upper().replace("SHOP.EXAMPLE", "shop.example"), BOB]}
    file.write_text(yaml.safe_dump({"fleet": "shop", "email": section, "channels": [entry]}))
    result = CliRunner().invoke(main, ["notify", "test", "team", "--config", str(file)])
    assert result.exit_code == 0, result.output
    assert mail.message()["Subject"] == "[shop] test of the incidents"
    assert channel(mail).check().state is CheckState.OK
    assert len(mail.mails) == 1
    hidden = load(None, settings(mail, username="u", password="pa55word-of-mail"), {})
    assert "pa55word-of-mail" in set(secrets_of(hidden)())
    paths = {warning.path for warning in warnings_of(hidden)}
    assert paths == {"email.security"}
