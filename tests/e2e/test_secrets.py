"""No secret leaves the monitor, whatever fails: all that it wrote, served, sent and stored is searched for markers.

A daemon is led through good and bad days: refused passwords, servers that are down or not trusted, and receivers that
repeat in their answers what they were sent.
"""

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from tests.e2e.secrecy import KINDS, SECRETS, Evidence, Story, echo, forms, secrets_in
from tests.servers import RabbitMQ
from tests.servers.certificate import Certificate
from tests.servers.pagerduty import Behaviour
from tests.servers.ports import free_port
from tests.servers.waiting import wait_until


@pytest.fixture(scope="module")
def evidence(
    rabbitmq: RabbitMQ, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Evidence]:
    """The whole story, run once."""
    with ExitStack() as stack:
        story = Story(tmp_path_factory.mktemp("secrets"), rabbitmq, certificate, stack)
        receivers_that_repeat(story)
        good_day(story)
        refused_and_untrusted(story)
        down(story)
        yield story.close()


def receivers_that_repeat(story: Story) -> None:
    """PagerDuty refuses events and keys, the mail server the password, and both repeat the secrets."""
    keys = SECRETS["routing key"], SECRETS["rule's routing key"]
    story.pagerduty.behave(Behaviour.status(413, echo(*keys)))  # 400 may be a key that a person repairs
    story.daemon.start()
    story.daemon.until_ready()
    story.today = datetime.now(UTC)
    story.fail("own.pay", "shop.pay")
    story.until_tried("pagerduty", "dead")
    story.pagerduty.script(*[Behaviour.status(503, echo(*reversed(keys)), Location=f"/{keys[0]}")] * 2)
    before = len(story.pagerduty.received)
    story.enqueue()
    wait_until(lambda: len(story.pagerduty.received) >= before + 2, 60, what="the requests that are answered 503")
    story.until_tried("email", "pending")
    story.browse("repeated")
    story.run(
        "repeated",
        "config show",
        "config show --format json",
        "config check",
        "outbox list",
        "outbox list --dead",
        "notify test email",
        f"report --date {story.today:%Y-%m-%d} --send",
    )
    for key, line in zip(keys, ("notify test pagerduty", "notify test pagerduty --rule own"), strict=True):
        story.pagerduty.behave(Behaviour.status(400, echo(key)))
        story.run("repeated", line)
    story.keep_store("repeated")


def good_day(story: Story) -> None:
    """Everything is delivered."""
    story.pagerduty.behave()
    story.configure(email={"port": story.mail.port, "username": None, "password": None})
    story.enqueue()
    wait_until(lambda: story.mail.mails, 60, what="the report that waited")
    story.run("good", "outbox retry --all-dead")
    story.fail("own.more", "shop.more")
    wait_until(lambda: len(story.pagerduty.opened()) >= 4, 60, what="the incidents")
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(story.fail, *["own.seen", "shop.seen"] * 5, pause=0.2)
        story.run("good", "events --limit 2 --seconds 5 --task *.seen")
        failing.result()
    report = f"report --date {story.today:%Y-%m-%d}"
    formats = [f"{report} --format {form}" for form in ("text", "html", "json")]
    story.run("good", *formats, f"{report} --send")
    story.browse("good")


def refused_and_untrusted(story: Story) -> None:
    """The broker refuses the password; no certificate is trusted. The log has the console format."""
    story.configure(
        log={"format": "console"},
        broker={"url": story.broker_url("wrong broker password")},
        pagerduty={"url": story.untrusted.url},
        email={
            "port": story.untrusted_mail.port,
            "security": "tls",
            "username": "mailer",
            "password": SECRETS["mail password"],
        },
    )
    story.daemon.until_trouble("broker", "refused")
    in_trouble(story, "refused")


def down(story: Story) -> None:
    """The broker does not speak TLS, and the others are unreachable."""
    closed = free_port()
    story.configure(
        broker={"url": story.broker_url("broker password", "amqps")},
        pagerduty={"url": f"http://127.0.0.1:{closed}"},
        email={"port": closed},
    )
    story.daemon.until_trouble("broker", "TLS")
    in_trouble(story, "down")

    secret = quote(SECRETS["broker password"], safe="")
    story.run(
        "elsewhere",
        f"doctor --seconds 1 --broker redis://:{secret}@127.0.0.1:{closed}/0",
        f"events --seconds 1 --broker sentinel://:{secret}@127.0.0.1:{closed}",
        f"events --seconds 1 --broker {story.broker_url('wrong broker password')}",
    )


def in_trouble(story: Story, label: str) -> None:
    """Use every channel."""
    read = story.daemon.log.stat().st_size
    story.enqueue()
    tried = [f"channel={channel}".encode() for channel in ("pagerduty", "email")]
    wait_until(lambda: all(word in story.daemon.log.read_bytes()[read:] for word in tried), 60, what="every way out")
    story.run(label, "notify test pagerduty", "notify test email", "outbox list", "doctor --seconds 1")
    story.browse(label)


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_leaves_the_monitor(evidence: Evidence, kind: str) -> None:
    """No output of this kind contains a secret, neither plain nor encoded."""
    assert evidence.found[kind]
    assert "\n".join(evidence.leaks(kind)) == ""


def test_what_was_searched_tells_of_the_failures(evidence: Evidence) -> None:
    """The search covers the right output: the placeholders of the secrets are there."""
    expected: dict[str, Iterable[str]] = {
        "command": [
            "[redacted]",
            "[routing key]",
            r"refused the user name or the password",
            "certificate",
            "TLS",
            r"(?i)refused",
        ],
        "http": ["[redacted]", "401", "200", "the provider refuses the code"],
        "log": ["[routing key]", "refused the user name or the password", "certificate", "TLS", "own.pay"],
        "mail": ["own.pay", "[redacted]"],
        "pagerduty": ["[redacted]", "LoginError", "notify test"],
        "store": ["[redacted]", "[routing key]"],
    }
    for kind, texts in expected.items():
        everything = b"\n".join(evidence.found[kind].values()).decode("utf-8", "replace")
        for text in texts:
            assert re.search(re.escape(text) if text.startswith("[") else text, everything), f"{text} in {kind}"


@pytest.mark.parametrize("form", [form for form, _ in forms("some+secret/&text")])
def test_the_search_finds_every_form(form: str) -> None:
    """Each secret is found in each encoding."""
    for name, secret in SECRETS.items():
        for known, text in forms(secret):
            if known == form:
                assert name in {found for found, _ in secrets_in(b"<" + text + b">")}
