"""The signed webhook, with a real HTTP server that verifies according to the specification."""

import base64
import hashlib
import hmac
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import standardwebhooks
import yaml
from click.testing import CliRunner, Result
from msgspec import structs

from celery_monitor.adapters.channels import CheckState, configured
from celery_monitor.adapters.channels.webhook.render import MAX_BYTES, render
from celery_monitor.adapters.channels.webhook.send import Webhook
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.cli import main
from celery_monitor.core.model import FIRST_UPDATE, REFRESH, Action, Incident, OutboxItem
from celery_monitor.errors import ConfigError, InterruptedSendError, RejectedError, RetryableError
from celery_monitor.policy import secrets_of
from celery_monitor.ports import Clock, Sent
from celery_monitor.settings import Secret, SecretSource, load
from tests.contracts.values import NOW, incident
from tests.fakes import ManualClock
from tests.servers.ports import free_port
from tests.servers.scripted import misbehaving, talking

RAW = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(RAW).decode()}"
KEY = "shop.charge/2026-11-23T12Z"
AUDIT = {"name": "audit", "type": "webhook", "url": "http://h/", "secret": SECRET}


class Receiver:
    """Verifies each request like a receiver, and gives the scripted answer, otherwise 204."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.bodies: list[bytes] = []
        self.paths: list[tuple[str, str]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                assert verified(headers, body)
                receiver.bodies.append(body)
                receiver.received.append((headers, json.loads(body)))
                self._answer()

            def do_HEAD(self) -> None:
                self._answer()

            do_GET = do_HEAD  # noqa: N815 - as http.server wants it

            def _answer(self) -> None:
                receiver.paths.append((self.command, self.path))
                status, headers, body = receiver.answers.pop(0) if receiver.answers else (204, {}, b"")
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command == "POST":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks/secret-path"

    @contextmanager
    def running(self) -> Iterator["Receiver"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def verified(headers: dict[str, str], body: bytes) -> bool:
    """The receiver's side of Standard Webhooks, according to its specification."""
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    wanted = base64.b64encode(hmac.new(RAW, signed, hashlib.sha256).digest()).decode()
    return any(
        version == "v1" and hmac.compare_digest(signature, wanted)
        for version, _, signature in (part.partition(",") for part in headers["webhook-signature"].split())
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A running receiver."""
    with Receiver().running() as running:
        yield running


def webhook(
    url: str | SecretSource, clock: Clock | None = None, timeout: float = 60.0, one: Incident | None = None
) -> Webhook:
    """A sender of one incident."""
    return Webhook(
        channel="audit",
        url=SecretSource(Secret(url)) if isinstance(url, str) else url,
        secret=SecretSource(Secret(SECRET)),
        incident=lambda _: incident(KEY, count=3) if one is None else one,
        clock=clock or ManualClock(time=NOW),
        timeout=timeout,
        external_url="https://monitor.example.com/",
    )


ROW = OutboxItem(7, "audit", KEY, Action.TRIGGER, "", 1, 0, NOW, NOW, "pending")
UPDATE = replace(ROW, id=8, priority=REFRESH + 1, receipt="msg_first")
RESOLVE = replace(ROW, id=9, action=Action.RESOLVE, priority=FIRST_UPDATE, receipt="msg_first")


def test_the_life_of_an_incident(receiver: Receiver) -> None:
    """It is opened, updated and resolved, in signed events that describe it."""
    sender = webhook(receiver.url)
    opened = sender.send(ROW)
    assert (opened.count, sender.send(UPDATE), sender.send(RESOLVE)) == (3, Sent(3, "msg_first"), Sent(0, "msg_first"))
    assert [event["type"] for _, event in receiver.received] == [
        "incident.opened",
        "incident.updated",
        "incident.resolved",
    ]
    headers, event = receiver.received[0]
    assert headers["webhook-id"] == opened.receipt
    assert headers["content-type"] == "application/json"
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 3
    assert (event["data"]["key"], event["data"]["failures"]) == (KEY, 3)
    assert event["data"]["url"] == "https://monitor.example.com/incidents/shop.charge%2F2026-11-23T12Z"
    assert SECRET not in json.dumps(receiver.received)


def test_a_retry_is_the_same_event_at_another_time(receiver: Receiver) -> None:
    """The ID and the body stay the same, for deduplication; time and signature are the attempt's."""
    clock = ManualClock(time=NOW)
    sender = webhook(receiver.url, clock)
    receiver.answers.append((503, {}, b"busy"))
    with pytest.raises(RetryableError, match="answered 503: busy"):
        sender.send(ROW)
    clock.advance(90)
    sender.send(replace(ROW, attempts=1))
    (first, one), (second, other) = receiver.received
    assert one == other
    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 90
    assert first["webhook-signature"] != second["webhook-signature"]
    sender.send(replace(ROW, revision=2))  # there is more to tell
    assert receiver.received[2][0]["webhook-id"] != first["webhook-id"]


def test_the_reference_library_verifies(receiver: Receiver) -> None:
    """The library of Standard Webhooks for receivers accepts the event, and no other body."""
    webhook(receiver.url, SystemClock()).send(ROW)
    ((headers, event),) = receiver.received
    body = receiver.bodies[0]
    reference = standardwebhooks.Webhook(SECRET)
    assert reference.verify(body, headers) == event
    with pytest.raises(standardwebhooks.webhooks.WebhookVerificationError):
        reference.verify(body.replace(b"shop", b"shoq"), headers)


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (replace(ROW, priority=REFRESH + 1), "incident.opened"),  # the receiver has had nothing of it
        (replace(UPDATE, priority=1), "incident.opened"),  # opened again
        (replace(UPDATE, priority=-1), "incident.updated"),  # a person asked for it
    ],
)
def test_kinds(receiver: Receiver, item: OutboxItem, kind: str) -> None:
    """The first event of an incident is that it was opened, whatever the row's kind."""
    webhook(receiver.url).send(item)
    assert receiver.received[0][1]["type"] == kind


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_taken(receiver: Receiver, status: int) -> None:
    """Any 2xx means success, whatever its body."""
    receiver.answers.append((status, {}, b"" if status == 204 else b"x" * 100_000))
    webhook(receiver.url).send(ROW)


@pytest.mark.parametrize("status", [400, 410, 413, 415, 422])
def test_refused(receiver: Receiver, status: int) -> None:
    """A rejected event is given up, with the beginning of the answer and without the path."""
    receiver.answers.append((status, {}, b"no\x1b[2J " * 10_000))
    with pytest.raises(RejectedError, match=f"answered {status}: no") as caught:
        webhook(receiver.url).send(ROW)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()
    assert "secret-path" not in str(caught.value)


@pytest.mark.parametrize("path", ["/hooks/secret-path", "/hooks/x?key=secret-path", "/secret-path", "?secret-path"])
def test_a_receiver_that_repeats_the_path(receiver: Receiver, path: str) -> None:
    """Web servers repeat a missing path. It may be secret, and is removed."""
    url = receiver.url.removesuffix("/hooks/secret-path") + path
    receiver.answers.append((404, {}, f"Cannot POST {path} at {url}".encode()))
    with pytest.raises(RetryableError, match="answered 404: Cannot POST") as caught:
        webhook(url).send(ROW)
    assert "secret-path" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 401, 403, 404])
def test_to_be_repaired(receiver: Receiver, status: int) -> None:
    """Somebody has to repair it. Redirects are not followed: they could lead to an internal server."""
    receiver.answers.append((status, {"location": "/elsewhere"}, b""))
    with pytest.raises(RetryableError) as caught:
        webhook(receiver.url).send(ROW)
    assert caught.value.needs_repair
    assert "redirects are not followed" in str(caught.value.remedy)
    assert receiver.paths == [("POST", "/hooks/secret-path")]


def test_retry_after(receiver: Receiver) -> None:
    """The receiver's Retry-After is used."""
    receiver.answers.append((429, {"retry-after": "17"}, b""))
    with pytest.raises(RetryableError) as caught:
        webhook(receiver.url).send(ROW)
    assert (caught.value.after, caught.value.needs_repair) == (17.0, False)


def test_servers_that_do_not_answer() -> None:
    """A closed port, garbage, and a silent server end in time, without the path of the URL."""
    errors = []
    with misbehaving(talking(b"", b"\x00\xff nonsense\r\n\r\n")) as garbage, misbehaving(talking(b"")) as mute:
        for port, timeout in ((free_port(), 60.0), (garbage, 60.0), (mute, 0.3)):
            with pytest.raises(RetryableError) as caught:
                webhook(f"http://127.0.0.1:{port}/secret-path", timeout=timeout).send(ROW)
            errors.append(f"{caught.value} {caught.value.remedy}")
    assert not any("secret-path" in text for text in errors)
    assert "the url of channel audit" in errors[0]


def test_stopped() -> None:
    """A stopped sender sends nothing, and that does not count as an attempt."""
    sender = webhook(f"http://127.0.0.1:{free_port()}/")
    sender.stop()
    with pytest.raises(InterruptedSendError):
        sender.send(ROW)


def test_an_incident_that_is_gone() -> None:
    """Nothing is sent about an incident that is no longer stored."""
    sender = webhook("http://127.0.0.1:1/")
    sender._incident = lambda _: None
    with pytest.raises(RejectedError, match="no longer stored"):
        sender.send(ROW)


@pytest.mark.parametrize("char", ["x", "\x00", "\ud800", "\U0001f600", '"', "\\", "\n"])
def test_a_body_is_bounded(char: str) -> None:
    """For any text that a task controls, the event is bounded, valid JSON, without control characters."""
    long = char * 100_000
    names = {f"{number}{char * 5_000}": number for number in range(200)}
    hostile = structs.replace(
        incident(KEY),
        task=long, message=long, traceback=long, args=long, kwargs=long, exceptions=names, workers=names,
        queues=names, tasks=names, samples=(long,) * 5, rule=long, fleet=long,
    )  # fmt: skip
    body = render("incident.opened", hostile, NOW, "https://monitor.example.com")
    assert len(body) <= MAX_BYTES
    data = json.loads(body)["data"]
    assert data["summary"].isprintable()
    assert "\x00" not in json.dumps(data)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"secret": None}, "channels[0].secret: is required, here or by secret_file"),
        ({"secret": "hunter2"}, "channels[0].secret: must be whsec_ and 24 to 64 random bytes in Base64"),
        ({"secret": "whsec_aGVsbG8="}, "channels[0].secret: must be whsec_"),
        ({"url": "ftp://x"}, "channels[0].url: must be a URL like"),
        ({"url": None}, "channels[0].url: is required, here or by url_file"),
    ],
)
def test_settings(entry: dict[str, Any], problem: str) -> None:
    """The error does not contain the secret."""
    with pytest.raises(ConfigError) as caught:
        load(
            None, {"channels": [{"name": "audit", "type": "webhook", "url": "http://h/", "secret": SECRET} | entry]}, {}
        )
    assert str(caught.value).startswith(problem)
    assert "hunter2" not in str(caught.value)


def test_a_secret_in_a_file(tmp_path: Path) -> None:
    """It is validated with the configuration, and read again when it changes."""
    file = tmp_path / "secret"
    file.write_text("hunter2")
    entry = {"name": "audit", "type": "webhook", "url": "http://h/", "secret_file": str(file)}
    with pytest.raises(ConfigError, match="must be whsec_"):
        load(None, {"channels": [entry]}, {})
    file.write_text(f"{SECRET}\n")
    (audit,) = [channel for channel in configured(load(None, {"channels": [entry]}, {})) if channel.name == "audit"]
    assert audit.secrets[0].get() == SECRET


def test_a_url_in_a_file(receiver: Receiver, tmp_path: Path) -> None:
    """It is validated with the configuration, posted to, and read again when it changes; errors hide it."""
    file = tmp_path / "url"
    file.write_text("ftp://h/hunter2")
    entry = {"name": "audit", "type": "webhook", "url_file": str(file), "secret": SECRET}
    with pytest.raises(ConfigError, match="must be a URL like") as caught:
        load(None, {"channels": [entry]}, {})
    assert "hunter2" not in str(caught.value)
    file.write_text(f"{receiver.url}\n")
    with pytest.raises(ConfigError, match="set either url or url_file, not both"):
        load(None, {"channels": [entry | {"url": receiver.url}]}, {})
    settings = load(None, {"channels": [entry]}, {})
    (audit,) = [channel for channel in configured(settings) if channel.name == "audit"]
    assert audit.summary == f"on, to {urlsplit(receiver.url).netloc}"
    assert receiver.url in set(secrets_of(settings)())
    sender = webhook(SecretSource(None, file))
    sender.send(ROW)
    file.write_text(f"{receiver.url}/rotated")
    receiver.answers.append((404, {}, b"Cannot POST /hooks/secret-path/rotated"))
    with pytest.raises(RetryableError) as refused:
        sender.send(ROW)
    assert [path for _, path in receiver.paths] == ["/hooks/secret-path", "/hooks/secret-path/rotated"]
    assert "secret-path" not in str(refused.value)
    file.write_text(f"{receiver.url}\n{receiver.url}")
    with pytest.raises(ConfigError, match="must be a URL like"):
        load(None, {"channels": [entry]}, {})


def test_the_log_hides_the_url() -> None:
    """Its path may be secret, the receiver's host is not."""
    url = "https://hooks.example.com/services/T0/secret-path-of-the-hook"
    hidden = set(secrets_of(load(None, {"channels": [AUDIT | {"url": url}]}, {}))())
    assert hidden >= {url, "/services/T0/secret-path-of-the-hook", "secret-path-of-the-hook", SECRET}
    plain = set(secrets_of(load(None, {"channels": [AUDIT | {"url": "https://hooks.example.com/"}]}, {}))())
    assert not any("hooks.example.com" in text for text in plain)


def notify(tmp_path: Path, url: str) -> Result:
    """``celery-monitor notify test audit``."""
    file = tmp_path / "monitor.yaml"
    file.write_text(yaml.safe_dump({"fleet": "shop", "channels": [AUDIT | {"url": url}]}))
    return CliRunner().invoke(main, ["notify", "test", "audit", "--config", str(file)])


def test_the_test_event(receiver: Receiver, tmp_path: Path) -> None:
    """One marked event is sent, and the answer is printed; a rejection exits with 1."""
    result = notify(tmp_path, receiver.url)
    assert result.exit_code == 0, result.output
    ((headers, event),) = receiver.received
    assert event["type"] == "test"
    assert "nothing failed" in event["data"]["summary"]
    assert f"answered 204 to the test event {headers['webhook-id']}" in result.output
    receiver.answers.append((401, {}, b"bad signature"))
    refused = notify(tmp_path, receiver.url)
    assert refused.exit_code == 1
    assert "answered 401: bad signature: check url and secret of channel audit" in refused.output


def test_the_check_sends_no_event(receiver: Receiver) -> None:
    """``doctor`` only checks that the server answers."""

    def check(url: str) -> CheckState:
        entry = {"name": "audit", "type": "webhook", "url": url, "secret": SECRET}
        return (
            next(one for one in configured(load(None, {"channels": [entry]}, {})) if one.name == "audit").check().state
        )

    assert check(receiver.url) is CheckState.OK
    assert receiver.received == []
    assert check(f"http://127.0.0.1:{free_port()}/") is CheckState.FAIL
