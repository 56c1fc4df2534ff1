"""What the workers' own configuration says of how they use the broker (Celery's ``inspect conf``).

A worker tells what is not Celery's default, with passwords and keys censored; only the settings below are looked at,
so that nothing else of it can be shown.
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
"""Of ``broker_transport_options``."""
_MAX_SEP_LENGTH: Final = 16
_MAX_STEPS: Final = 64


def settings_of(conf: object) -> dict[str, Any]:
    """The ones above, by Celery's lower-case names; those of ``OPTIONS`` by their own. Any JSON goes in."""
    settings = {name: value for name, value in _named(conf) if name in SETTINGS}
    for name, options in _named(conf):
        if name == "broker_transport_options" and isinstance(options, Mapping):
            settings |= {key: value for key, value in options.items() if key in OPTIONS}
    return settings


def _named(conf: object) -> Iterator[tuple[str, Any]]:
    """Django projects write CELERY_ACCEPT_CONTENT."""
    for name, value in conf.items() if isinstance(conf, Mapping) else ():
        if isinstance(name, str):
            yield name.lower().removeprefix("celery_"), value


def suffixes_of(conf: object) -> set[str]:
    """What kombu appends to the name of a queue on Redis for each priority but the first, as this worker does it."""
    settings = settings_of(conf)
    return suffixes(settings.get("sep", _SEP), settings.get("priority_steps", _STEPS))


def suffixes(sep: object, steps: object) -> set[str]:
    """As ``suffixes_of``; none for what cannot be meant."""
    if not isinstance(sep, str) or not 0 < len(sep) <= _MAX_SEP_LENGTH or not isinstance(steps, list | tuple):
        return set()
    return {f"{sep}{step}" for step in steps[:_MAX_STEPS] if isinstance(step, int) and step}


_SEP: Final = "\x06\x16"
_STEPS: Final = (0, 3, 6, 9)
"""kombu's defaults (``kombu.transport.redis``)."""
