"""The bounds on what is kept in memory, their usage and their overflows.

A bound has the same name everywhere: in the stored counters, in ``celery_monitor_limit*``, on the web page and in
``doctor``. ``SETTINGS`` lists the settings that raise them.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from celery_monitor.core.model import CounterFamily, CounterName, Limit

_OLDER: Final[Mapping[str, str]] = {
    "task_names": CounterName.TASK_NAMES_OVER_LIMIT.value,
    "tasks": CounterName.EVICTED_TASKS.value,
}
"""Bounds that existed before the counter family and have their own counters."""
SETTINGS: Final[Mapping[str, str | None]] = {
    "series": "metrics.max_series",
    "task_names": "metrics.max_task_names",
    "queues": None,
    "exceptions": None,
    "workers": "metrics.max_workers",
    "hosts": None,
    "tasks": "tracking.max_tasks",
    "unnamed_events": None,
    "arguments": "tracking.max_argument_bytes",
    "error_groups": "tracking.max_error_groups",
    "samples": "tracking.max_sample_bytes",
    "buckets": None,
    "incidents": "alerts.max_incidents",
    "memory": "tracking.max_memory",
}
"""Every bound, and the setting that raises it; None if it is not configurable."""


def restored(counters: Mapping[str, float]) -> Counter[str]:
    """Overflows so far, by bound, from stored counters."""
    return Counter({name: int(counters.get(_counter(name), 0)) for name in SETTINGS})


def overflow_counters(overflows: Mapping[str, int]) -> dict[str, int]:
    """The counters of overflows. Bounds without any have no counter."""
    return {_counter(name): number for name, number in overflows.items() if number or name in _OLDER}


def limits(maximums: Mapping[str, int], used: Mapping[str, int], overflows: Mapping[str, int]) -> list[Limit]:
    """All bounds with their current usage, in the order of ``SETTINGS``."""
    return [
        Limit(name, setting, maximums.get(name), used.get(name), overflows.get(name, 0))
        for name, setting in SETTINGS.items()
    ]


def exceeded(counters: Mapping[str, float]) -> dict[str, int]:
    """Bounds that were exceeded and how often, from stored counters."""
    return {name: number for name, number in restored(counters).items() if number}


def _counter(name: str) -> str:
    return _OLDER.get(name) or CounterFamily.LIMIT.counter(name)
