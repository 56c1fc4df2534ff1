"""``celery-monitor healthcheck``: for Docker's HEALTHCHECK."""

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from celery_monitor.cli.options import config_file
from celery_monitor.core.text import printable
from celery_monitor.errors import MonitorError
from celery_monitor.settings import WebSettings, load

_TIMEOUT: Final = 3.0  # seconds
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
_MOST: Final = 65536  # bytes of an answer
_LONGEST: Final = 300
"""Characters of what is told of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking."""

    alive: bool
    ours: bool
    """It is a celery-monitor's, and not another program's."""
    text: str
    """In one line."""


@click.command()
@config_file
@click.option("--port", type=click.IntRange(1, 65535), help="Where `run` was given another port.")
def healthcheck(config_path: Path | None, port: int | None) -> None:
    """Ask the running daemon's /livez; exit with 0 if it lives, else with 1 and its reasons."""
    settings = load(config_path, overrides={"web.port": port})
    answer = ask(livez(settings.web))
    click.echo(answer.text)
    if not answer.alive:
        raise click.exceptions.Exit(1)


def livez(web: WebSettings) -> str:
    """The address to ask on this machine. Raises MonitorError where only the daemon knows it."""
    if web.port == 0:
        raise MonitorError("web.port is 0: the daemon took a free port; give it with --port (it is in its log)")
    host = _LOOPBACK.get(web.host) or (f"[{web.host}]" if ":" in web.host else web.host)
    return f"http://{host}:{web.port}/livez"


def ask(url: str) -> Answer:
    """Ask, and wait a few seconds for the answer."""
    # Without the proxies of the environment: the daemon is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_TIMEOUT) as response:
            return _answer(response.status, response.read(_MOST))
    except urllib.error.HTTPError as exc:
        with exc:
            return _answer(exc.code, exc.read(_MOST))
    except (OSError, http.client.HTTPException) as exc:
        reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
        told = (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(exc).__name__
        return Answer(alive=False, ours=False, text=_line(f"no answer from {url}: {told}"))


def _answer(status: int, body: bytes) -> Answer:
    checks = _checks(body)
    if checks is None:
        told = f"not a celery-monitor: another program answers with status {status}"
        return Answer(alive=False, ours=False, text=told)
    told = "; ".join(f"{name}: {state}" for name, state in checks.items())
    alive = status == http.client.OK
    return Answer(alive, ours=True, text=_line(f"{'ok' if alive else f'failing, status {status}'}: {told}"))


def _checks(body: bytes) -> dict[str, str] | None:
    """Each check's state, of a monitor's answer; None for anything else."""
    try:
        document = json.loads(body)
    except ValueError:
        return None
    checks = document.get("checks") if isinstance(document, dict) else None
    return {str(name): str(state) for name, state in checks.items()} if isinstance(checks, dict) else None


def _line(text: str) -> str:
    return printable(" ".join(text.split()), _LONGEST)
