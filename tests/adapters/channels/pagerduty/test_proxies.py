"""The environment's proxy and its password, which is in no log, outbox row, page or mail."""

import base64
import re
import socket
import traceback
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from celery_monitor.adapters.channels.pagerduty.reachability import check_reachable
from celery_monitor.adapters.channels.pagerduty.send import PagerDuty
from celery_monitor.core.model import Action
from celery_monitor.errors import DeliveryError
from celery_monitor.settings.secret import Secret, SecretSource
from tests.adapters.channels.pagerduty.incidents import AT, KEY, an_incident, an_item
from tests.fakes import ManualClock
from tests.servers.ports import free_port
from tests.servers.scripted import misbehaving, talking

FIRST, SECOND = "hunter2", "correcthorse"
"""The two parts of a password: also one alone is too much."""
WAIT_SECONDS = 60.0
"""Seconds for an answer, on a busy machine."""


def failed(url: str, monkeypatch: pytest.MonkeyPatch, proxy: str) -> list[str]:
    """The errors, with all causes, of a page and a check that fail at this proxy."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    key = SecretSource(Secret(KEY))
    sender = PagerDuty(
        url=url, keys={"": key}, incident=lambda _: an_incident(), clock=ManualClock(time=AT), timeout=WAIT_SECONDS
    )
    calls: tuple[Callable[[], int], ...] = (
        lambda: sender.send(an_item(an_incident(), Action.TRIGGER)).count,
        lambda: check_reachable(url, WAIT_SECONDS),
    )
    errors = []
    for call in calls:
        try:
            call()
        except DeliveryError as exc:
            errors += [f"{exc}: {exc.remedy}", "".join(traceback.format_exception(exc))]
    return errors


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host name can be resolved, regardless of the machine's name server."""
    resolve = socket.getaddrinfo

    def lookup(host: str, *args: object, **options: object) -> object:
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The libraries' log output does not contain it either."""
    caplog.set_level("DEBUG")
    yield
    assert shown([caplog.text]) == []


def shown(errors: list[str]) -> list[str]:
    """Parts of the password in it, in any encoding."""
    forms = [
        FIRST,
        SECOND,
        *(base64.b64encode(f"user:{FIRST}{mark}{SECOND}".encode()).decode() for mark in "/?#@[: %-"),
    ]
    return [form for form in forms for text in errors if form in text]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "proxy",
    [
        *(f"http://user:{FIRST}{mark}{SECOND}@127.0.0.1:1" for mark in "/?#[\\"),
        f"http://user:{FIRST}-{SECOND}@127.0.0.1:99999",
        f"http://user:{FIRST}-{SECOND}@127.0.0.1:port",
        f"http://user:{FIRST}-{SECOND}@[::1",
        f"http://user:{FIRST}@{SECOND}/x@127.0.0.1:1",
        f"{FIRST}:{SECOND}://127.0.0.1:1",
        f"http://user:{FIRST}-{SECOND}",
    ],
)
def test_a_proxy_that_is_no_url(scheme: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says so and quotes no part of it, because it may contain a password."""
    errors = failed(f"{scheme}://127.0.0.1:{free_port()}", monkeypatch, proxy)
    assert len(errors) == 4
    assert shown(errors) == []
    assert all("the proxy setting in the environment is not a valid URL" in text for text in errors)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:{}@127.0.0.1:{}",
        "user:{}@127.0.0.1:{}",
        "https://user:{}@127.0.0.1:{}",
        "socks5://user:{}@127.0.0.1:{}",
        "http://user:{}@no.such.host.invalid:{}",
        "ftp://user:{}@127.0.0.1:{}",
    ],
)
@pytest.mark.parametrize("mark", ["-", "/", "@", " ", "%"])
def test_a_proxy_that_is_not_there(scheme: str, proxy: str, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens, or another protocol: the page waits, and the error names the proxy without its password."""
    password = quote(f"{FIRST}{mark}{SECOND}", safe="")
    errors = failed(f"{scheme}://127.0.0.1:{free_port()}", monkeypatch, proxy.format(password, free_port()))
    assert len(errors) == 4
    assert shown(errors) == []
    assert all(re.search("proxy: |the proxy setting|SOCKS proxies", text) for text in errors[::2])


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("status", [b"407 Proxy Authentication Required", b"407 No"])
def test_a_proxy_that_refuses(scheme: str, status: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported as the proxy's answer, with what to check, and not as PagerDuty's."""
    with misbehaving(talking(b"", b"HTTP/1.1 " + status + b"\r\n\r\n", quiet=WAIT_SECONDS)) as port:
        errors = failed(f"{scheme}://127.0.0.1:{free_port()}", monkeypatch, f"http://user:{FIRST}@127.0.0.1:{port}")
    assert len(errors) == 4
    for text in errors[::2]:
        assert re.search("proxy: .*407 .*check HTTPS_PROXY, HTTP_PROXY and NO_PROXY", text)
        assert "responded with" not in text
    assert shown(errors) == []


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("mark", ["-", "/", "@", ":"])
def test_a_proxy_that_repeats_what_it_refuses(scheme: str, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """407 with the password in any encoding: no part of it is passed on."""
    password = f"{FIRST}{mark}{SECOND}"
    sent = base64.b64encode(f"user:{password}".encode()).decode()
    repeated = f"{sent} {password} {quote(password, safe='')} user:{password}"
    answer = f"HTTP/1.1 407 {repeated}\r\nX: {repeated}\r\nContent-Length: {len(repeated)}\r\n\r\n{repeated}".encode()
    with misbehaving(talking(b"", answer, quiet=WAIT_SECONDS)) as port:
        proxy = f"http://user:{quote(password, safe='')}@127.0.0.1:{port}"
        errors = failed(f"{scheme}://127.0.0.1:{free_port()}", monkeypatch, proxy)
    assert re.search("407", errors[0])
    assert shown(errors) == []
