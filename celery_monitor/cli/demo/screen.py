"""Prints the demo's output, one line per event, from any thread."""

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
    """Print a line with the local time and the kind of event. Colours are used only on a terminal."""
    click.echo(f"{time.strftime('%H:%M:%S')}  {click.style(f'{kind:<9}', fg=_COLOURS.get(kind))} {text}")


def introduce(title: str, places: dict[str, str], notice: str) -> None:
    """Print the heading and the addresses and files of the demo."""
    click.echo(click.style(title, bold=True))
    click.echo()
    for name, place in places.items():
        click.echo(f"  {name:<17}{place}")
    click.echo()
    click.echo(notice)
    click.echo()
