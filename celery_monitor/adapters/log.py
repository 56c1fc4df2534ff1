"""structlog: one line an event on standard error or in a file, JSON for machines or readable for people; times in UTC.

Other libraries' warnings come the same way. Lines that repeat are left out after the first twenty of a minute (two
hundred of what is merely told), and the next one of their kind says how many. As a last defence every configured secret
is replaced in every line; nothing should ever need it.
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
"""Shorter ones ("guest") would take words out of every second line."""
MAX_REPEATS: Final = 20
"""Lines of one kind within REPEATS_WINDOW: trouble that repeats must not fill a disk, or hide other trouble."""
MAX_NEWS: Final = 200
"""The same of what is done, and of failures that change an incident: hostile names make any number of them."""
REPEATS_WINDOW: Final = 60.0
MAX_KINDS: Final = 500
"""Kinds remembered at once; beyond it the one that began first is forgotten."""
_MAX_LINES: Final = {"info": MAX_NEWS, "warning": MAX_REPEATS, "error": MAX_REPEATS, "exception": MAX_REPEATS}
"""Level → lines of one kind. What is critical is always written, and who asks for debug gets all of it."""
_HIDDEN: Final = "[secret]"


def configure(level: str, form: str, secrets: Callable[[], Iterable[str]] = tuple, *, to: TextIO | None = None) -> None:
    """Set up logging for the process. ``form`` is json or console; ``secrets`` gives those of now.

    ``to`` stands in for standard error.
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
    """A stream for lines that may be lost: a full disk or a pipe without a reader ends nobody.

    The log stands where an operator has put it, perhaps on the disk of the store: what counts and pages must go on.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """All of it, or nothing that anybody hears of."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """The same."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        """As the stream says."""
        return self._stream.isatty()


def _unpack(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401  # structlog's signature
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


class Repeats:
    """Counts lines by kind. For any thread."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._kinds: dict[object, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def left_out(self, kind: object, max_repeats: int = MAX_REPEATS) -> int | None:
        """None when the next line of this kind is not to be written, else how many were left out before it."""
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
    """A processor that leaves out what repeats. The first of each kind is written, and all that is critical."""

    def __init__(self, repeats: Repeats) -> None:
        self._repeats = repeats

    def __call__(self, _: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401  # as above
        max_lines = _MAX_LINES.get(level)
        if max_lines is None:
            return event
        # The text is the kind: what differs from line to line stands in the fields.
        left_out = self._repeats.left_out((level, event.get("event")), max_lines)
        if left_out is None:
            raise structlog.DropEvent
        if left_out:
            event["left_out"] = left_out
        return event


def _passes(repeats: Repeats, record: logging.LogRecord) -> bool:
    return record.levelno >= logging.CRITICAL or repeats.left_out((record.name, record.levelno)) is not None


class _Hide:
    """A processor that takes known secrets out of every text."""

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
