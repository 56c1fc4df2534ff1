"""The monitor's own counters, which survive restarts: events by type, discarded events by reason, others by name."""

from collections.abc import Container, Mapping
from typing import Final

from celery_monitor.core.model import CounterFamily, CounterName, LabelledCounter
from celery_monitor.core.text import OTHER
from celery_monitor.core.transitions import KINDS

_TASK_KINDS: Final = sorted(KINDS, key=KINDS.__getitem__)
MAX_CUSTOM_TYPES: Final = 50
"""Distinct types of the fleet's custom events that are counted separately."""


class Counters:
    """Not thread-safe: it belongs to the monitor."""

    def __init__(self, restored: Mapping[str, float], known_types: Container[str], prober: int | None = None) -> None:
        """Continue from stored values. ``known_types``: all event types that are not custom.

        ``prober``: the instance ID in this monitor's probes.
        """
        self.flush_needed = False
        """Whether something was counted that needs a flush of its own; the caller resets it."""
        events = CounterFamily.EVENTS
        self._values = {name: value for name, value in restored.items() if events.label(name) is None}
        self.types = {kind: int(value) for kind, value in events.of(restored).items()}
        """Events by type, except task events; the caller increments the known types."""
        self.task_events = [self.types.pop(kind, 0) for kind in _TASK_KINDS]
        """Task events, indexed by ``KINDS``; the caller increments them: one addition per event."""
        self._prober = prober
        self._custom = {kind for kind in self.types if kind not in known_types}

    def add(self, name: CounterName | LabelledCounter, amount: float, *, flush: bool = True) -> None:
        """Add to a counter. Without ``flush`` the write can wait until something else is written."""
        key = str(name)  # a plain string, not the enum member, for the store
        self._values[key] = self._values.get(key, 0.0) + amount
        self.flush_needed |= flush

    def discard(self, reason: str) -> None:
        """Count a discarded event or message."""
        self.add(CounterFamily.DISCARDED.counter(reason), 1)

    def probed(self, prober: int | None, at: float) -> None:
        """A probe sent at ``at`` was read: if it is this monitor's, everything published before it has been read."""
        if prober is not None and prober == self._prober:
            self._values[CounterName.READ_UNTIL.value] = at

    @property
    def read_until(self) -> float | None:
        """Unix time before which all published events have been counted; None if unknown."""
        return self._values.get(CounterName.READ_UNTIL.value)

    def custom(self, kind: str) -> None:
        """Count and discard a custom event, as ``other`` if there are too many types."""
        self.discard("unknown_type")
        if kind not in self._custom:
            if len(self._custom) >= MAX_CUSTOM_TYPES or not kind.isprintable():
                kind = OTHER
            self._custom.add(kind)
        self.types[kind] = self.types.get(kind, 0) + 1

    def all(self) -> dict[str, float]:
        """A copy of all counters."""
        tasks = {kind: number for kind, number in zip(_TASK_KINDS, self.task_events, strict=True) if number}
        return self._values | {
            CounterFamily.EVENTS.counter(kind): number for kind, number in (tasks | self.types).items()
        }
