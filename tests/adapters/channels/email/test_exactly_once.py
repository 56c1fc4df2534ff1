"""One mail per day, whatever happens around the time of sending: schedule, store, notifier and SMTP together."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from celery_monitor.adapters.channels.email.progress import UNKNOWN_RETRY_DELAY
from celery_monitor.adapters.channels.email.sender import EmailSender
from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.core.model import Changes
from celery_monitor.runtime.notifier import Notifier
from celery_monitor.runtime.report import DayReport
from celery_monitor.runtime.schedule import ReportSchedule, next_due
from tests.adapters.channels.email.mail_server import MailServer, serving
from tests.adapters.channels.email.mailer import PEOPLE, SCHEDULE, ZONE, settings
from tests.fakes import ManualClock
from tests.servers.waiting import wait_until

DUE = next_due(SCHEDULE, ZoneInfo(ZONE), 1_795_000_000.0) or 0.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store whose monitor has counted since the day before."""
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    with opened(url) as store:
        counters = {"uptime_seconds": 1.0}
        store.commit(Changes(now=DUE - 40_000.0, sequence=1, counters=counters))
    return url


@contextmanager
def opened(url: str) -> Iterator[SqlStore]:
    """The store, opened like the daemon's."""
    store = open_store(url, retention=30 * 86_400.0, fingerprint_window=0)
    store.start()
    yield store
    store.stop()


@contextmanager
def opened_beside(url: str) -> Iterator[SqlStore]:
    """The store, opened beside a daemon."""
    store = open_store(url, retention=30 * 86_400.0, fingerprint_window=0)
    store.attach()
    yield store
    store.stop()


def identities(mail: MailServer) -> Counter[str]:
    """How often each mail was accepted."""
    return Counter(str(mail.message(index)["Message-ID"]) for index in range(len(mail.mails)))


class Daemon:
    """Schedule and notifier on a store, with a clock that the test moves."""

    def __init__(self, store: SqlStore, mail: MailServer, clock: ManualClock) -> None:
        zone = ZoneInfo(ZONE)
        report = DayReport(store.reader, "shop", zone, paging=False)
        self.sender = EmailSender(settings(mail.port), report.summary, note=store.outbox.note)
        self._notifier = Notifier(store.outbox, self.sender, clock)
        self._schedule = ReportSchedule(store.outbox, store.reader, "email", SCHEDULE, zone)
        self._clock = clock

    def run(self, until: float, step: float = 20.0) -> None:
        """Run until that time."""
        while self._clock.now() < until:
            self._schedule.run_once(self._clock.now())
            self._notifier.run_once()
            self._clock.advance(step)


@pytest.mark.timeout(600)  # so many starts of a process, each of which may take seconds
@pytest.mark.parametrize("planned", [8, pytest.param(20, marks=pytest.mark.campaign)])
def test_kills_around_the_time_of_sending_make_one_mail(url: str, mail: MailServer, planned: int) -> None:
    """Kill -9 at any time before it is due, and then in the middle of SMTP, again and again: it comes once.

    Two of them come when the server has all of the mail, which it then forgets. Nobody can know that: it goes again
    half an hour later.
    """
    dice = random.Random(5)
    offset = DUE - time.time() - planned / 5
    kills = 0
    while time.time() + offset < DUE:
        with mailer(url, mail, offset, fatal="MAIL") as process, suppress(subprocess.TimeoutExpired):
            process.wait(dice.uniform(0.0, 0.3))
        kills += 1
    stages = [*dice.choices(["MAIL", "RCPT"], k=max(2, planned - kills - 2)), "DATA", "DATA"]
    dice.shuffle(stages)
    looks = 0
    for fatal in stages:
        mail.data.extend(["drop"] * (fatal == "DATA"))  # or the server has a mail whose sender is dead
        with mailer(url, mail, offset, fatal) as process:
            assert process.wait(120.0) == -signal.SIGKILL
        if fatal == "DATA":
            with mailer(url, mail, offset) as process, opened_beside(url) as store:
                looks += 1
                wait_until(partial(is_uncertain, store, looks), 60, what="a poll of the outbox")
                process.kill()
            offset += UNKNOWN_RETRY_DELAY
    with mailer(url, mail, offset) as process:
        wait_until(lambda: mail.mails, 60, what="the report")
        with opened_beside(url) as store:
            wait_until(lambda: not store.outbox.pending(), 60, what="its record")
        process.kill()
    with mailer(url, mail, offset) as process, suppress(subprocess.TimeoutExpired):
        process.wait(0.3)
    assert len(mail.mails) == 1


def is_uncertain(store: SqlStore, looks: int) -> bool:
    """Whether the row has an unknown outcome for the ``looks``-th time."""
    (row,) = store.outbox.items(dead=False, limit=9).rows
    return "unknown whether" in (row.error or "") and row.attempts == looks


@contextmanager
def mailer(url: str, mail: MailServer, offset: float, fatal: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A running process that mails, killed at the latest when its session reaches ``fatal``."""
    arguments = [sys.executable, "-m", "tests.adapters.channels.email.mailer", url, str(mail.port), str(offset)]
    started = threading.Event()

    def stage(name: str) -> None:
        if name == fatal:
            started.wait()
            process.kill()
            process.wait()

    mail.stage = stage
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        started.set()
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_server_that_is_down_for_an_hour_gets_one_mail(url: str) -> None:
    """Retried with growing delays, delivered within minutes of its return, and not again that day."""
    down, clock = MailServer(), ManualClock(DUE - 60.0)
    with opened(url) as store:
        daemon = Daemon(store, down, clock)
        daemon.run(DUE + 3_600.0)
        (row,) = store.outbox.items(dead=False, limit=9).rows
        assert 5 < row.attempts < 60
        with serving(down):
            daemon.run(DUE + 3_600.0 + 330.0)
            assert len(down.mails) == 1
            daemon.run(DUE + 86_000.0, step=60.0)
        assert [recipients for recipients, _ in down.mails] == [list(PEOPLE)]
        assert store.outbox.items(dead=False, limit=9).rows == []


def test_4xx_5xx_and_a_drop_in_data_make_one_mail(url: str, mail: MailServer) -> None:
    """The server refuses one of three permanently and one temporarily, then drops the connection, then accepts."""
    clock = ManualClock(DUE - 60.0)
    ann, bob, carl = PEOPLE
    mail.data.extend(["drop", "451 later"])
    mail.refusals = {bob: "550 no such user", carl: "450 greylisted"}
    with opened(url) as store:
        daemon = Daemon(store, mail, clock)
        daemon.run(DUE + 300.0, step=1.0)
        assert mail.mails == []  # nobody knows whether the server has what it has read before it dropped
        daemon.run(DUE + 4_000.0)
        mail.refusals.pop(carl)
        daemon.run(DUE + 6_500.0)
        assert [recipients for recipients, _ in mail.mails] == [[ann], [carl]]
        assert len(identities(mail)) == 1
        assert store.outbox.items(dead=True, limit=9).rows == []


def test_a_week_of_days_is_a_week_of_mails(url: str, mail: MailServer) -> None:
    """One for each date, once, with a restart in between."""
    clock = ManualClock(DUE - 60.0)
    for day in range(7):
        with opened(url) as store:
            Daemon(store, mail, clock).run(DUE + (day + 0.5) * 86_400.0, step=600.0)
    assert len(mail.mails) == 7
    assert set(identities(mail).values()) == {1}


class _Killed(BaseException):
    """Simulates kill -9: nothing catches it."""


def test_a_death_at_any_call_of_the_store_loses_nothing(url: str, mail: MailServer) -> None:
    """One death before and after each call of the outbox: the same mail is sent."""
    deaths = 0
    while True:
        deaths += 1
        assert deaths < 100
        clock = ManualClock(DUE + (deaths - 1) * 86_400.0)
        before = len(mail.mails)
        with opened(url) as store:
            fuse = _Fuse(store.outbox, deaths)
            daemon = Daemon(store, mail, clock)
            daemon._notifier._outbox = daemon._schedule._outbox = fuse
            daemon.sender._note = fuse.note
            try:
                daemon.run(clock.time + 100.0)
            except _Killed:
                pass
            else:
                break
        with opened(url) as store:
            Daemon(store, mail, clock).run(clock.time + UNKNOWN_RETRY_DELAY + 100.0)
        assert 1 <= len(mail.mails) - before <= 2
        assert len({content for _, content in mail.mails[before:]}) == 1
    assert deaths > 6


class _Fuse:
    """An outbox whose user dies at the n-th event; a call has two, its start and its end."""

    def __init__(self, outbox: object, at: int) -> None:
        self._outbox = outbox
        self._left = at

    def _burn(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise _Killed

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._outbox, name)

        def call(*args: object, **kwargs: object) -> object:
            self._burn()
            result = method(*args, **kwargs)
            self._burn()
            return result

        return call
