"""The daily mail of a real daemon: with an SMTP server with STARTTLS and AUTH, on a real RabbitMQ."""

import datetime as dt
import json
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from celery_monitor.adapters.channels.email.progress import UNKNOWN_RETRY_DELAY
from celery_monitor.core.summarize import day_bounds
from celery_monitor.runtime.notifier import OUTCOMES
from tests.adapters.channels.email.mail_server import PASSWORD, MailServer, serving
from tests.conftest import Start
from tests.e2e.campaign import seeded
from tests.e2e.daemon import Counts
from tests.e2e.mailing import (
    EXTERNAL_URL,
    PEOPLE,
    MailingDaemon,
    WallClock,
    in_counts,
    in_html,
    in_json,
    in_text,
    part,
    replay,
)
from tests.e2e.paging import Failing, publish
from tests.e2e.test_recordings import COUNTS
from tests.servers import RabbitMQ, wait_until
from tests.servers.certificate import Certificate

ZONE = "America/Los_Angeles"
DATE = dt.date(2026, 11, 1)
"""A day of 25 hours."""
BEGIN, END = day_bounds(DATE, ZoneInfo(ZONE))
DUE = END + 8 * 3600.0
DAY = 86_400.0
_NEXT = "2026-11-02"
_FORMS = ("text", "html", "json")


@pytest.fixture
def server(certificate: Certificate) -> MailServer:
    """A server with STARTTLS that requires a login, not started."""
    return MailServer(certificate, "starttls", login=True)


@pytest.fixture
def mail(server: MailServer) -> Iterator[MailServer]:
    """The same, running."""
    with serving(server):
        yield server


@dataclass(frozen=True)
class Evening:
    """The files of a daemon that counted a recorded fleet on DATE and was stopped in the evening."""

    directory: Path
    url: str
    """Of the vhost with its queue."""

    def next_morning(
        self, directory: Path, server: MailServer, clock: WallClock, url: str | None = None, **settings: dict[str, Any]
    ) -> MailingDaemon:
        """A daemon on a copy of the store, in another vhost or in the same; not started."""
        shutil.copytree(self.directory, directory)
        daemon = MailingDaemon(directory, url or self.url, server, ZONE, settings)
        daemon.clock = clock
        return daemon


@pytest.fixture(scope="module")
def evening(
    rabbitmq: RabbitMQ, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Evening]:
    """For all tests; one of them may use the vhost."""
    found = Evening(tmp_path_factory.mktemp("evening"), rabbitmq.new_vhost())
    nobody = MailServer(certificate, "starttls", login=True)
    daemon = MailingDaemon(found.directory, found.url, nobody, ZONE)
    daemon.clock = WallClock(END - 7200.0)
    with daemon:
        daemon.until_ready()
        replay("5.7.0", found.url, BEGIN, END - 7200.0)
        daemon.until_counts(COUNTS["5.7.0"])
    yield found
    rabbitmq.delete_vhost(found.url)


def identities(mail: MailServer) -> Counter[str]:
    """The date of each mail, and how often it was accepted."""
    found = (str(mail.message(index)["Message-ID"]) for index in range(len(mail.mails)))
    return Counter(identity.removeprefix("<report-")[:10] for identity in found)


def die_at(daemon: MailingDaemon, mail: MailServer, stage: str, within: float | None = None) -> None:
    """Start the daemon, and kill -9 it when its session reaches ``stage``, or ``within`` this many seconds."""
    over = threading.Event()

    def fatal(reached: str) -> None:
        if reached == stage:
            daemon.signal(signal.SIGKILL)
            over.wait(10.0)  # before the server answers

    mail.stage = fatal
    daemon.launch()
    until = time.monotonic() + (90.0 if within is None else within)
    wait_until(lambda: not daemon.running or time.monotonic() > until, 120)
    died = not daemon.running
    daemon.kill()
    over.set()
    assert died or within is not None, f"never came to {stage}\n{daemon.log_tail()}"
    mail.stage = lambda _: None


@pytest.mark.parametrize(
    "kills", [pytest.param(5, id="short"), pytest.param(20, id="long", marks=pytest.mark.campaign)]
)
def test_kills_around_the_time_of_sending(
    *, kills: int, evening: Evening, rabbitmq_url: str, mail: MailServer, start: Start, tmp_path: Path
) -> None:
    """Kill -9 at random moments before it is due and during SMTP: one mail, and one the next day.

    A server that has the whole mail may deliver it. This one does not, and gets it again half an hour later.
    """
    dice = seeded()
    daemon = evening.next_morning(tmp_path / "daemon", mail, WallClock(DUE - 2.0 * kills / 5), rabbitmq_url)
    for stage in shuffled(dice, kills):
        mail.data.extend(["drop"] * (stage == "DATA"))  # or the server has a mail whose sender is dead
        die_at(daemon, mail, stage or "MAIL", None if stage else dice.uniform(0.0, 3.0))
        if stage == "DATA":
            wait_half_an_hour(daemon)
    assert mail.mails == []

    start(daemon)
    daemon.until_mailed()
    daemon.kill()
    daemon.start()
    daemon.until_polled()
    assert identities(mail) == {str(DATE): 1}
    assert mail.mails[0][0] == list(PEOPLE)

    daemon.kill()
    daemon.clock = WallClock(DUE + DAY)
    daemon.start()
    daemon.until_mailed(2)
    assert identities(mail) == {str(DATE): 1, _NEXT: 1}
    assert PASSWORD not in daemon.log.read_text()


def shuffled(dice: random.Random, kills: int) -> list[str]:
    """Stages of the session, "" for a random moment before it."""
    stages = ["", "DATA", "RCPT", "", "MAIL", *islice(cycle(["", "RCPT", "MAIL"]), kills - 5)]
    dice.shuffle(stages)
    return stages


def test_a_kill_between_the_answer_and_its_record(
    evening: Evening, rabbitmq_url: str, mail: MailServer, start: Start, tmp_path: Path
) -> None:
    """The daemon never reads the answer: the same mail is sent again, byte for byte, and not immediately."""
    daemon = evening.next_morning(tmp_path / "daemon", mail, WallClock(DUE + 60.0), rabbitmq_url)
    die_at(daemon, mail, "DATA")
    wait_until(lambda: mail.mails, what="the mail")
    wait_half_an_hour(daemon)
    assert identities(mail) == {str(DATE): 1}
    start(daemon)
    daemon.until_mailed(2)
    assert identities(mail) == {str(DATE): 2}
    assert mail.mails[0] == mail.mails[1]


def wait_half_an_hour(daemon: MailingDaemon) -> None:
    """Start the daemon, kill it when it has found the unknown outcome, and wait."""
    daemon.launch()
    daemon.until_ready()
    wait_until(lambda: "unknown whether" in (waiting(daemon)["error"] or ""), 60, what="a poll of the outbox")
    daemon.kill()
    assert daemon.clock is not None
    daemon.clock = WallClock(daemon.clock.now() + UNKNOWN_RETRY_DELAY)


def waiting(daemon: MailingDaemon) -> dict[str, Any]:
    """The report's row in the outbox according to the API; empty if there is none."""
    items: list[dict[str, Any]] = daemon.api("/api/v1/outbox")["items"]
    return items[0] if items else {}


def test_an_hour_without_the_server_and_then_its_refusals(
    evening: Evening, rabbitmq_url: str, server: MailServer, start: Start, tmp_path: Path
) -> None:
    """Then 5xx for one of three and 4xx for another, a connection dropped in DATA, 451: the others have it, once."""
    ann, bob, carl = PEOPLE
    server.refusals = {bob: "550 no such user", carl: "450 greylisted"}
    server.data.extend(["drop", "451 later"])
    clock = WallClock(DUE, speed=600.0)
    daemon = start(evening.next_morning(tmp_path / "daemon", server, clock, rabbitmq_url))
    attempts = 3
    wait_until(lambda: waiting(daemon).get("attempts", 0) >= attempts, 60, what="attempts")
    clock.until(DUE + 3600.0)
    assert "refused" in waiting(daemon)["error"]

    with serving(server):
        wait_until(lambda: server.mails, what="the mail for the first one")
        server.refusals.pop(carl)
        daemon.until_mailed(2)
        daemon.until_polled()
    assert [recipients for recipients, _ in server.mails] == [[ann], [carl]]
    assert identities(server) == {str(DATE): 2}
    assert f"The server refused {bob} (550 no such user)" in part(server.message(0), "plain")
    outcomes = {one: daemon.metric("monitor_notifications_total", channel="email", outcome=one) for one in OUTCOMES}
    assert (outcomes["delivered"], outcomes["dead"]) == (1, 0)
    # Whether the server that dropped the connection had the mail, nobody knew until the others had it.
    assert outcomes["retried"] + outcomes["unknown"] >= attempts + 3
    assert outcomes["unknown"] >= 1


def test_what_waited_in_the_queue_is_in_the_mail(
    evening: Evening, mail: MailServer, start: Start, tmp_path: Path
) -> None:
    """After a night's downtime, the mail waits until all events in the broker are counted, however long it takes."""
    late = [Failing("shop.late", END - 6000.0 + number / 10, uuid=f"late-{number}") for number in range(10_000)]
    publish(evening.url, late, rate=1e6)
    slow = {"prefetch": 100}
    daemon = start(evening.next_morning(tmp_path / "daemon", mail, WallClock(DUE + 1800.0), broker=slow))
    daemon.until_mailed()
    counts = COUNTS["5.7.0"] | {"shop.late": {"received": 10_000, "failed": 10_000}}
    assert in_text(part(mail.message(), "plain")) == in_counts(counts)


def yesterday_somewhere() -> tuple[str, dt.date]:
    """A zone in which midnight is hours away, and its last complete day."""
    for zone in ("Asia/Kathmandu", "America/Los_Angeles"):
        now = dt.datetime.now(ZoneInfo(zone))
        if 1 <= now.hour < 23:
            return zone, now.date() - dt.timedelta(days=1)
    raise AssertionError("these zones are 13:45 apart")


def counted(daemon: MailingDaemon) -> Counts:
    """Task → kind → events, from /metrics."""
    found: dict[str, Counter[str]] = {}
    samples = daemon.metrics()
    for kind in ("succeeded", "failed", "retried"):
        for labels, value in samples[f"celery_task_{kind}_total"]:
            found.setdefault(labels["name"], Counter())[kind] += int(value)
    return found


def grown(before: Counts, after: Counts) -> Counts:
    """The counts between two scrapes."""
    return {name: Counter(numbers) - Counter(before.get(name, {})) for name, numbers in after.items()}


@pytest.mark.parametrize(
    "clock", ["the machine's", pytest.param("the morning after 25 hours", marks=pytest.mark.campaign)]
)
def test_all_ways_to_a_days_numbers_agree(
    clock: str, rabbitmq_url: str, mail: MailServer, start: Start, tmp_path: Path
) -> None:
    """Mail, page, API, Prometheus and commands agree about a replayed day, and with the recording."""
    zone, date = yesterday_somewhere() if clock == "the machine's" else (ZONE, DATE)
    begin, end = day_bounds(date, ZoneInfo(zone))
    # The first start is that of a new monitor, which reports nothing from before its time.
    email = {"schedule": "* * * * *"}
    daemon = MailingDaemon(tmp_path / "daemon", rabbitmq_url, mail, zone, {"email": email})
    daemon.clock = None if clock == "the machine's" else WallClock(DUE)
    start(daemon)
    daemon.until_ready()
    replay("4.4.7", rabbitmq_url, begin - DAY, begin)
    daemon.until_counts(COUNTS["4.4.7"])
    before = counted(daemon)
    replay("5.7.0", rabbitmq_url, begin, end)
    days = COUNTS["4.4.7"], COUNTS["5.7.0"]
    daemon.until_counts({name: sum((Counter(day[name]) for day in days), Counter()) for name in days[0]})
    daemon.restart()
    daemon.until_ready()
    daemon.until_mailed()

    recorded = in_counts(COUNTS["5.7.0"])
    assert (recorded.executed, recorded.failed, recorded.retried) == (67, 19, 2)
    message = mail.message()
    text, html = (part(message, kind) for kind in ("plain", "html"))
    assert in_text(text) == recorded
    assert message["Subject"].startswith(f"[celery] 19 failures in {len(recorded.tasks)} tasks on")

    assert in_json(daemon.api(f"/api/v1/reports/{date}")) == recorded
    after = counted(daemon)
    assert in_counts(grown(before, after)) == recorded
    since = dt.datetime.fromtimestamp(begin, dt.UTC).isoformat().replace("+00:00", "Z")
    items = daemon.api(f"/api/v1/tasks?since={since}&limit=1000")["items"]
    assert in_counts({item["name"]: item["counts"] for item in items}) == recorded
    assert daemon.metric("monitor_task_failures_total") == 18 + 19

    status, page = daemon.get(f"/reports/{date}")
    assert status == 200
    assert in_html(page) == in_html(html) == recorded

    printed = {form: daemon.beside("report", "--format", form, "--date", "yesterday") for form in _FORMS}
    assert {done.returncode for done in printed.values()} == {0}, printed
    assert printed["text"].stdout.strip() == text.strip()
    assert printed["html"].stdout.strip() == html.strip()
    assert in_json(json.loads(printed["json"].stdout)) == recorded
    assert EXTERNAL_URL in text
    assert_wrong_days_are_refused(daemon)


def assert_wrong_days_are_refused(daemon: MailingDaemon) -> None:
    """Future and invalid days: the page and the API report the problem."""
    for path in ("/reports", "/api/v1/reports"):
        for wrong in ("2999-01-01", "1999-12-31", "2026-02-30", "x"):
            status, answer = daemon.get(f"{path}/{wrong}")
            assert status == 400
            assert "date: must be" in answer.lower()  # a sentence of the page begins with a capital


def test_the_test_mail(mail: MailServer, tmp_path: Path) -> None:
    """It is sent to the recipients of the daily mail and prints the answer; an untrusted authority is named."""
    daemon = MailingDaemon(tmp_path, "memory://", mail, ZONE)
    done = daemon.beside("notify", "test", "email")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"127.0.0.1:{mail.port} accepted it for {', '.join(PEOPLE)}: 250 OK queued as 4711\n"
    assert mail.message()["Subject"] == "[celery] test of the daily report"
    assert mail.logins == 1

    untrusting = {name: value for name, value in daemon.environment().items() if name != "SSL_CERT_FILE"}
    done = daemon.beside("notify", "test", "email", environment=untrusting)
    assert done.returncode == 1
    assert "certificate" in done.stderr
    assert "set SSL_CERT_FILE to trust another" in done.stderr
    assert len(mail.mails) == 1
