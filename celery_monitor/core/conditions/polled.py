"""Shared by the conditions on queues: something must hold for some time, at every poll of the broker."""

from collections.abc import Iterator

import msgspec

from celery_monitor.core.conditions.holding import ActiveEpisodes, Moment
from celery_monitor.core.incident import Episode, EpisodeEnd
from celery_monitor.core.model import QueueStats
from celery_monitor.core.rules import Rule, RuleSet


class _Since(msgspec.Struct, frozen=True):
    now: float
    watched: float


class QueueWatch:
    """Measures for how long a condition has held for each queue, in time with polls. Not thread-safe."""

    def __init__(self, rules: RuleSet) -> None:
        """Start empty."""
        self.active = ActiveEpisodes()
        self.rules = rules
        self._since: dict[tuple[str, str], _Since] = {}

    def rule_of(self, queue: QueueStats) -> Rule | None:
        """The rule that matches the queue."""
        return self.rules.match("", queue.name)

    def since(self, queue: str, rule: Rule, at: Moment, *, holds: bool) -> float | None:
        """Since when it has held, in Unix seconds, if at least for the rule's ``lasting``; None otherwise."""
        key = queue, rule.name
        if not holds:
            self._since.pop(key, None)
            return None
        first = self._since.setdefault(key, _Since(at.now, at.watched))
        return first.now if at.watched - first.watched >= rule.lasting else None

    def episode(self, episode: Episode, at: Moment) -> Episode:
        """Record that the episode holds; it continues an active one."""
        since = self.active.since(episode.identity, episode.since)
        return self.active.note(msgspec.structs.replace(episode, since=since), at)

    def take_ended(self, at: Moment) -> Iterator[EpisodeEnd]:
        """Remove and yield the episodes that have ended. Note everything that holds now before."""
        yield from self.active.take_ended(at)
