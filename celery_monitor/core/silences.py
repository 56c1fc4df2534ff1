"""Decides which failures are silenced: by silences that people create, and by the mute windows of ``alerts.mute``.

A silence only holds back notifications. A failure that it covers is counted, stored and added to its incident, which
then waits as ``muted``. When no silence covers the incident any more it pages, unless the task has succeeded since its
last failure (``decide``). A failure is covered if either the time of reading or its own time is within a silence: after
an outage of the monitor, its events are read only after the silence has ended.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from celery_monitor.core.model import MAX_REASON, MAX_SILENCE, Silence
from celery_monitor.core.rules import matcher

MIN_SILENCE: Final = 1.0
"""Shortest silence, in seconds."""
MAX_GLOBS: Final = 50
MAX_GLOB: Final = 255
_CACHED: Final = 5_000
_Globs = tuple[tuple[str, ...], tuple[str, ...]]
"""Globs on the task and on the queue."""
Matches = Callable[[str, str], bool]
"""A predicate on (task, queue)."""
_MINUTE: Final = 60
"""Seconds: the resolution of a cron expression."""


@dataclass(frozen=True, slots=True)
class MuteWindow:
    """A recurring silence of ``alerts.mute``."""

    match: Sequence[str]
    """Globs on the task name."""
    reason: str
    lasting: float
    """Seconds from each start."""
    last_start: Callable[[float], float | None] = field(compare=False)
    """The newest start at or before a time, in Unix seconds; None if there is none."""
    queues: Sequence[str] = ()

    def active(self, at: float) -> bool:
        """Whether it is in effect at this time."""
        start = self.last_start(at)
        return start is not None and start <= at < start + self.lasting


def silence_of(
    *,
    silence_id: str,
    match: Sequence[str],
    lasting: float,
    reason: str,
    now: float,
    queues: Sequence[str] = (),
    created_by: str = "",
) -> Silence:
    """A new silence that begins now. Raises ValueError with a description of the problem."""
    for key, globs in (("match", match), ("queues", queues)):
        if len(globs) > MAX_GLOBS or not all(0 < len(glob) <= MAX_GLOB and glob.isprintable() for glob in globs):
            raise ValueError(
                f"{key}: must be at most {MAX_GLOBS} globs, each of 1 to {MAX_GLOB} printable characters, such as "
                "shop.billing.*"
            )
    if not match:
        raise ValueError("match: give a glob of task names, such as shop.billing.*; * matches every task")
    if not MIN_SILENCE <= lasting <= MAX_SILENCE:
        raise ValueError("for: must be between 1s and 30d")
    reason = " ".join(reason.split())
    if not reason or len(reason) > MAX_REASON or not reason.isprintable():
        raise ValueError(f"reason: give a reason of 1 to {MAX_REASON} characters, such as deploy 4711")
    return Silence(silence_id, tuple(match), reason, now, now + lasting, tuple(queues), created_by)


class Silences:
    """All silences and mute windows. Not thread-safe: it belongs to the monitor."""

    def __init__(self, windows: Iterable[MuteWindow] = (), silences: Iterable[Silence] = ()) -> None:
        """Start with these; ``replace`` updates the silences."""
        self._windows = tuple(_by_minute(window) for window in windows)
        self._current = tuple(silences)
        self._matchers: dict[_Globs, Matches] = {}
        """Compiled once: with hundreds of silences, compiling for each task would delay the stream."""
        self._compile()
        self._known = lru_cache(maxsize=_CACHED)(self._matching)

    def replace(self, silences: Iterable[Silence]) -> None:
        """Replace the silences by those that the store has now. Ended ones cover failures from before their end."""
        current = tuple(silences)
        if current != self._current:
            self._current = current
            self._compile()
            self._known.cache_clear()

    def __bool__(self) -> bool:
        """Whether there is any silence or mute window."""
        return bool(self._windows or self._current)

    def cover(self, task: str, queue: str, at: float) -> bool:
        """Whether a failure of this task and queue is silenced at this time."""
        return bool(self) and any(silence.active(at) for silence in self._known(task, queue))

    def active(self, at: float) -> tuple[Silence, ...]:
        """The silences in effect at this time, without mute windows."""
        return tuple(silence for silence in self._current if silence.active(at))

    def muting(self, at: float) -> int:
        """Number of mute windows in effect at this time."""
        return sum(window.active(at) for window in self._windows)

    def _matching(self, task: str, queue: str) -> tuple[Silence | MuteWindow, ...]:
        silences: tuple[Silence | MuteWindow, ...] = self._current + self._windows
        return tuple(silence for silence in silences if self._matchers[_globs(silence)](task, queue))

    def _compile(self) -> None:
        silences: tuple[Silence | MuteWindow, ...] = self._current + self._windows
        globs = {_globs(silence) for silence in silences}
        self._matchers = {key: self._matchers.get(key) or _matches(key) for key in globs}


def _globs(silence: Silence | MuteWindow) -> _Globs:
    return tuple(silence.match), tuple(silence.queues)


def _matches(globs: _Globs) -> Matches:
    tasks, queues = matcher(globs[0]), matcher(globs[1])
    return lambda task, queue: bool(tasks(task)) and (not globs[1] or bool(queues(queue)))


def _by_minute(window: MuteWindow) -> MuteWindow:
    """The same window with results cached per minute, so that a burst of failures does not search the calendar."""
    start_of = lru_cache(maxsize=8)(lambda minute: window.last_start(minute * _MINUTE))
    return MuteWindow(
        window.match, window.reason, window.lasting, lambda at: start_of(int(at // _MINUTE)), window.queues
    )
