"""``celery-monitor healthcheck``: the command for Docker's HEALTHCHECK."""

import http.client
import json
import socket
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from celery_monitor.cli.options import config_file
from celery_monitor.core.text import printable
from celery_monitor.errors import MonitorError
from celery_monitor.settings import WebSettings, load

_TIMEOUT: Final = 3.0  # seconds
_TOTAL_FACTOR: Final = 1.4
"""Factor for the timeout of the whole answer: it must be less than the 5 s of the image's HEALTHCHECK."""
_LOOPBACK: Final = {"0.0.0.0": ("127.0.0.1",), "::": ("127.0.0.1", "::1")}
"""The addresses to connect to if the daemon listens on all addresses."""
_MAX_ANSWER_BYTES: Final = 65536  # of an answer
_MAX_LENGTH: Final = 300
"""Maximum length of the printed text, in characters."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a request to /livez."""

    alive: bool
    ours: bool
    """Whether the answer came from a celery-monitor and not from another program."""
    text: str
    """One line."""
    responded: bool = True
    """Whether there was any answer."""


@click.command()
@config_file
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the daemon, if it runs with --port.")
def healthcheck(config_path: Path | None, port: int | None) -> None:
    """Request /livez from the running daemon. Exits with code 0 if it is alive, otherwise with 1 and the reasons."""
    settings = load(config_path, overrides={"web.port": port})
    answer = ask(settings.web)
    click.echo(answer.text)
    if not answer.alive:
        raise click.exceptions.Exit(1)


def ask(web: WebSettings) -> CheckResult:
    """Request /livez from the daemon on this machine, with a timeout of a few seconds.

    Raises:
        MonitorError: web.port is 0, so the port is unknown.
    """
    if web.port == 0:
        raise MonitorError(
            "web.port is 0: the daemon listens on a free port; find it in the daemon's log and pass it with --port"
        )
    answers = (_ask(host, web.port) for host in _LOOPBACK.get(web.host, (web.host,)))
    first = next(answers)
    return first if first.responded else next((answer for answer in answers if answer.responded), first)


def _ask(host: str, port: int) -> CheckResult:
    try:
        # Without the proxies of the environment and without redirects: the daemon is on this machine.
        with closing(http.client.HTTPConnection(host, port, timeout=_TIMEOUT)) as connection:
            connection.connect()
            # The timeout applies to each read; the timer limits the whole answer, even if it arrives slowly.
            timer = threading.Timer(_TOTAL_FACTOR * _TIMEOUT, _cut, [connection.sock])
            timer.start()
            try:
                connection.request("GET", "/livez")
                with connection.getresponse() as response:
                    return _answer(response.status, response.read(_MAX_ANSWER_BYTES))
            finally:
                timer.cancel()
    except (OSError, ValueError, http.client.HTTPException) as exc:
        reason = "timed out" if isinstance(exc, TimeoutError) else getattr(exc, "strerror", None) or str(exc)
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/livez"
        return CheckResult(
            alive=False,
            ours=False,
            responded=False,
            text=_line(f"no response from {url}: {reason or type(exc).__name__}"),
        )


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _answer(status: int, body: bytes) -> CheckResult:
    checks = _checks(body)
    if checks is None:
        text = f"not a celery-monitor: another program responded with status {status}"
        return CheckResult(alive=False, ours=False, text=text)
    states = "; ".join(f"{name}: {state}" for name, state in checks.items())
    alive = status == http.client.OK
    return CheckResult(alive, ours=True, text=_line(f"{'ok' if alive else f'failing, status {status}'}: {states}"))


def _checks(body: bytes) -> dict[str, str] | None:
    """The state of each check in a monitor's answer; None for any other answer."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    checks = document.get("checks") if isinstance(document, dict) else None
    return {str(name): str(state) for name, state in checks.items()} if isinstance(checks, dict) else None


def _line(text: str) -> str:
    return printable(" ".join(text.split()), _MAX_LENGTH)
