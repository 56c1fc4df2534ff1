"""Events of tasks whose name is not known yet: they wait for it before they are counted and judged.

The name may still arrive: a client's task-sent can be read after the worker's task-revoked, and after a restart on
Redis the workers answer an inspect within seconds (``learn_tasks``). Waiting events are stored in the transaction of
their message, so that a kill neither loses nor duplicates them. An event that gets no name in time, or is the oldest
beyond a bound, is counted under the name ``unknown``.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import structs

from celery_monitor.core.model import Event, UnnamedEvent

MAX_EVENTS: Final = 10_000
MAX_CHARACTERS: Final = 8_000_000
"""Total length of the texts of all waiting events."""
MAX_EXCEPTION_LENGTH: Final = 4_000
MAX_TRACEBACK_LENGTH: Final = 32_000
"""Characters that are kept, from the end. Both are twice what ``classify`` keeps, so that redaction works."""
MAX_WAIT_FOR_INSPECT: Final = 4.0
"""Factor by which events wait longer after a connection while the workers have not answered yet."""


class UnnamedEvents:
    """Not thread-safe: it belongs to the monitor. ``wait`` in seconds; with 0 nothing waits."""

    def __init__(self, wait: float) -> None:
        """Start empty; ``restore`` fills it."""
        self.numbers_by_task: dict[str, list[int]] = {}
        """Task ID → the numbers of its events. The hot path looks it up."""
        self.inspect_needed = False
        """Whether a task waits for a name that an inspect of the workers may supply."""
        self.cut = 0
        """Events that were released early because there were too many."""
        self._wait = wait
        self._events: dict[int, tuple[float, UnnamedEvent]] = {}
        """Number → (start of its wait, event), oldest first."""
        self._characters = 0
        self._time = 0.0
        self._unasked_until = 0.0
        self._next = 1
        self._added: dict[int, UnnamedEvent] = {}
        self._removed: list[int] = []

    def __len__(self) -> int:
        return len(self._events)

    def restore(self, stored: Iterable[UnnamedEvent], now: float) -> None:
        """Continue to wait with the stored events; the restart does not extend their wait."""
        for unnamed in sorted(stored, key=lambda unnamed: unnamed.number):
            self._next = unnamed.number + 1
            self._keep(unnamed, min(max(0.0, now - unnamed.since), self._wait))
            self.inspect_needed = True

    def connected(self) -> None:
        """The stream was not watched until now, so names may be missing; the workers will be inspected for them."""
        self._unasked_until = self._time + MAX_WAIT_FOR_INSPECT * self._wait

    def inspected(self) -> None:
        """The workers have reported their tasks."""
        self._unasked_until = 0.0
        self.inspect_needed = False

    def hold(self, event: Event, measured: float | None, now: float, *, may_be_held: bool) -> list[UnnamedEvent]:
        """Let an event wait. Returns events whose wait ends. ``may_be_held``: a worker may hold its task."""
        event = structs.replace(
            event,
            exception=event.exception and event.exception[:MAX_EXCEPTION_LENGTH],
            traceback=event.traceback and event.traceback[-MAX_TRACEBACK_LENGTH:],
            args=None,
            kwargs=None,
        )
        unnamed = UnnamedEvent(self._next, now, event, measured)
        self._next += 1
        if not self._wait:
            return [unnamed]
        self.inspect_needed |= may_be_held
        self._added[unnamed.number] = unnamed
        self._keep(unnamed, 0.0)
        expired = []
        while len(self._events) > MAX_EVENTS or self._characters > MAX_CHARACTERS:
            expired.append(self._oldest())
        self.cut += len(expired)
        return expired

    def release_task(self, uuid: str) -> list[UnnamedEvent]:
        """Release and return the events of a task whose name is known now, in order."""
        return [self._release(number) for number in list(self.numbers_by_task.get(uuid, ()))]

    def tick(self, elapsed: float) -> list[UnnamedEvent]:
        """Returns the events whose wait is over. ``elapsed``: seconds since the last call."""
        self._time += elapsed
        expired: list[UnnamedEvent] = []
        if self._time < self._unasked_until:
            return expired
        while self._events and self._time - next(iter(self._events.values()))[0] >= self._wait:
            expired.append(self._oldest())
        return expired

    def take(self) -> tuple[list[UnnamedEvent], list[int]]:
        """Events to store, and numbers of events to delete, since the last call."""
        added, removed = list(self._added.values()), self._removed
        self._added, self._removed = {}, []
        return added, removed

    def _keep(self, unnamed: UnnamedEvent, waited: float) -> None:
        self._events[unnamed.number] = self._time - waited, unnamed
        self._characters += _characters(unnamed.event)
        self.numbers_by_task.setdefault(unnamed.event.uuid, []).append(unnamed.number)

    def _oldest(self) -> UnnamedEvent:
        return self._release(next(iter(self._events)))

    def _release(self, number: int) -> UnnamedEvent:
        unnamed = self._events.pop(number)[1]
        self._characters -= _characters(unnamed.event)
        numbers = self.numbers_by_task[unnamed.event.uuid]
        numbers.remove(number)
        if not numbers:
            del self.numbers_by_task[unnamed.event.uuid]
        if self._added.pop(number, None) is None:
            self._removed.append(number)
        return unnamed


def _characters(event: Event) -> int:
    texts = (event.hostname, event.uuid, event.exception, event.traceback, event.name, event.queue, event.eta)
    return sum(len(text) for text in texts if text)
