"""structlog: one line an event on standard error or in a file, JSON for machines or readable for people; times in UTC.

Other libraries' warnings come the same way. As a last defence every configured secret is replaced in every line;
nothing should ever need it.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final, TextIO

import structlog

SHORTEST_SECRET: Final = 6
"""Shorter ones ("guest") would take words out of every second line."""
_HIDDEN: Final = "[secret]"


def configure(level: str, form: str, secrets: Callable[[], Iterable[str]] = tuple, *, to: TextIO | None = None) -> None:
    """Set up logging for the process. ``form`` is json or console; ``secrets`` gives those of now.

    ``to`` stands in for standard error.
    """
    stream = to or sys.stderr
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    hide = _Hide(secrets)
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
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[_unpack, *last], foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))


def _unpack(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401  # structlog's signature
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


class _Hide:
    """A processor that takes known secrets out of every text."""

    def __init__(self, secrets: Callable[[], Iterable[str]]) -> None:
        self._secrets = secrets

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:  # noqa: ANN401  # as above
        known = [secret for secret in self._secrets() if len(secret) >= SHORTEST_SECRET]
        return {key: _without(value, known) for key, value in event.items()} if known else event


def _without(value: Any, known: list[str]) -> Any:  # noqa: ANN401  # whatever was logged
    if isinstance(value, str):
        for secret in known:
            value = value.replace(secret, _HIDDEN)
    return value
