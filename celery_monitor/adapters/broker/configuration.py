"""Extracts from a worker's configuration (Celery's ``inspect conf``) how it uses the broker.

A worker reports the settings that differ from Celery's defaults, with passwords and keys censored. Only the settings
listed here are used, so that nothing else can be shown.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

SETTINGS: Final = frozenset({
    "accept_content", "control_exchange", "event_exchange", "event_serializer", "task_send_sent_event",
    "task_serializer", "worker_send_task_events",
})  # fmt: skip
OPTIONS: Final = frozenset({
    "fanout_patterns", "fanout_prefix", "global_keyprefix", "priority_steps", "queue_order_strategy", "sep",
})  # fmt: skip
"""Keys of ``broker_transport_options``."""
_MAX_SEP_LENGTH: Final = 16
_MAX_STEPS: Final = 64


def settings_of(conf: object) -> dict[str, Any]:
    """The values of SETTINGS and OPTIONS that a configuration contains, by name. ``conf``: JSON of any shape."""
    settings = {name: value for name, value in _named(conf) if name in SETTINGS}
    for name, options in _named(conf):
        if name == "broker_transport_options" and isinstance(options, Mapping):
            settings |= {key: value for key, value in options.items() if key in OPTIONS}
    return settings


def _named(conf: object) -> Iterator[tuple[str, Any]]:
    """Settings by Celery's lower-case names. Django projects use names such as CELERY_ACCEPT_CONTENT."""
    for name, value in conf.items() if isinstance(conf, Mapping) else ():
        if isinstance(name, str):
            yield name.lower().removeprefix("celery_"), value


def suffixes_of(conf: object) -> set[str]:
    """The suffixes that this worker appends to a queue's name on Redis, one for each priority except the first."""
    settings = settings_of(conf)
    return suffixes(settings.get("sep", _SEP), settings.get("priority_steps", _STEPS))


def suffixes(sep: object, steps: object) -> set[str]:
    """As ``suffixes_of``. Empty for invalid values."""
    if not isinstance(sep, str) or not 0 < len(sep) <= _MAX_SEP_LENGTH or not isinstance(steps, list | tuple):
        return set()
    return {f"{sep}{step}" for step in steps[:_MAX_STEPS] if isinstance(step, int) and step}


_SEP: Final = "\x06\x16"
_STEPS: Final = (0, 3, 6, 9)
"""kombu's defaults (``kombu.transport.redis``)."""
