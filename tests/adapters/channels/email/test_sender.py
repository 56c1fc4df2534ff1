import datetime as dt
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from celery_monitor.adapters.channels.email.sender import EmailSender, describe, send_test, server_of
from celery_monitor.core.model import Action, OutboxItem
from celery_monitor.core.summary import Summary
from celery_monitor.errors import RejectedError, RetryableError, StoreUnavailableError
from celery_monitor.ports import Sent
from celery_monitor.settings import EmailSettings
from tests.adapters.channels.email import days
from tests.adapters.channels.email.mail_server import PASSWORD, USER, MailServer

if TYPE_CHECKING:
    from celery_monitor.ports import Sender

ANN, BOB, CARL = "ann@shop.example", "bob@shop.example", "carl@shop.example"
ITEM = OutboxItem(
    id=7,
    channel="email",
    key="2026-11-22",
    action=Action.REPORT,
    route="",
    revision=1,
    attempts=0,
    created_at=days.NOW,
    due_at=days.NOW,
    state="pending",
)


def settings(mail: MailServer, **changes: Any) -> EmailSettings:
    """Three recipients on that server."""
    values = {"host": "127.0.0.1", "port": mail.port, "security": "none", "from": "monitor@shop.example"}
    return EmailSettings.model_validate({**values, "to": [ANN, BOB, CARL], **changes})


def sender(mail: MailServer, summary: Summary | None = None, **changes: Any) -> EmailSender:
    """Sends that summary, by default a normal day's."""
    made = summary or days.normal()
    return EmailSender(settings(mail, **changes), lambda date, now: made)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """The log output."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def test_the_row_of_a_date_is_one_mail_to_everybody(mail: MailServer) -> None:
    """It is about the row's date as of the row's creation, and returns the number of failures."""
    asked: list[tuple[dt.date, float]] = []

    def summarise(date: dt.date, now: float) -> Summary:
        asked.append((date, now))
        return days.normal()

    sending: Sender = EmailSender(settings(mail), summarise)
    assert sending.channel == "email"
    assert sending.rate_limit_key(ITEM) == f"127.0.0.1:{mail.port}"
    assert sending.send(ITEM) == Sent(37)
    assert asked == [(days.DATE, days.NOW)]
    assert [recipients for recipients, _ in mail.mails] == [[ANN, BOB, CARL]]
    assert mail.message()["Subject"] == "[shop] 37 failures in 3 tasks on Sunday 22 Nov (1 new error)"


def test_without_recipients_there_is_no_lane(mail: MailServer) -> None:
    """Mail that was switched off after the row was written is given up."""
    assert sender(mail, to=[]).rate_limit_key(ITEM) is None


def test_5xx_for_one_of_three_is_one_mail_that_says_so(mail: MailServer, logged: list[Any]) -> None:
    """The others have it with the refused recipient listed; it is logged; the row is done."""
    mail.refusals = {BOB: "550 5.1.1 no such user"}
    sending = sender(mail)
    assert sending.send(ITEM) == Sent(37)
    assert [recipients for recipients, _ in mail.mails] == [[ANN, CARL]]
    body = mail.message().get_body(("plain",))
    assert body is not None
    assert "The server refused bob@shop.example (550 5.1.1 no such user)" in body.get_content()
    assert [line["refused"] for line in logged] == [{BOB: "550 5.1.1 no such user"}]


def test_4xx_for_one_of_three_is_tried_again_for_that_one_only(mail: MailServer) -> None:
    """A retry never sends the mail twice to those who have it."""
    sending = sender(mail)
    mail.refusals = {BOB: "450 greylisted"}
    for _ in range(2):
        with pytest.raises(RetryableError, match=r"the other recipients are done; .*bob@shop.example: 450 greylisted"):
            sending.send(ITEM)
    mail.refusals = {}
    assert sending.send(ITEM) == Sent(37)
    assert [recipients for recipients, _ in mail.mails] == [[ANN, CARL], [BOB]]
    assert mail.message(0)["Message-ID"] == mail.message(1)["Message-ID"]
    assert mail.message(1)["To"] == mail.message(0)["To"]


def test_a_4xx_that_becomes_a_5xx_ends_the_row(mail: MailServer, logged: list[Any]) -> None:
    """Since others have the mail, it is only logged."""
    sending = sender(mail)
    mail.refusals = {BOB: "450 greylisted"}
    with pytest.raises(RetryableError):
        sending.send(ITEM)
    mail.refusals = {BOB: "550 no such user"}
    assert sending.send(ITEM) == Sent(37)
    assert "550 no such user" in logged[-1]["refused"]
    assert len(mail.mails) == 1


def test_a_policy_against_the_last_recipient_ends_the_row(mail: MailServer, logged: list[Any]) -> None:
    """The others have it, so this client may send; it is retried only while nobody has it."""
    sending = sender(mail)
    mail.refusals = dict.fromkeys((ANN, BOB, CARL), "554 5.7.1 relay access denied")
    with pytest.raises(RetryableError) as caught:
        sending.send(ITEM)
    assert caught.value.needs_repair
    mail.refusals = {BOB: "450 greylisted"}
    with pytest.raises(RetryableError):
        sending.send(ITEM)
    mail.refusals = {BOB: "550 5.7.133 sender not authenticated for group"}
    assert sending.send(ITEM) == Sent(37)
    assert "5.7.133" in logged[-1]["refused"]
    assert [recipients for recipients, _ in mail.mails] == [[ANN, CARL]]


def test_5xx_and_4xx_together(mail: MailServer, logged: list[Any]) -> None:
    """A permanently refused recipient is not tried again with the other one."""
    sending = sender(mail)
    mail.refusals = {ANN: "550 no such user", BOB: "450 greylisted"}
    with pytest.raises(RetryableError):
        sending.send(ITEM)
    mail.refusals = {}
    assert sending.send(ITEM) == Sent(37)
    assert [recipients for recipients, _ in mail.mails] == [[CARL], [BOB]]
    assert [line["refused"] for line in logged] == [{ANN: "550 no such user"}]


def test_a_new_process_sends_the_same_mail_to_everybody(mail: MailServer) -> None:
    """After a crash in between, the same Message-ID identifies the mail."""
    mail.refusals = {BOB: "450 greylisted"}
    with pytest.raises(RetryableError):
        sender(mail).send(ITEM)
    mail.refusals = {}
    sender(mail).send(ITEM)
    assert [recipients for recipients, _ in mail.mails] == [[ANN, CARL], [ANN, BOB, CARL]]
    assert mail.message(0)["Message-ID"] == mail.message(1)["Message-ID"]


def test_rows_do_not_mix_up_their_recipients(mail: MailServer) -> None:
    """Recipients of yesterday's mail still get today's."""
    sending = sender(mail)
    mail.refusals = {BOB: "450 greylisted"}
    with pytest.raises(RetryableError):
        sending.send(ITEM)
    mail.refusals = {}
    other = OutboxItem(8, "email", "2026-11-21", Action.REPORT, "", 1, 0, days.NOW, days.NOW, "pending")
    sending.send(other)
    assert mail.mails[-1][0] == [ANN, BOB, CARL]


def test_a_failed_mail_goes_again_as_the_same(mail: MailServer) -> None:
    """4xx for the mail: the next attempt sends the same bytes, once."""
    sending = sender(mail)
    mail.data = deque(["451 later"])
    with pytest.raises(RetryableError):
        sending.send(ITEM)
    sending.send(ITEM)
    sender(mail).send(ITEM)
    assert len(mail.mails) == 2
    assert mail.mails[0] == mail.mails[1]


def test_everybody_refused_for_good_is_given_up(mail: MailServer) -> None:
    """The row is dead with the server's answer."""
    mail.refusals = dict.fromkeys((ANN, BOB, CARL), "550 no")
    with pytest.raises(RejectedError, match="every recipient was refused"):
        sender(mail).send(ITEM)


def test_a_quiet_day_may_be_left_out_but_not_one_that_was_not_watched(mail: MailServer) -> None:
    """send_when_quiet: false omits mails only on good days."""
    assert sender(mail, days.quiet(), send_when_quiet=False).send(ITEM) == Sent(0)
    assert mail.mails == []
    sender(mail, days.unknown(), send_when_quiet=False).send(ITEM)
    sender(mail, days.quiet()).send(ITEM)
    assert len(mail.mails) == 2


def test_an_unavailable_store_is_the_couriers_business(mail: MailServer) -> None:
    """The error is passed on, and nothing was sent."""

    def summarise(date: dt.date, now: float) -> Summary:
        raise StoreUnavailableError("disk full")

    with pytest.raises(StoreUnavailableError):
        EmailSender(settings(mail), summarise).send(ITEM)


def test_a_key_that_is_no_date_is_given_up(mail: MailServer) -> None:
    """Retrying would not help."""
    bad = OutboxItem(9, "email", "tomorrow", Action.REPORT, "", 1, 0, 0.0, 0.0, "pending")
    with pytest.raises(RejectedError):
        sender(mail).send(bad)


def test_a_mail_sent_again_by_hand_is_another_mail(mail: MailServer) -> None:
    """So that mail programs do not hide it; refused recipients are reported to the user."""
    sending = sender(mail)
    sending.send(ITEM)
    mail.refusals = {BOB: "550 no such user"}
    description = describe(sending.resend(days.normal()), mail.server())
    assert description.splitlines() == [
        f"127.0.0.1:{mail.port} accepted it for {ANN}, {CARL}: 250 OK queued as 4711",
        f"127.0.0.1:{mail.port} refused {BOB}: 550 no such user",
    ]
    assert mail.message(0)["Message-ID"] != mail.message(1)["Message-ID"]


def test_a_test_mail_tells_what_the_server_said(secure_mail: MailServer) -> None:
    """Sent by the server of the settings, with login, and its answer is shown."""
    server = secure_mail.server()
    description = describe(send_test(settings(secure_mail, security=secure_mail.security), "shop", server), server)
    assert description == f"127.0.0.1:{secure_mail.port} accepted it for {ANN}, {BOB}, {CARL}: 250 OK queued as 4711"
    assert secure_mail.message()["Subject"] == "[shop] test of the daily report"


def test_a_test_mail_needs_addresses(mail: MailServer) -> None:
    """The error names the fields."""
    with pytest.raises(RejectedError, match=r"email\.from and email\.to"):
        send_test(settings(mail, to=[]), "shop")


def test_the_password_is_read_again_at_each_login(mail: MailServer, tmp_path: Path) -> None:
    """A rotated password file needs no restart."""
    file = tmp_path / "password"
    file.write_text("old\n")
    server = server_of(settings(mail, username=USER, password_file=str(file)))
    assert server.password() == "old"
    file.write_text(f"{PASSWORD}\n")
    assert server.password() == PASSWORD
    assert PASSWORD not in repr(server)
