"""The entries of all active task IDs: which changes to store, and when to forget an entry.

``track`` applies events to entries.

When the last run of an ID has ended and a further event may follow, its entry lingers for a minute, which counts only
while events arrive. If only some runs of an ID have ended, the others may never end (their worker was lost): they are
kept for some hours. The number of entries is bounded.
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from msgspec import structs

from celery_monitor.core import runs
from celery_monitor.core.arguments import TaskArguments
from celery_monitor.core.model import NO_DETAILS, Stage, TaskRef
from celery_monitor.core.names import SHORT
from celery_monitor.core.recent_tasks import RecentTasks
from celery_monitor.core.text import size_of

_HEAVY: Final = 500
"""Bytes: more than twice the size of a typical task's texts."""
EXPIRED_PER_TICK: Final = 1000
LEFT_OPEN: Final = 6 * 3600.0
"""Seconds for which open runs are kept after another run of their task ID has ended."""
_OK: Final = int(Stage.SUCCEEDED)


class Entries:
    """Not thread-safe: it belongs to the monitor.

    ``max_tasks`` limits the runs (the oldest are dropped first); ``max_age`` and ``linger`` are in seconds.
    """

    def __init__(self, *, max_tasks: int, max_age: float, linger: float, arguments: TaskArguments) -> None:
        """Start empty; ``restore`` fills it."""
        self.tasks: dict[str, TaskRef] = {}
        self.evicted = 0
        self.arguments = arguments
        self._max_tasks = max_tasks
        self._max_age_minutes = max(1, int(max_age // 60))
        self._linger = linger
        self._lingering: deque[tuple[float, str]] = deque()
        self._left_open: dict[str, float] = {}
        """Task ID → when to give up on the runs that were left open when another one ended; earliest first."""
        self._recent = RecentTasks()
        self._others = 0
        """Runs beside the first one, of all tasks."""
        self._time = 0.0
        """Seconds in which the stream brought something: the clock of what lingers. It never goes back."""
        self._ticked: float | None = None
        self._dirty: dict[str, None] = {}
        self._gone: list[tuple[str, int]] = []
        self._minute = 0
        self._expires = True
        """Some may be too old since this minute began."""

    def __len__(self) -> int:
        """The number of tracked runs, which ``max_tasks`` limits."""
        return len(self.tasks) + self._others

    def restore(self, tracked: Iterable[tuple[str, TaskRef]], ended: Iterable[tuple[str, TaskRef]] = ()) -> None:
        """Restore the stored entries. Ended ones linger again, because the next message may be their duplicate.

        ``ended``: see ``Restored``. Without them, a late task-sent of one of them would wait until it is too old.
        """
        for uuid, ref in sorted(tracked, key=_seen):  # oldest first, in the order of arrival
            self.tasks[uuid] = ref
            if ref.others is None and ref.stage < _OK:
                continue
            self._others += len(ref.others or ())
            if runs.is_open(ref):
                self._left_open[uuid] = self._time + LEFT_OPEN
            else:
                self._lingering.append((self._time + self._linger, uuid))
        self._recent.restore(ended, self.tasks)

    def lose(self, uuid: str, run: TaskRef, at: float) -> None:
        """Record that a started run was lost with its worker at this time; 0: it was not lost after all.

        ``runs.ENDED_UNSEEN``: it has ended. The run is kept, because a late event may still need its name.
        ``runs.killed``: it may be redelivered.
        """
        run.due_at = -at
        self._dirty[uuid] = None

    def drop(self, uuid: str) -> None:
        """Forget a task of which no event will report the end."""
        self._forget(uuid)

    def tick(self, now: float, *, quiet: float = 0.0) -> None:
        """Forget entries that lingered long enough or are too old, and the oldest above the limit.

        ``quiet``: seconds since the last call during which no events arrived.
        """
        minute = int(now // 60)
        if minute != self._minute:
            self._minute, self._expires = minute, True
        if self._ticked is not None:
            self._time += max(0.0, now - self._ticked - quiet)
        self._ticked = now
        while self._lingering and self._lingering[0][0] <= self._time:
            uuid = self._lingering.popleft()[1]
            ref = self.tasks.get(uuid)
            if ref is not None and not runs.is_open(ref):
                self._recent.add(uuid, self._forget(uuid))
        self._give_up()
        if self._expires:
            self._expires = self._expire()
        self._recent.tick(self._time)
        if len(self) > self._max_tasks:
            self._evict(len(self) - self._max_tasks + self._max_tasks // 100)

    def shed_load(self) -> None:
        """Forget the tasks with the longest, probably made-up names and IDs. If there are few, forget the oldest."""
        heavy = [uuid for uuid, ref in self.tasks.items() if _weight(uuid, ref) > _HEAVY]
        for uuid in heavy:
            self._forget(uuid)
        self.evicted += len(heavy)
        if len(heavy) * 20 < len(self.tasks):
            self._evict(len(self.tasks) // 10)
        self._recent = RecentTasks()

    def take(self, sequence: int) -> tuple[list[tuple[str, TaskRef]], list[tuple[str, int]]]:
        """Return ``Changes.tracked`` and ``Changes.forgotten`` since the last call. The entries are copies.

        ``sequence``: the flush that will contain them.
        """
        saved, removed = [], self._gone
        for uuid in self._dirty:
            ref = self.tasks[uuid]
            stored = structs.replace(ref)  # a quarter of the time of ``copy``
            ref.saved = ref.saved or sequence
            if ref.others is not None:
                stored.others = [structs.replace(run) for run in ref.others]
            saved.append((uuid, stored))
        self._dirty = {}
        self._gone = []
        return saved, removed

    def _forget(self, uuid: str) -> TaskRef:
        ref = self.tasks.pop(uuid)
        if ref.saved:
            self._gone.append((uuid, ref.saved))
        if ref.others is not None:
            self._others -= len(ref.others)
            self._left_open.pop(uuid, None)
        self._dirty.pop(uuid, None)  # otherwise finished tasks fill the memory while the store is unavailable
        if self.arguments:
            self.arguments.drop(uuid)
        return ref

    def _give_up(self) -> None:
        """Forget runs that stayed open after another run of their ID ended."""
        while self._left_open:
            uuid, due_at = next(iter(self._left_open.items()))
            if due_at > self._time:
                return
            del self._left_open[uuid]
            ref = self.tasks.get(uuid)
            if ref is not None and ref.seen_minute <= self._minute - LEFT_OPEN // 60:
                self._forget(uuid)

    def _expire(self) -> bool:
        """Forget the oldest entries. One that is in use, such as an endless retry, does not block those behind it.

        Returns whether there may be more to forget in this minute.
        """
        before, oldest = len(self.tasks), self._minute - self._max_age_minutes
        for uuid in list(islice(self.tasks, EXPIRED_PER_TICK)):
            if self.tasks[uuid].seen_minute <= oldest:
                self._forget(uuid)
        return len(self.tasks) < before

    def _evict(self, number: int) -> None:
        """Forget this many runs at once. Many, because a dict scans all deleted slots to find its first key."""
        for uuid in list(islice(self.tasks, number)):
            if number <= 0:
                return
            number -= 1 + len(self._forget(uuid).others or ())
            self.evicted += 1


def _seen(entry: tuple[str, TaskRef]) -> int:
    return entry[1].seen_minute


def _weight(uuid: str, ref: TaskRef) -> int:
    """Size in bytes of its texts, if no other task shares them."""
    details = ref.details or NO_DETAILS
    # IDs of other tasks count only if they are longer than those that Celery creates.
    related = [text for text in (details.root, details.parent) if text and len(text) > SHORT]
    return sum(size_of(text) for text in (uuid, ref.name, ref.queue, ref.host, *related) if text)
