"""``celery-monitor outbox``: lists and retries notifications. Can run while the daemon is running."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from celery_monitor.adapters.clock import SystemClock
from celery_monitor.cli.attached import attached_store
from celery_monitor.cli.options import config_file, store_url
from celery_monitor.cli.table import print_table, printable
from celery_monitor.core.model import OutboxItem
from celery_monitor.core.times import rfc3339
from celery_monitor.errors import MonitorError
from celery_monitor.ports import Outbox
from celery_monitor.settings import load

_Line = tuple[str, str]
"""Channel and route."""
_PAGE: Final = 500
_HEADERS: Final = ("ID", "STATE", "CHANNEL", "ACTION", "ATTEMPTS", "CREATED", "NEXT TRY", "KEY", "LAST ERROR")
_MAX_ID: Final = 1 << 63
_KEY_WIDTH: Final = 60
_ERROR_WIDTH: Final = 120


def _row_id(_ctx: click.Context, _param: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) < _MAX_ID):
        raise click.BadParameter(f"{text} is not an ID: use one from the first column of `celery-monitor outbox list`")
    return int(text)


@click.group()
def outbox() -> None:
    """Pending and failed notifications."""


@outbox.command("list")
@config_file
@store_url
@click.option("--dead", is_flag=True, help="Only failed notifications and those of unknown outcome.")
def list_(config_path: Path | None, store: str | None, *, dead: bool) -> None:
    """Print pending and failed notifications, oldest first. Times are in UTC.

    Notifications to one receiver are sent one at a time, so one can wait for another.
    """
    with _opened(config_path, store) as rows:
        first = {} if dead else _first_in_line(_items(rows, dead=False), SystemClock().now())
        table = [_cells(item, first) for item in _items(rows, dead=dead)]
    if not table:
        click.echo("no failed notifications" if dead else "no pending or failed notifications")
        return
    print_table(_HEADERS, table)


@outbox.command()
@click.argument("item_id", metavar="ID", callback=_row_id, required=False)
@click.option("--all-dead", is_flag=True, help="Retry all failed notifications.")
@config_file
@store_url
def retry(config_path: Path | None, store: str | None, item_id: int | None, *, all_dead: bool) -> None:
    """Retry the notification ID, or all failed ones. The running daemon sends them within a second."""
    if all_dead == (item_id is not None):
        raise click.UsageError("give either an ID (see: celery-monitor outbox list) or --all-dead")
    with _opened(config_path, store) as rows:
        count = rows.revive(item_id, SystemClock().now())
    if item_id is not None and count == 0:
        raise MonitorError(
            f"nothing to retry: notification {item_id} was delivered, was replaced by a newer one, or does not exist"
        )
    click.echo(f"retrying {count} notification{'s' * (count != 1)} now")


@contextmanager
def _opened(config_path: Path | None, url: str | None) -> Iterator[Outbox]:
    with attached_store(load(config_path, {"store.url": url})) as store:
        yield store.outbox


def _items(rows: Outbox, *, dead: bool) -> Iterator[OutboxItem]:
    page = rows.items(dead=dead, limit=_PAGE)
    yield from page.rows
    while page.next is not None:
        page = rows.items(dead=dead, limit=_PAGE, cursor=page.next)
        yield from page.rows


def _first_in_line(items: Iterable[OutboxItem], now: float) -> dict[_Line, int]:
    """The notification that each receiver gets next. One that is not due yet does not block others; see Outbox.due."""
    first: dict[_Line, int] = {}
    for item in items:
        if item.state == "pending" and (item.attempts > 0 or item.due_at <= now):
            first.setdefault((item.channel, item.route), item.id)
    return first


def _next_try(item: OutboxItem, first: Mapping[_Line, int]) -> str:
    if item.state != "pending":
        return "never"
    head = first.get((item.channel, item.route), item.id)
    return f"waits behind {head}" if head < item.id else rfc3339(item.due_at) or ""


def _cells(item: OutboxItem, first: Mapping[_Line, int]) -> tuple[str, ...]:
    return (
        str(item.id),
        item.state,
        item.channel,
        item.action,
        str(item.attempts),
        rfc3339(item.created_at) or "",
        _next_try(item, first),
        printable(item.key, _KEY_WIDTH),
        printable(item.error or "", _ERROR_WIDTH),
    )
