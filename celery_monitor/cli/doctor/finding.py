"""The result of a check."""

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
    """The severity of a finding."""

    OK = "ok"
    OFF = "off"
    """Not configured."""
    SKIP = "skip"
    """Not checked, because of another problem."""
    NOTE = "note"
    """Works as configured, but with consequences that users should know."""
    WARN = "warn"
    """The monitor works, but with restrictions."""
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of output."""

    state: State
    subject: str
    text: str
    """What was found, and for a problem, what to do."""

    def __str__(self) -> str:
        """The printed line, without characters that could control the terminal."""
        state = click.style(f"{self.state.value:<5}", fg=_COLOURS[self.state])
        return f"{state} {self.subject:<14} {printable(' '.join(self.text.split()), _MAX_LENGTH)}"


def ok(subject: str, text: str) -> Finding:
    """A finding without a problem."""
    return Finding(State.OK, subject, text)


def off(subject: str, text: str) -> Finding:
    """A finding about something that is not configured."""
    return Finding(State.OFF, subject, text)


def skip(subject: str, text: str) -> Finding:
    """A finding that was not checked."""
    return Finding(State.SKIP, subject, text)


def note(subject: str, text: str) -> Finding:
    """A finding for information."""
    return Finding(State.NOTE, subject, text)


def warn(subject: str, text: str) -> Finding:
    """A warning."""
    return Finding(State.WARN, subject, text)


def fail(subject: str, text: str) -> Finding:
    """A failed check."""
    return Finding(State.FAIL, subject, text)


def name_list(names: list[str], limit: int = 5) -> str:
    """Names for a sentence: the first few, and how many more."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
