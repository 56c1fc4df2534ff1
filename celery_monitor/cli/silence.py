"""``celery-monitor silence``: adds, lists and ends silences in the store. Can run while the daemon is running."""

import getpass
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from celery_monitor.adapters.clock import SystemClock
from celery_monitor.cli.attached import attached_store
from celery_monitor.cli.options import config_file, store_url
from celery_monitor.cli.table import print_table, printable
from celery_monitor.core.model import Silence
from celery_monitor.core.silences import silence_of
from celery_monitor.core.times import rfc3339
from celery_monitor.errors import MonitorError
from celery_monitor.settings import load
from celery_monitor.settings.units import duration

_HEADERS: Final = ("ID", "TASKS", "QUEUES", "STARTS", "ENDS", "BY", "REASON")
_WIDTH: Final = 60
_duration: Final = duration("1s", "30d")


def _seconds(_ctx: click.Context, _param: click.Parameter, text: str) -> float:
    try:
        return _duration.parse(text)
    except ValueError as exc:
        raise click.BadParameter(f"{text} {exc}") from exc


@click.group()
def silence() -> None:
    """Silence the notifications of tasks for a limited time.

    Failures are still counted and reported. When a silence ends, a task that has not succeeded since its last failure
    pages.
    """


@silence.command()
@click.argument("match", metavar="GLOB...", nargs=-1, required=True)
@click.option(
    "--for",
    "lasting",
    metavar="DURATION",
    required=True,
    callback=_seconds,
    help="How long: 1s to 30d.",
)
@click.option("--reason", metavar="TEXT", required=True, help="The reason, shown with the silence.")
@click.option("--queue", "queues", metavar="GLOB", multiple=True, help="Only in matching queues. Can be repeated.")
@config_file
@store_url
def add(  # noqa: PLR0917 - the options
    match: tuple[str, ...],
    lasting: float,
    reason: str,
    queues: tuple[str, ...],
    config_path: Path | None,
    store: str | None,
) -> None:
    """Silence the tasks whose names match a glob, such as 'shop.billing.*'. It takes effect within 5 seconds."""
    now = SystemClock().now()
    try:
        silence = silence_of(
            silence_id=secrets.token_hex(4),
            match=match,
            lasting=lasting,
            reason=reason,
            now=now,
            queues=queues,
            created_by=_user(),
        )
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    with attached_store(load(config_path, {"store.url": store})) as opened:
        opened.silences.add(silence)
    click.echo(f"silence {silence.id} of {', '.join(silence.match)} until {rfc3339(silence.ends_at)}")


@silence.command("list")
@config_file
@store_url
@click.option("--ended", is_flag=True, help="List the silences that have ended instead, newest first.")
def list_(config_path: Path | None, store: str | None, *, ended: bool) -> None:
    """Print the silences that have not ended, ordered by their end. Times are in UTC."""
    now = SystemClock().now()
    with attached_store(load(config_path, {"store.url": store})) as opened:
        silences = opened.silences.ended(now) if ended else opened.silences.current(now)
    if not silences:
        click.echo("no ended silences" if ended else "no silences")
        return
    print_table(_HEADERS, [_cells(silence) for silence in silences])


@silence.command()
@click.argument("silence_id", metavar="ID")
@config_file
@store_url
def end(config_path: Path | None, store: str | None, silence_id: str) -> None:
    """End a silence now. Failures that it held back page within seconds, unless the task has recovered."""
    with attached_store(load(config_path, {"store.url": store})) as opened:
        ended_silence = opened.silences.end(silence_id, SystemClock().now())
    if ended_silence is None:
        raise MonitorError("no silence with this ID is in effect: see celery-monitor silence list")
    click.echo(f"silence {ended_silence.id} of {', '.join(ended_silence.match)} has ended")


def _user() -> str:
    """The user on this machine; "" if unknown, for example in a container without such a user."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""
    return name if name.isprintable() else ""


def _cells(silence: Silence) -> tuple[str, ...]:
    return (
        silence.id,
        _listed(silence.match),
        _listed(silence.queues) or "all",
        rfc3339(silence.starts_at) or "",
        rfc3339(silence.ends_at) or "",
        printable(silence.created_by, _WIDTH) or "-",
        printable(silence.reason, _WIDTH),
    )


def _listed(globs: Sequence[str]) -> str:
    return printable(" ".join(globs), _WIDTH)
