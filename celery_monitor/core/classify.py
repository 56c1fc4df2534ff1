"""Finds a failure's exception class, message and innermost application frame in untrusted text.

An event contains the exception's ``repr`` and, usually, a traceback. Neither can be trusted alone: a class may define
any ``repr``, and Celery ≥ 5.7 sends ``ExceptionWithTraceback()`` for killed child processes; in the traceback, where
Python writes the class, a message may look like another exception. So each confirms the other. The class is that of
the traceback section (see `traceback_parser`) whose class or message matches the ``repr``; without such a section, that
of the last section; without a traceback, the head of the ``repr`` if it has the form ``Class(…)``.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import msgspec

from celery_monitor.core.text import UNREAD, Pattern, redacted, storable_text
from celery_monitor.core.traceback_parser import Frame, TracebackSection, sections

MAX_MESSAGE_LENGTH: Final = 2_000
MAX_TRACEBACK_LENGTH: Final = 16_000
"""The end is kept, because it names the exception."""
MAX_CLASS_LENGTH: Final = 120
NO_CLASS: Final = "Exception"

_HEAD = re.compile(r"((?:[^\W\d]\w{0,119}\.){0,9}[^\W\d]\w{0,119})\(")
_NOT_REGISTERED = re.compile(r"""NotRegistered\(\s*(['"])(.+?)\1""", re.DOTALL)
_LIBRARY = re.compile(
    r"[/\\](?:site-packages|dist-packages|[^/\\]{1,80}\.(?:egg|whl)|python\d{1,4}\.zip|(?:lib|lib64|Lib)[/\\](?:python|pypy)\d[\d.]*t?)[/\\]"
    r"|[/\\]Python\d{2,3}[/\\]Lib[/\\]|^<|^\.\.\.$"
)
_ARCHIVE = re.compile(r"\.zip[/\\]")
_CELERY = re.compile(
    r"[/\\](?:celery[/\\](?:app[/\\](?:autoretry|base|builtins|task|trace)|canvas|local|result|schedules"
    r"|(?:backends|concurrency|utils|worker)[/\\][\w/\\]{1,80})|(?:billiard|kombu|vine|amqp)[/\\][\w/\\]{1,80})\.py$"
)
_PACKAGE = re.compile(r"(.{0,480}[/\\](?:site|dist)-packages[/\\])([^/\\]{1,200})")
_WRAPPERS: Final = frozenset({"ExceptionWithTraceback", "ExceptionInfo", "UnpickleableExceptionWrapper"})
"""Classes in which Celery wraps an exception: they say nothing about it."""
_WRAPPER: Final = "UnpickleableExceptionWrapper("
_WRAPPED = re.compile(r"UnpickleableExceptionWrapper\('[\w.<>]{0,240}', '([^\W\d]\w{0,119})', ")
_USUAL: Final = 4_000
"""Longest traceback, in characters, whose frame is cached."""
_PATHS: Final = 1000
"""Paths whose classification is cached: most failures have frames that were seen before."""
_RETRY: Final = "celery.exceptions.Retry"
"""Ends each attempt that will be retried; the event's ``exception`` gives the reason."""


_REMEMBERED: Final = 256
"""Failures whose texts and classification are cached."""
_MAX_REMEMBERED: Final = 8_000
"""Longest failure that is cached, in characters."""


class Classified(msgspec.Struct, frozen=True, gc=False):
    """The classification of one failure."""

    exception: str
    """Short class name, safe as a label value."""
    qualified: str
    """Class name, with its module if the traceback contains it."""
    message: str
    traceback: str
    frame: str
    """``path.py:function`` or ""."""


class Classifier:
    """``classify`` with a cache: most failures are exact repetitions of an earlier one.

    Not thread-safe: it belongs to the monitor.
    """

    def __init__(self, redact: Sequence[Pattern] = ()) -> None:
        """``redact``: patterns that are replaced in every text."""
        self._redact = redact
        self._known: dict[tuple[str | None, int], tuple[str | None, Classified]] = {}
        """Exception and length of the traceback → the traceback and the result. Comparing long texts is cheaper than
        hashing them."""

    def classify(self, exception: str | None, traceback: str | None) -> Classified:
        """Like the function ``classify``."""
        length = len(traceback) if traceback else 0
        known = self._known.get((exception, length))
        if known is not None and known[0] == traceback:
            return known[1]
        result = classify(exception, traceback, self._redact)
        # A pattern that timed out now may succeed for the next failure.
        if length + len(exception or "") <= _MAX_REMEMBERED and UNREAD not in (result.message, result.traceback):
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[exception, length] = traceback, result
        return result


def classify(exception: str | None, traceback: str | None, redact: Sequence[Pattern] = ()) -> Classified:
    """Classify a failure. Never raises; the returned texts are truncated, printable and redacted."""
    raw_exception, text = exception or "", traceback or ""
    raw = storable_text(raw_exception[: MAX_MESSAGE_LENGTH * 2])
    # Twice the length that is kept, so that a secret cut in half here does not escape redaction.
    limit = MAX_TRACEBACK_LENGTH * 2
    trace = redacted(storable_text(text[-limit:]), redact)
    if len(text) <= limit:
        chain = sections(trace)
    else:
        chain = sections(
            redacted(storable_text(text[:limit]), redact)[:MAX_TRACEBACK_LENGTH], trace[-MAX_TRACEBACK_LENGTH:]
        )
    qualified_name, message = _named(raw, chain, cut=len(raw_exception) > len(raw))
    return Classified(
        exception=_short(qualified_name)[:MAX_CLASS_LENGTH],
        qualified=qualified_name,
        message=redacted(message, redact)[:MAX_MESSAGE_LENGTH],
        traceback=trace[-MAX_TRACEBACK_LENGTH:],
        frame=_place(chain, len(trace)),
    )


def unregistered_name(exception: str | None) -> str | None:
    """The task name in ``NotRegistered('x')``: such a task has no other event that names it."""
    match = _NOT_REGISTERED.match((exception or "")[:MAX_MESSAGE_LENGTH])
    return match[2] if match else None


@lru_cache(maxsize=1024)
def group_id(name: str, exception: str, frame: str) -> str:
    """16 hex digits, identical for equal task, exception class and frame."""
    return blake2b(f"{name}\x00{exception}\x00{frame}".encode("utf-8", "replace"), digest_size=8).hexdigest()


def _named(raw: str, chain: Sequence[TracebackSection], *, cut: bool) -> tuple[str, str]:
    """Class and message. ``cut``: the end of the ``repr`` is missing."""
    head, inner = _head(raw, cut=cut)
    if head and chain:  # the result of the loop below for nearly all failures
        last_name = _short(chain[-1].qualified)
        if last_name == _short(head) and last_name not in _WRAPPERS:
            return chain[-1].qualified, inner
    named = [section for section in chain if section.qualified and _short(section.qualified) not in _WRAPPERS]
    for section in reversed(named):
        if head and _short(section.qualified) == _short(head):
            return section.qualified, inner
        if raw and _says(raw, section.message):
            return section.qualified, raw
    last = next((section for section in reversed(named) if section.qualified != _RETRY), None)
    carried = chain[-1].message if chain and _short(chain[-1].qualified) in _WRAPPERS else ""
    if last is not None and not (head and (carried or named[-1] is not last)):
        return last.qualified, inner if head else last.message
    if not head:
        head, inner = _head(carried, cut=False)
    return (head, inner) if head else (NO_CLASS, carried or raw)


def _head(raw: str, *, cut: bool) -> tuple[str, str]:
    """Class and arguments of ``Class(…)``; "" for any other ``repr`` and for Celery's wrapper classes."""
    if raw.startswith(_WRAPPER) and (wrapped := _WRAPPED.match(raw)):
        return wrapped[1], raw[wrapped.end() :]
    match = _HEAD.match(raw)
    body = raw.rstrip()
    if match is None or _short(match[1]) in _WRAPPERS or not (cut or body.endswith(")")):
        return "", ""
    inner = body[match.end() :] if cut else body[match.end() : -1]
    if len(inner) > 1 and inner[0] in "'\"" and inner[-1] in "',\"":
        inner = inner.rstrip(",").strip(inner[0])
    return match[1], inner


def _short(qualified: str) -> str:
    return qualified.rpartition(".")[2]


def _says(raw: str, message: str) -> bool:
    """Whether a free-form ``repr`` is the exception's message, as with pydantic and gRPC."""
    first = message.partition("\n")[0]
    return bool(first) and raw.partition("\n")[0].strip() == first


def _place(chain: Sequence[TracebackSection], length: int) -> str:
    """The application frame in which the task failed, formatted for display."""
    if length <= _USUAL and len(chain) == 1 and not chain[0].held:
        return _known_place(chain[0].frames)
    return _shown(_application_frame(chain))


@lru_cache(maxsize=256)
def _known_place(frames: tuple[Frame, ...]) -> str:
    return _shown(_application_frame([TracebackSection("", "", frames)]))


def _application_frame(chain: Sequence[TracebackSection]) -> Frame | None:
    """The innermost frame outside of libraries, of the last exception in the chain that has one.

    If that frame only calls ``retry``, or code that ran in another process, the cause is more informative.
    """
    passed_on = None
    for outside in (_is_outside, _is_library):
        for section, before in zip(reversed(chain), [*reversed(chain[:-1]), None], strict=False):
            for frames in (section.frames, section.held):
                frame, after = _innermost(frames, outside)
                if frame is None:
                    continue
                is_repeated = before is not None and before.remote and before.qualified == section.qualified
                if not is_repeated and not _is_retry(after):
                    return frame
                passed_on = passed_on or frame
    return passed_on or next(filter(None, map(_installed_frame, reversed(chain))), None)


def _innermost(frames: Sequence[Frame], outside: Callable[[str], bool]) -> tuple[Frame | None, Frame | None]:
    """The last frame that is not ``outside`` the application, and the frame that it called."""
    after = None
    for frame in reversed(frames):
        if not outside(frame[0]):
            return frame, after
        after = frame
    return None, None


def is_library(path: str) -> bool:
    """Whether a frame's file belongs to a library, to Python or to an archive, and not to the application."""
    return _is_outside(path)


@lru_cache(maxsize=_PATHS)
def _is_outside(path: str) -> bool:
    """Libraries and archives; an archive may contain either kind of code."""
    return _is_library(path) or bool(_ARCHIVE.search(path))


@lru_cache(maxsize=_PATHS)
def _is_library(path: str) -> bool:
    return bool(_LIBRARY.search(path) or _CELERY.search(path))


def _is_retry(frame: Frame | None) -> bool:
    return frame is not None and frame[1] == "retry" and bool(_CELERY.search(frame[0]))


def _installed_frame(section: TracebackSection) -> Frame | None:
    """For an application installed like a library: its package is that of the task function, which Celery calls."""
    frames = section.frames
    first = next((n for n, frame in enumerate(frames) if not _CELERY.search(frame[0])), 0)
    package = _PACKAGE.match(frames[first][0]) if first else None
    if package is None:
        return None
    return next((frame for frame in reversed(frames[first:]) if frame[0].startswith(package[0])), None)


def _shown(frame: Frame | None) -> str:
    if frame is None:
        return ""
    path, function = frame
    return f"{'/'.join(path.replace(chr(92), '/').split('/')[-3:])}:{function}"
