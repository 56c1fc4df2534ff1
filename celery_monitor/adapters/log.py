"""structlog: one line per event on standard error or in a file, as JSON or as readable text, with times in UTC.

Warnings of other libraries are logged in the same way. Repeated lines are omitted after the first twenty in a minute
(two hundred for informational lines), and the next one of their kind has the number of omitted lines. As a last
defence, every configured secret is replaced in every line; normally no line contains one.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from time import monotonic
from typing import Any, Final, TextIO, cast

import structlog

SHORTEST_SECRET: Final = 6
"""Shorter secrets ("guest") would remove words from every second line."""
MAX_REPEATS: Final = 20
"""Maximum lines of one kind within REPEATS_WINDOW: repeated errors must not fill a disk or hide other errors."""
MAX_INFO_REPEATS: Final = 200
"""The same for informational lines and for failures that change an incident, which hostile names can multiply."""
REPEATS_WINDOW: Final = 60.0
MAX_KINDS: Final = 500
"""Maximum number of kinds that are counted; beyond it the one that started first is dropped."""
_MAX_LINES: Final = {"info": MAX_INFO_REPEATS, "warning": MAX_REPEATS, "error": MAX_REPEATS, "exception": MAX_REPEATS}
"""Level → maximum lines of one kind. Critical lines and, if enabled, debug lines are never omitted."""
_HIDDEN: Final = "[secret]"


def configure(level: str, form: str, secrets: Callable[[], Iterable[str]] = tuple, *, to: TextIO | None = None) -> None:
    """Set up logging for the process. ``form`` is json or console; ``secrets`` returns the current secrets.

    ``to`` replaces standard error.
    """
    stream = _Unfailing(to or sys.stderr)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    hide, repeats = _Hide(secrets), Repeats()
    if form == "json":
        last: list[Any] = [structlog.processors.format_exc_info, hide, structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        colours = stream.isatty()
        last = [
            structlog.processors.format_exc_info,
            hide,
            structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain),
        ]
    structlog.configure(
        processors=[_RepeatFilter(repeats), *shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", stream)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[_unpack, *last], foreign_pre_chain=shared))
    handler.addFilter(lambda record: _passes(repeats, record))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))


class _Unfailing:
    """A stream whose lines may be lost: a full disk or a pipe without a reader raises no error.

    The log may be on the same disk as the store: counting and paging must continue.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text; errors are ignored."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream; errors are ignored."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream.isatty()


def _unpack(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401  # structlog's signature
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


class Repeats:
    """Counts lines by kind. Thread-safe."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._kinds: dict[object, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def left_out(self, kind: object, max_repeats: int = MAX_REPEATS) -> int | None:
        """None if the next line of this kind is to be omitted, otherwise the number of omitted lines before it."""
        with self._lock:
            now = self._now()
            ends, lines = self._kinds.get(kind, (0.0, 0))
            before = 0
            if ends <= now:
                before, ends, lines = max(0, lines - max_repeats), now + REPEATS_WINDOW, 0
                self._kinds.pop(kind, None)
                while len(self._kinds) >= MAX_KINDS:
                    del self._kinds[next(iter(self._kinds))]
            self._kinds[kind] = ends, lines + 1
            return before if lines < max_repeats else None


class _RepeatFilter:
    """A processor that omits repeated lines. The first of each kind and all critical lines are written."""

    def __init__(self, repeats: Repeats) -> None:
        self._repeats = repeats

    def __call__(self, _: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401  # as above
        max_lines = _MAX_LINES.get(level)
        if max_lines is None:
            return event
        # The text is the kind: the parts that differ between lines are in the fields.
        left_out = self._repeats.left_out((level, event.get("event")), max_lines)
        if left_out is None:
            raise structlog.DropEvent
        if left_out:
            event["left_out"] = left_out
        return event


def _passes(repeats: Repeats, record: logging.LogRecord) -> bool:
    return record.levelno >= logging.CRITICAL or repeats.left_out((record.name, record.levelno)) is not None


class _Hide:
    """A processor that removes known secrets from every text."""

    def __init__(self, secrets: Callable[[], Iterable[str]]) -> None:
        self._secrets = secrets

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:  # noqa: ANN401  # as above
        secrets = [secret for secret in self._secrets() if len(secret) >= SHORTEST_SECRET]
        return {key: _without(value, secrets) for key, value in event.items()} if secrets else event


def _without(value: Any, secrets: list[str]) -> Any:  # noqa: ANN401  # whatever was logged
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, _HIDDEN)
    return value
