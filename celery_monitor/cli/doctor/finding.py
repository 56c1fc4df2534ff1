"""What a check found."""

import enum
from dataclasses import dataclass
from typing import Final

import click

from celery_monitor.core.text import printable

_MAX_LENGTH: Final = 2000
_COLOURS: Final = {
    "ok": "green",
    "off": "bright_black",
    "skip": "bright_black",
    "note": "cyan",
    "warn": "yellow",
    "FAIL": "red",
}


class State(enum.StrEnum):
    """How it stands."""

    OK = "ok"
    OFF = "off"
    """Not configured, so there is nothing to be wrong."""
    SKIP = "skip"
    """Not looked at, because of something else that is not well."""
    NOTE = "note"
    """As it is configured, but somebody should know what it means."""
    WARN = "warn"
    """The monitor works, but somebody should know."""
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    state: State
    subject: str
    text: str
    """What was found, and where it is not well, what to do."""

    def __str__(self) -> str:
        """As it is printed; nothing in it can control the terminal."""
        state = click.style(f"{self.state.value:<5}", fg=_COLOURS[self.state])
        return f"{state} {self.subject:<14} {printable(' '.join(self.text.split()), _MAX_LENGTH)}"


def ok(subject: str, text: str) -> Finding:
    """It is well."""
    return Finding(State.OK, subject, text)


def off(subject: str, text: str) -> Finding:
    """It is not configured."""
    return Finding(State.OFF, subject, text)


def skip(subject: str, text: str) -> Finding:
    """It could not be looked at."""
    return Finding(State.SKIP, subject, text)


def note(subject: str, text: str) -> Finding:
    """Good to know."""
    return Finding(State.NOTE, subject, text)


def warn(subject: str, text: str) -> Finding:
    """Somebody should know."""
    return Finding(State.WARN, subject, text)


def fail(subject: str, text: str) -> Finding:
    """It has to be repaired."""
    return Finding(State.FAIL, subject, text)


def name_list(names: list[str], limit: int = 5) -> str:
    """Names in a sentence, the first of many."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
