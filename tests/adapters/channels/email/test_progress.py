"""A mail with an unknown outcome is sent again rarely, three times in total, and only to those who may not have it."""

from dataclasses import replace
from typing import Any

import pytest

from celery_monitor.adapters.channels.email.progress import MAX_ATTEMPTS, UNKNOWN_RETRY_DELAY
from celery_monitor.adapters.channels.email.sender import EmailSender
from celery_monitor.core.model import OutboxItem
from celery_monitor.errors import (
    DeliveryError,
    MaybeDeliveredError,
    RejectedError,
    RetryableError,
    StoreUnavailableError,
    UncertainError,
)
from tests.adapters.channels.email import days
from tests.adapters.channels.email.mail_server import MailServer
from tests.adapters.channels.email.test_sender import ANN, BOB, CARL, ITEM, settings


class Row:
    """A row of the outbox, and its senders."""

    def __init__(self, mail: MailServer, **changes: Any) -> None:
        self.item = ITEM
        self._mail, self._changes = mail, changes
        self.keeps = True
        self.restart()

    def restart(self) -> None:
        """Start another process."""
        self.sender = EmailSender(settings(self._mail, **self._changes), lambda *_: days.normal(), note=self.note)

    def note(self, item: OutboxItem, progress: str) -> None:
        if not self.keeps:
            raise StoreUnavailableError("disk full")
        self.item = replace(self.item, progress=progress)

    def attempt(self, *, recorded: bool = True) -> DeliveryError | None:
        """One attempt; ``recorded``: the notifier counts it."""
        try:
            self.sender.send(self.item)
        except DeliveryError as exc:
            if recorded:
                self.item = replace(self.item, attempts=self.item.attempts + 1)
            return exc
        return None

    def revive(self) -> None:
        """``outbox retry``."""
        self.item = replace(self.item, attempts=0)


@pytest.fixture
def sent(mail: MailServer) -> list[str]:
    """``DATA`` for each mail that the server has read completely."""
    stages: list[str] = []
    mail.stage = lambda stage: stages.append(stage) if stage == "DATA" else None
    return stages


@pytest.mark.parametrize("restarts", [False, True])
def test_a_server_that_never_answers_gets_three_copies(mail: MailServer, sent: list[str], *, restarts: bool) -> None:
    """Half an hour apart, with or without a restart; then the row lists the possible recipients."""
    row = Row(mail)
    mail.data.extend(["drop"] * 9)
    for number in range(1, MAX_ATTEMPTS):
        error = row.attempt()
        assert type(error) is UncertainError
        assert error.after == UNKNOWN_RETRY_DELAY
        assert all(who in str(error) for who in (ANN, BOB, CARL))
        assert len(sent) == number
        if restarts:
            row.restart()
    error = row.attempt()
    assert type(error) is MaybeDeliveredError
    assert "may have been delivered" in str(error)
    assert len(sent) == MAX_ATTEMPTS
    row.revive()
    mail.data.clear()
    assert row.attempt() is None
    assert mail.mails[0][0] == [ANN, BOB, CARL]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_retry_by_hand_asks_for_refused_recipients_again(mail: MailServer, *, restarts: bool) -> None:
    """Somebody has repaired what all of them were refused for."""
    row = Row(mail)
    mail.refusals = dict.fromkeys((ANN, BOB, CARL), "550 5.1.1 no such user")
    assert isinstance(row.attempt(), RejectedError)
    mail.refusals = {}
    if restarts:
        row.restart()
    row.revive()
    assert row.attempt() is None
    assert [recipients for recipients, _ in mail.mails] == [[ANN, BOB, CARL]]


def test_an_answer_at_last_is_an_answer(mail: MailServer) -> None:
    """A positive answer after an unknown outcome completes the row."""
    row = Row(mail)
    mail.data.append("drop")
    assert isinstance(row.attempt(), UncertainError)
    assert row.attempt() is None
    assert len(mail.mails) == 1


class _Killed(BaseException):
    """Simulates kill -9: nothing catches it."""


def test_a_death_before_the_answer_is_an_unknown_outcome(mail: MailServer, sent: list[str]) -> None:
    """Another process finds the claim, and waits before it sends the mail again."""
    row = Row(mail)
    keep = row.note

    def die(item: OutboxItem, progress: str) -> None:
        if sent:
            raise _Killed
        keep(item, progress)

    row.sender._note = die
    with pytest.raises(_Killed):
        row.attempt()
    row.restart()
    error = row.attempt()
    assert type(error) is UncertainError
    assert "the monitor stopped before it received the response" in str(error)
    assert len(sent) == 1
    assert row.attempt() is None
    assert len(sent) == 2


def test_a_death_before_the_outcome_is_recorded_waits_too(mail: MailServer, sent: list[str]) -> None:
    """The row looks untried; still nobody gets a copy immediately."""
    row = Row(mail)
    mail.data.append("drop")
    row.attempt(recorded=False)
    row.restart()
    assert isinstance(row.attempt(), UncertainError)
    assert len(sent) == 1


def test_a_restart_forgets_nobody_who_has_it(mail: MailServer) -> None:
    """Accepted and refused recipients are stored with the row, however their names are written."""
    row = Row(mail)
    mail.refusals = {BOB: "450 greylisted", CARL: "550 no such user"}
    assert isinstance(row.attempt(), RetryableError)
    mail.refusals = {}
    row._changes = {"to": [f"Ann <{ANN.upper()}>", BOB, CARL]}
    row.restart()
    assert row.attempt() is None
    assert [recipients for recipients, _ in mail.mails] == [[ANN], [BOB]]


def test_an_unknown_outcome_costs_the_others_nothing(mail: MailServer, sent: list[str]) -> None:
    """Recipients of another transaction have it; only those of the unanswered one get it again."""
    row = Row(mail)
    mail.refusals = {BOB: "450 greylisted", CARL: "450 greylisted"}
    row.attempt()
    mail.refusals = {CARL: "450 greylisted"}
    mail.data.append("drop")
    assert isinstance(row.attempt(), UncertainError)
    mail.refusals = {}
    assert row.attempt() is None
    assert [recipients for recipients, _ in mail.mails] == [[ANN], [BOB, CARL]]
    assert len(sent) == 3


def test_a_full_disk_sends_the_mail(mail: MailServer) -> None:
    """Progress that cannot be stored is kept in memory: nobody gets it twice while the process lives."""
    row = Row(mail)
    row.keeps = False
    mail.refusals = {BOB: "450 greylisted"}
    assert isinstance(row.attempt(), RetryableError)
    mail.refusals = {}
    assert row.attempt() is None
    assert [recipients for recipients, _ in mail.mails] == [[ANN, CARL], [BOB]]


@pytest.mark.parametrize("text", ["", "null", "{}", '{"taken": 1}', "\x00"])
def test_a_row_of_another_version(mail: MailServer, text: str) -> None:
    """Unreadable progress is ignored."""
    row = Row(mail)
    row.item = replace(row.item, progress=text)
    assert row.attempt() is None
