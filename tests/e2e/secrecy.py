"""A daemon with secrets everywhere, led through normal operation and failures, and a search in all of its output."""

import base64
import http.client
import json
import re
import sqlite3
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from bench.publish import body, publisher
from celery_monitor.adapters.store import open_store
from celery_monitor.core.model import Action, OutboxRequest
from tests.adapters.channels.email.mail_server import MailServer, serving
from tests.e2e.daemon import Daemon
from tests.e2e.paging import command
from tests.servers import RabbitMQ
from tests.servers.certificate import Certificate
from tests.servers.openid import CLIENT_ID, Provider
from tests.servers.pagerduty import PagerDutyServer
from tests.servers.scripted import misbehaving
from tests.servers.waiting import wait_until

if TYPE_CHECKING:
    import socket
    import threading

SECRETS: Final = {
    "broker password": "M4RK-broker@/:%+7f3a",
    "wrong broker password": "M4RK-wrong@/:%+81c0",
    "routing key": "M4RKroutingkeyofthedefaultroute0",
    "rule's routing key": "M4RKroutingkeyoftherulenamedown0",
    "mail password": "M4RK-mail+/=?&2d9e",
    "web password": "M4RK-web+/=?&5b1c",
    "client secret": "M4RK-client+/=?&4e8d",
    "session key": "M4RK-session+/=?&9b7f-of-32-characters",
    "secret in a message": "M4RKmessage3e8a",
    "secret in a traceback": "M4RKtraceback9d2f",
    "secret in args": "M4RKargs6c4b",
    "secret in kwargs": "M4RKkwargs0a7d",
}
REDACT: Final = [r"(?:password|token|secret)=[^\s'\",)]+"]
USER: Final = "operator"
PATHS: Final = (
    "/", "/tasks/own.pay", "/tasks/shop.pay", "/failures", "/failures/secretive-1", "/incidents", "/workers",
    "/metrics", "/reports/{date}", "/livez", "/readyz", "/health", "/openapi.json", "/nowhere", "/api/v1/summary",
    "/api/v1/tasks", "/api/v1/tasks/own.pay", "/api/v1/failures", "/api/v1/failures/secretive-1", "/api/v1/incidents",
    "/api/v1/workers", "/queues", "/runs", "/runs/secretive-1", "/api/v1/runs", "/api/v1/runs/secretive-1", "/silences",
    "/schedules", "/sign-in?next=/runs", "/sign-in/callback?code=x&state=x",
    "/api/v1/outbox", "/api/v1/reports/{date}", "/api/v1/tasks?limit=x",
)  # fmt: skip
KINDS: Final = ("command", "http", "log", "mail", "pagerduty", "store")


@dataclass
class Evidence:
    """All output of the monitor, by kind and location."""

    found: dict[str, dict[str, bytes]] = field(default_factory=lambda: {kind: {} for kind in KINDS})

    def add(self, kind: str, place: str, content: bytes | str) -> None:
        """Add output of a location."""
        content = content.encode() if isinstance(content, str) else content
        self.found[kind][place] = self.found[kind].get(place, b"") + content

    def leaks(self, kind: str) -> list[str]:
        """The secrets that were found, with location and encoding."""
        return [
            f"{name} ({form}) in {place}"
            for place, content in self.found[kind].items()
            for name, form in secrets_in(content)
        ]


def secrets_in(content: bytes) -> Iterator[tuple[str, str]]:
    """Every secret in the content: plain, escaped, in hexadecimal or in base64 at any offset."""
    for name, secret in SECRETS.items():
        for form, text in forms(secret):
            if text in content:
                yield name, form


def forms(secret: str) -> Iterator[tuple[str, bytes]]:
    """The ways in which a secret may be encoded."""
    raw = secret.encode()
    yield "as it is", raw
    yield "url-encoded", quote(secret, safe="").encode()
    yield "json", json.dumps(secret)[1:-1].encode()
    yield "html", secret.replace("&", "&amp;").encode()
    yield "hexadecimal", raw.hex().encode()
    for offset in range(3):
        # Without the ends, which depend on the neighbours.
        encoded = base64.b64encode(b"\0" * offset + raw)[4 * (offset > 0) : -4]
        yield "base64", encoded
        yield "base64url", encoded.replace(b"+", b"-").replace(b"/", b"_")


def echo(*keys: str) -> bytes:
    """A body that repeats these texts."""
    return json.dumps({"errors": [f"unknown routing key {key}" for key in keys], "routing_key": keys[0]}).encode()


def repeating(connection: "socket.socket", over: "threading.Event") -> None:
    """An SMTP server that refuses every password and repeats it."""
    connection.sendall(b"220 mail\r\n")
    with connection.makefile("rb") as lines:
        for line in lines:
            words = line.split()
            match words[0].upper():
                case b"EHLO":
                    answer = b"250-mail\r\n250 AUTH PLAIN LOGIN"
                case b"QUIT":
                    answer = b"221 bye"
                case b"AUTH" if words[1] == b"LOGIN":
                    answer = b"334 UGFzc3dvcmQ6"
                case _:
                    credentials = base64.b64decode(words[-1])
                    answer = b"535 5.7.8 refused " + words[-1] + b" which is " + credentials.replace(b"\0", b" ")
            connection.sendall(answer + b"\r\n")


class Story:
    """The daemon, its environment, and its output."""

    def __init__(self, directory: Path, broker: RabbitMQ, certificate: Certificate, stack: ExitStack) -> None:
        self.evidence = Evidence()
        self.days = 0
        self.today = datetime.now(UTC)
        """The story's day is that of its first failures, also when it is told over midnight."""
        self.broker = broker
        self.url = broker.new_vhost()
        self.vhost = self.url.rpartition("/")[2]
        stack.callback(broker.delete_vhost, self.url)
        broker.add_user("marked", SECRETS["broker password"], self.vhost, configure=".*", write=".*", read=".*")
        self.pagerduty = stack.enter_context(PagerDutyServer())
        self.untrusted = stack.enter_context(PagerDutyServer(certificate=certificate))
        self.mail = stack.enter_context(serving(MailServer()))
        self.untrusted_mail = stack.enter_context(serving(MailServer(certificate=certificate, security="tls")))
        self.repeating_mail = stack.enter_context(misbehaving(repeating))
        self.provider = stack.enter_context(Provider(time.time))
        self.provider.answers["/token"] = (401, json.dumps({"error": SECRETS["client secret"]}).encode())
        files = {name: directory / name.replace(" ", "-") for name in ("rule's routing key", "web password")}
        for name, file in files.items():
            file.write_text(SECRETS[name])
        self.daemon = Daemon(
            directory / "daemon",
            self.broker_url("broker password"),
            {
                "log": {"level": "debug", "format": "json"},
                "tracking": {"redact": REDACT, "capture_arguments": True},
                "web": {
                    "username": USER,
                    "password_file": str(files["web password"]),
                    "external_url": "http://monitor.test",
                    "viewers": ["*"],
                    "session_key": SECRETS["session key"],
                    "oidc": {
                        "issuer": self.provider.issuer,
                        "client_id": CLIENT_ID,
                        "client_secret": SECRETS["client secret"],
                    },
                },
                "alerts": {
                    "rules": [{"name": "own", "match": ["own.*"], "routing_key_file": str(files["rule's routing key"])}]
                },
                "pagerduty": {"url": self.pagerduty.url, "routing_key": SECRETS["routing key"], "timeout": "30s"},
                "email": {
                    "host": "127.0.0.1",
                    "port": self.repeating_mail,
                    "security": "none",
                    "username": "mailer",
                    "password": SECRETS["mail password"],
                    "from": "monitor@example.com",
                    "to": ["ops@example.com"],
                },
            },
        )
        stack.callback(self.daemon.stop)

    def broker_url(self, password: str, scheme: str = "amqp") -> str:
        """With one of the secrets as the password."""
        secret = quote(SECRETS[password], safe="")
        return f"{scheme}://marked:{secret}@127.0.0.1:{self.broker.port}/{self.vhost}"

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """Restart with other settings."""
        self.daemon.stop()
        for name, fields in sections.items():
            self.daemon.settings[name].update(fields)
        self.daemon.start()

    def fail(self, *tasks: str, pause: float = 0.0) -> None:
        """Failures with secrets in every text that a task controls, ``pause`` seconds apart."""
        to = publisher(self.url)
        for number, task in enumerate(tasks, 1):
            to.publish(body(secretive(task, f"secretive-{number}")))
            time.sleep(pause)
        to.settle()
        to.close()

    def enqueue(self) -> None:
        """Enqueue something on every channel, and make waiting rows due."""
        self.days += 1
        now = time.time()
        store = open_store(f"sqlite:///{self.daemon.store}", retention=3e9, fingerprint_window=0)
        store.attach()
        for route in ("", "own"):
            store.outbox.enqueue(OutboxRequest("pagerduty", f"{route}/{now}", Action.RESOLVE, route, now), now)
        date = f"{self.today - timedelta(days=self.days):%Y-%m-%d}"
        store.outbox.enqueue(OutboxRequest("email", date, Action.REPORT, due_at=now), now)
        for row in store.outbox.items(dead=False, limit=100).rows:
            store.outbox.revive(row.id, now)
        store.stop()

    def until_tried(self, channel: str, state: str) -> None:
        """Wait until a row of the channel has been tried and has the state."""
        query = "SELECT count(*) FROM outbox WHERE channel = ? AND state = ? AND attempts > 0"

        def tried() -> bool:
            with closing(sqlite3.connect(f"file:{self.daemon.store}?mode=ro", uri=True, timeout=20)) as connection:
                return bool(connection.execute(query, (channel, state)).fetchone()[0])

        wait_until(tried, 60, every=0.05, what=f"{channel} {state}")

    def browse(self, label: str) -> None:
        """Request every page: with the password, without it, and with wrong ones."""
        date = f"{self.today:%Y-%m-%d}"
        good = base64.b64encode(f"{USER}:{SECRETS['web password']}".encode()).decode()
        for authorization in (None, f"Basic {good}", "Basic d3Jvbmc6d3Jvbmc=", f"Bearer {good}"):
            for accept in ("text/html", "application/json"):
                for path in PATHS:
                    self.evidence.add(
                        "http", f"{label} {path}", self.get(path.format(date=date), accept, authorization)
                    )

        self.evidence.add("http", f"{label} sign-in", self.sign_in())

    def sign_in(self) -> bytes:
        """Sign in with the provider, which refuses the client secret and repeats it."""
        begun = self.get("/sign-in", "text/html", None).decode()
        state, cookie = re.search(r"[?&]state=([\w-]+)", begun), re.search(r"'set-cookie', '([^;]+)", begun)
        assert state is not None, begun
        assert cookie is not None, begun
        return self.get(f"/sign-in/callback?code=x&state={state[1]}", "text/html", None, Cookie=cookie[1])

    def get(self, path: str, accept: str, authorization: str | None, **more: str) -> bytes:
        """Status, headers and body."""
        headers = {"Accept": accept, **more} | ({"Authorization": authorization} if authorization else {})
        with closing(http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=60)) as connection:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return f"{response.status} {response.getheaders()}\n".encode() + response.read()

    def run(self, label: str, *lines: str) -> None:
        """Record the output of commands, and Python's representations."""
        for line in lines:
            done = command(self.daemon, *line.split())
            assert done.exit_code in {0, 1}, done.output  # it was understood
            trace = "".join(traceback.format_exception(*done.exc_info)) if done.exc_info else ""
            self.evidence.add("command", f"{label}: {line.partition(' --broker')[0]}", done.output + trace)

    def keep_store(self, label: str) -> None:
        """Record the current contents of the store's files."""
        for file in self.daemon.store.parent.glob(f"{self.daemon.store.name}*"):
            self.evidence.add("store", f"{label} {file.name}", file.read_bytes())

    def close(self) -> Evidence:
        """Stop the daemon, and record its files."""
        self.evidence.add("log", "command line", Path(f"/proc/{self.daemon.pid}/cmdline").read_bytes())
        self.daemon.stop()
        self.evidence.add("log", "daemon", self.daemon.log.read_bytes())
        self.keep_store("at last")
        for server in (self.pagerduty, self.untrusted):
            for seen in server.received:
                event = {name: value for name, value in seen.event.items() if name != "routing_key"}
                self.evidence.add("pagerduty", f"{seen.action} {seen.key}", json.dumps([event, dict(seen.headers)]))
        for index in range(len(self.mail.mails)):
            for part in self.mail.message(index).walk():
                content = part.get_payload(decode=True)
                self.evidence.add("mail", f"mail {index}", f"{part.items()}".encode())
                self.evidence.add("mail", f"mail {index}", content if isinstance(content, bytes) else b"")
        return self.evidence


def secretive(task: str, uuid: str) -> list[dict[str, Any]]:
    """The events of a failure with a secret in every text."""
    message, trace, args, kwargs = (SECRETS[name] for name in SECRETS if name.startswith("secret in"))
    frame = f'  File "/srv/shop/pay.py", line 4, in pay\n    login("secret={trace}")\n'
    both = {"hostname": "celery@box", "uuid": uuid, "timestamp": time.time()}
    return [
        both
        | {
            "type": "task-received",
            "name": task,
            "args": f"('token={args}',)",
            "kwargs": f"{{'how': 'password={kwargs}'}}",
        },
        both
        | {
            "type": "task-failed",
            "exception": f"LoginError('refused: password={message}')",
            "traceback": f"Traceback (most recent call last):\n{frame}shop.LoginError: refused: password={message}\n",
        },
    ]
