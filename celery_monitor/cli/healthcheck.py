"""``celery-monitor healthcheck``: for Docker's HEALTHCHECK."""

import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

import click

from celery_monitor.cli.options import config_file
from celery_monitor.errors import MonitorError
from celery_monitor.settings import WebSettings, load

_TIMEOUT: Final = 3.0  # seconds
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
_MOST: Final = 65536  # bytes of an answer


@click.command()
@config_file
@click.option("--port", type=click.IntRange(1, 65535), help="Where `run` was given another port.")
def healthcheck(config_path: Path | None, port: int | None) -> None:
    """Ask the running daemon's /livez; exit with 0 if it lives, else with 1 and its reasons."""
    settings = load(config_path, overrides={"web.port": port})
    alive, text = _ask(_url(settings.web))
    click.echo(text)
    if not alive:
        raise click.exceptions.Exit(1)


def _url(web: WebSettings) -> str:
    if web.port == 0:
        raise MonitorError("web.port is 0: the daemon took a free port; give it with --port (it is in its log)")
    host = _LOOPBACK.get(web.host) or (f"[{web.host}]" if ":" in web.host else web.host)
    return f"http://{host}:{web.port}/livez"


def _ask(url: str) -> tuple[bool, str]:
    # Without the proxies of the environment: the daemon is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_TIMEOUT) as response:
            return True, _reasons(response.read(_MOST))
    except urllib.error.HTTPError as exc:
        with exc:
            return False, f"status {exc.code}: {_reasons(exc.read(_MOST))}"
    except (OSError, http.client.HTTPException) as exc:
        reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
        return False, f"no answer from {url}: {reason or type(exc).__name__}"


def _reasons(body: bytes) -> str:
    text = body.decode(errors="replace").strip()
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except ValueError:
        return text
