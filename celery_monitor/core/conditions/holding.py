"""The active episodes of a condition. An episode ends when it has not held for its rule's ``resolve_after``."""

from collections.abc import Iterable, Iterator

import msgspec

from celery_monitor.core.incident import Episode, EpisodeEnd, Identity
from celery_monitor.core.model import Condition, Incident
from celery_monitor.core.rules import Rule


class Moment(msgspec.Struct, frozen=True):
    """The time of a judgement."""

    now: float
    """Unix seconds."""
    watched: float
    """Seconds in which the stream was watched or the broker polled: it stops during gaps."""


class _Active(msgspec.Struct, frozen=True):
    seen_at: float
    """Watched time at which it last held."""
    resolve_after: float
    since: float
    """The episode's ``since``, which does not change."""


class ActiveEpisodes:
    """The episodes of one condition that have not ended. Not thread-safe."""

    def __init__(self) -> None:
        """Start empty."""
        self._active: dict[Identity, _Active] = {}

    def restore(self, incidents: Iterable[Incident], rules: Iterable[Rule]) -> None:
        """Continue the episodes that were open before a restart. Their ``resolve_after`` starts again."""
        known = {rule.name: rule for rule in rules}
        for incident in incidents:
            rule = known.get(incident.rule)
            if rule is not None:
                active = _Active(0.0, rule.resolve_after, incident.first_at)
                self._active[incident.condition, incident.subject, incident.rule] = active

    def since(self, identity: Identity, otherwise: float) -> float:
        """When the episode began; ``otherwise`` if it begins now."""
        active = self._active.get(identity)
        return otherwise if active is None else active.since

    def note(self, episode: Episode, at: Moment) -> Episode:
        """Record that the episode holds now."""
        self._active[episode.identity] = _Active(at.watched, episode.rule.resolve_after, episode.since)
        return episode

    def has(self, on: Condition, subject: str, rule: str) -> bool:
        """Whether such an episode is active."""
        return (on, subject, rule) in self._active

    def touch(self, on: Condition, subject: str, rule: str, at: Moment) -> None:
        """The condition's present state is unknown: keep an active episode active."""
        active = self._active.get((on, subject, rule))
        if active is not None:
            self._active[on, subject, rule] = msgspec.structs.replace(active, seen_at=at.watched)

    def take_ended(self, at: Moment) -> Iterator[EpisodeEnd]:
        """Remove and yield the episodes that have ended. Note everything that holds now before."""
        ended = [
            identity
            for identity, active in self._active.items()
            if active.seen_at < at.watched and at.watched - active.seen_at >= active.resolve_after
        ]
        for identity in ended:
            del self._active[identity]
            yield EpisodeEnd(*identity, at=at.now)
