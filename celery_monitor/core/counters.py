"""The monitor's own counters, which survive restarts: events by type, discarded ones by reason, others by name."""

from collections.abc import Container, Mapping
from typing import Final

from celery_monitor.core.model import CounterFamily, CounterName, LabelledCounter
from celery_monitor.core.text import OTHER
from celery_monitor.core.transitions import KINDS

_TASK_KINDS: Final = sorted(KINDS, key=KINDS.__getitem__)
MAX_CUSTOM_TYPES: Final = 50
"""Distinct types of the fleet's own events that are counted apart."""


class Counters:
    """Not thread-safe: it belongs to the monitor."""

    def __init__(self, restored: Mapping[str, float], known_types: Container[str], prober: int | None = None) -> None:
        """Go on from stored values. ``known_types``: all types of events that are not the fleet's own.

        ``prober``: the instance whose probes are this monitor's.
        """
        self.news = False
        """Something was counted that is worth a flush by itself; the caller resets it."""
        events = CounterFamily.EVENTS
        self._values = {name: value for name, value in restored.items() if events.label(name) is None}
        self.types = {kind: int(value) for kind, value in events.of(restored).items()}
        """Events by type, without those of tasks; the caller counts the known ones in it."""
        self.task_events = [self.types.pop(kind, 0) for kind in _TASK_KINDS]
        """Events of tasks, by the numbers of ``KINDS``; the caller counts them in it: one addition for each event."""
        self._prober = prober
        self._custom = {kind for kind in self.types if kind not in known_types}

    def add(self, name: CounterName | LabelledCounter, amount: float, *, flush: bool = True) -> None:
        """Add to a counter. Without ``flush`` it can wait until something else is written."""
        key = str(name)  # not the enum's member: it is for the store
        self._values[key] = self._values.get(key, 0.0) + amount
        self.news |= flush

    def discard(self, reason: str) -> None:
        """An event, or a whole message, is not counted."""
        self.add(CounterFamily.DISCARDED.counter(reason), 1)

    def probed(self, prober: int | None, at: float) -> None:
        """A probe of ``at`` has come round: if it is our own, all that was published before it has come, too."""
        if prober is not None and prober == self._prober:
            self._values[CounterName.READ_UNTIL.value] = at

    @property
    def read_until(self) -> float | None:
        """A time: whatever was published before it is counted; None when that is not known."""
        return self._values.get(CounterName.READ_UNTIL.value)

    def custom(self, kind: str) -> None:
        """Count and discard an event of the fleet's own, as ``other`` when there are too many types of them."""
        self.discard("unknown_type")
        if kind not in self._custom:
            if len(self._custom) >= MAX_CUSTOM_TYPES or not kind.isprintable():
                kind = OTHER
            self._custom.add(kind)
        self.types[kind] = self.types.get(kind, 0) + 1

    def all(self) -> dict[str, float]:
        """A copy of all of them."""
        tasks = {kind: number for kind, number in zip(_TASK_KINDS, self.task_events, strict=True) if number}
        return self._values | {
            CounterFamily.EVENTS.counter(kind): number for kind, number in (tasks | self.types).items()
        }
