"""``celery-monitor store``: copies a store to another one."""

import platform
import time
from pathlib import Path
from typing import Final

import click

from celery_monitor.adapters.store.copy import Compared, CopySide, StoreCopy
from celery_monitor.cli.options import config_file
from celery_monitor.errors import ConfigError, Problem
from celery_monitor.settings import Settings, load
from celery_monitor.settings.secret import Secret, SecretSource
from celery_monitor.settings.store import check_store_url

_PRINT_EVERY: Final = 1.0
"""Seconds between two lines about the same table."""


@click.group()
def store() -> None:
    """The database of counts, failures, incidents and notifications."""


@store.command()
@click.option("--from", "source", metavar="URL", required=True, help="The store to copy, as in store.url.")
@click.option("--to", "target", metavar="URL", required=True, help="An empty store, as in store.url.")
@config_file
def copy(source: str, target: str, config_path: Path | None) -> None:
    """Copy everything from one store to an empty one, and compare the two.

    Works between SQLite and PostgreSQL in both directions. Stop the daemon first: a store that is in use cannot be
    copied. The copy is complete, or nothing is written. The source is not changed. In PostgreSQL, the schema is
    store.schema, or is derived from the fleet's name: pass the daemon's configuration. A password may be in the URL,
    in the configuration's store.password_file, or where libpq looks for it (PGPASSWORD, ~/.pgpass).
    """
    settings = load(config_path, {})
    sides = _side(settings, "--from", source), _side(settings, "--to", target)
    progress = _CopyProgress()
    compared = StoreCopy(*sides, f"store copy on {platform.node()}", progress.show).run()
    click.echo(f"from {sides[0].about}\nto   {sides[1].about}")
    _print(compared)
    click.echo("The copy is complete. Set store.url to the URL of --to and start the daemon.")


def _side(settings: Settings, option: str, url: str) -> CopySide:
    try:
        check_store_url(url)
    except ValueError as exc:
        raise ConfigError([Problem(option, str(exc))]) from None
    section = settings.store
    return CopySide(
        option,
        SecretSource(Secret(url)),
        password=section.password_source(),
        schema=settings.schema_of_store,
        directory=section.directory,
    )


def _print(compared: list[Compared]) -> None:
    """Print the comparison of both sides."""
    rows = [(pair.name, f"{pair.source:,}", f"{pair.target:,}", "same") for pair in compared]
    table = [("", "SOURCE", "TARGET", ""), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    for name, was, now, same in table:
        click.echo(f"{name:<{widths[0]}}  {was:>{widths[1]}}  {now:>{widths[2]}}  {same}".rstrip())


class _CopyProgress:
    """Prints a line on standard error for each table, and more lines for large tables."""

    def __init__(self) -> None:
        self._printed_at = 0.0

    def show(self, table: str, done: int, count: int) -> None:
        """See OnProgress."""
        now = time.monotonic()
        if done >= count or now - self._printed_at >= _PRINT_EVERY:
            self._printed_at = now
            click.echo(f"{table}: {done:,} of {count:,} rows", err=True)
