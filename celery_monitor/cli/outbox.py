"""``celery-monitor outbox``: what waits to be sent, what was given up, and another try. Works beside the daemon."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.store import open_store
from celery_monitor.cli.options import config_file, store_url
from celery_monitor.core.model import OutboxItem
from celery_monitor.errors import MonitorError
from celery_monitor.ports import Outbox
from celery_monitor.settings import load

_PAGE: Final = 500
_HEADERS: Final = ("ID", "STATE", "CHANNEL", "ACTION", "ATTEMPTS", "CREATED", "NEXT TRY", "KEY", "LAST ERROR")
_KEY_WIDTH: Final = 60
_ERROR_WIDTH: Final = 120


@click.group()
def outbox() -> None:
    """What waits to be sent or was given up."""


@outbox.command("list")
@config_file
@store_url
@click.option("--dead", is_flag=True, help="Only what was given up.")
def list_(config_path: Path | None, store: str | None, *, dead: bool) -> None:
    """Print what waits and what was given up, oldest first. Times are in UTC."""
    with _opened(config_path, store) as rows:
        table = [_HEADERS, *(_cells(item) for item in _items(rows, dead=dead))]
    if len(table) == 1:
        click.echo("nothing was given up" if dead else "nothing waits, and nothing was given up")
        return
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADERS))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@outbox.command()
@click.argument("item_id", metavar="ID", type=click.IntRange(min=1), required=False)
@click.option("--all-dead", is_flag=True, help="Everything that was given up.")
@config_file
@store_url
def retry(config_path: Path | None, store: str | None, item_id: int | None, *, all_dead: bool) -> None:
    """Make a row due now, or all rows that were given up; the running daemon sends them within a second."""
    if all_dead == (item_id is not None):
        raise click.UsageError("give either an ID (see: celery-monitor outbox list) or --all-dead")
    with _opened(config_path, store) as rows:
        count = rows.revive(item_id, SystemClock().now())
    if item_id is not None and count == 0:
        raise MonitorError(f"nothing to try again: row {item_id} is delivered, replaced by a newer row, or not there")
    click.echo(f"{count} row{'s' * (count != 1)} due now")


@contextmanager
def _opened(config_path: Path | None, url: str | None) -> Iterator[Outbox]:
    settings = load(config_path, {"store.url": url})
    store = open_store(settings.store.url, retention=settings.store.retention, fingerprints_kept=0)
    store.attach()
    try:
        yield store.outbox
    finally:
        store.stop()


def _items(rows: Outbox, *, dead: bool) -> Iterator[OutboxItem]:
    cursor = None
    while page := rows.items(dead=dead, limit=_PAGE, cursor=cursor):
        yield from page
        cursor = page[-1].id


def _cells(item: OutboxItem) -> tuple[str, ...]:
    return (
        str(item.id),
        item.state,
        item.channel,
        item.action,
        str(item.attempts),
        _time(item.created_at),
        _time(item.due_at) if item.state == "pending" else "never",
        _printable(item.key, _KEY_WIDTH),
        _printable(item.error or "", _ERROR_WIDTH),
    )


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%SZ}"


def _printable(text: str, width: int) -> str:
    """Keys and errors hold what tasks choose: nothing of it may control the terminal."""
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return shown if len(shown) <= width else shown[: width - 1] + "…"
