"""The demo's lines: what happened, one line each, whichever thread says it."""

import time
from typing import Final

import click

_COLOURS: Final = {
    "opened": "red",
    "reopened": "red",
    "updated": "yellow",
    "resolved": "green",
    "mail": "cyan",
    "counts": "bright_black",
}


def say(kind: str, text: str) -> None:
    """Print a line with the local time; ``kind`` says what it is about. Colours only on a terminal."""
    click.echo(f"{time.strftime('%H:%M:%S')}  {click.style(f'{kind:<9}', fg=_COLOURS.get(kind))} {text}")


def introduce(title: str, places: dict[str, str], notice: str) -> None:
    """Print the heading, and where to look."""
    click.echo(click.style(title, bold=True))
    click.echo()
    for name, place in places.items():
        click.echo(f"  {name:<17}{place}")
    click.echo()
    click.echo(notice)
    click.echo()
