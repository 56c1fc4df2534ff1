"""What a failure was: exception class, message, and the innermost frame of the application, out of hostile text.

An event holds the exception's ``repr`` and, usually, a traceback. The repr's head is the class when it parses as
``Class(…)``; Celery ≥ 5.7 sends ``ExceptionWithTraceback()`` for children that were killed, and class reprs can be
anything: then the traceback's last line tells (``billiard.exceptions.WorkerLostError: …``).
"""

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from celery_monitor.core.text import Pattern, clean, redacted

LONGEST_MESSAGE: Final = 2_000
LONGEST_TRACEBACK: Final = 16_000
"""The end of it is kept: that is where the exception is."""
LONGEST_CLASS: Final = 120
NO_CLASS: Final = "Exception"

_REPR = re.compile(r"([A-Za-z_][\w.]{0,200})\((.*)\)\s*\Z", re.DOTALL)
_CLASS = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*\Z")
_NOT_REGISTERED = re.compile(r"""NotRegistered\(\s*(['"])(.+?)\1""", re.DOTALL)
_FRAME = re.compile(r'^  File "([^"\n]{1,500})", line \d+(?:, in ([^\n]{1,200}))?', re.MULTILINE)
_LIBRARY = re.compile(r"[/\\](?:site-packages|dist-packages|lib[/\\]python\d[\d.]*)[/\\]|^<")
_NO_NAMES: Final = frozenset({"", "ExceptionWithTraceback", "ExceptionInfo", "RemoteTraceback"})
"""What says nothing of the exception: Celery's carriers, and what is behind a dot at the end."""


class Classified(msgspec.Struct, frozen=True):
    """What is known of one failure."""

    exception: str
    """Short class name, a safe label value."""
    qualified: str
    """With its module where the traceback tells it."""
    message: str
    traceback: str
    frame: str
    """``path.py:function`` or ""."""


def classify(exception: str | None, traceback: str | None, redact: Sequence[Pattern] = ()) -> Classified:
    """Read a failure's texts. Never raises; the texts come back cut, printable and redacted."""
    raw = clean((exception or "")[: LONGEST_MESSAGE * 2])
    # Twice of what is kept, so that a secret cut in half here does not escape the redaction.
    trace = redacted(clean((traceback or "")[-LONGEST_TRACEBACK * 2 :]), redact)[-LONGEST_TRACEBACK:]
    last_class, last_message = _last_line(trace)
    head = _REPR.match(raw)
    if head is not None and head[1].rpartition(".")[2] not in _NO_NAMES:
        named, message = head[1], head[2]
        if last_class.rpartition(".")[2] == named:
            named = last_class
        if len(message) > 1 and message[0] in "'\"" and message[-1] in "',\"":
            message = message.rstrip(",").strip(message[0])
    elif last_class:
        named, message = last_class, last_message
    else:
        named, message = NO_CLASS, raw
    return Classified(
        exception=named.rpartition(".")[2][:LONGEST_CLASS],
        qualified=named[: LONGEST_CLASS * 2],
        message=redacted(message, redact)[:LONGEST_MESSAGE],
        traceback=trace,
        frame=_application_frame(trace),
    )


def unregistered_name(exception: str | None) -> str | None:
    """The task's name inside of ``NotRegistered('x')``: such a failure has no other event."""
    found = _NOT_REGISTERED.match((exception or "")[:LONGEST_MESSAGE])
    return found[2] if found else None


def group_id(name: str, exception: str, frame: str) -> str:
    """16 hex digits that stay the same for the same task, exception class and frame."""
    return blake2b(f"{name}\x00{exception}\x00{frame}".encode("utf-8", "replace"), digest_size=8).hexdigest()


def _last_line(traceback: str) -> tuple[str, str]:
    """Class and message of the exception line: the last one without indentation that looks like ``a.b.Class: …``."""
    for line in reversed(traceback.rstrip().splitlines()[-40:]):
        named, _, message = line.partition(":")
        if line[:1] != " " and _CLASS.match(named) and len(named) <= LONGEST_CLASS * 2:
            return named, message.strip()
    return "", ""


def _application_frame(traceback: str) -> str:
    for path, function in reversed(_FRAME.findall(traceback)):
        if not _LIBRARY.search(path):
            return f"{'/'.join(path.replace(chr(92), '/').split('/')[-3:])}:{function}"
    return ""
