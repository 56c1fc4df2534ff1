"""Which episodes of a condition hold: they are over when they have not held for their rule's ``resolve_after``."""

from collections.abc import Iterable, Iterator

import msgspec

from celery_monitor.core.incident import Episode, EpisodeEnd, Identity
from celery_monitor.core.model import Condition, Incident
from celery_monitor.core.rules import Rule


class Moment(msgspec.Struct, frozen=True):
    """When something is judged."""

    now: float
    """Unix seconds."""
    watched: float
    """Seconds in which the stream was watched, or the broker asked: it stands while nobody does."""


class _Held(msgspec.Struct, frozen=True):
    seen_at: float
    """In watched seconds."""
    resolve_after: float
    since: float
    """As the episode's. It does not change."""


class ActiveEpisodes:
    """The episodes of one condition that are not over. Not thread-safe."""

    def __init__(self) -> None:
        """Start without any."""
        self._held: dict[Identity, _Held] = {}

    def restore(self, incidents: Iterable[Incident], rules: Iterable[Rule]) -> None:
        """Go on with what was open before a start. The time in which they may resolve begins anew."""
        known = {rule.name: rule for rule in rules}
        for incident in incidents:
            rule = known.get(incident.rule)
            if rule is not None:
                held = _Held(0.0, rule.resolve_after, incident.first_at)
                self._held[incident.condition, incident.subject, incident.rule] = held

    def since(self, identity: Identity, otherwise: float) -> float:
        """When the episode began; ``otherwise`` for one that begins now."""
        held = self._held.get(identity)
        return otherwise if held is None else held.since

    def note(self, episode: Episode, at: Moment) -> Episode:
        """It holds now."""
        self._held[episode.identity] = _Held(at.watched, episode.rule.resolve_after, episode.since)
        return episode

    def has(self, on: Condition, subject: str, rule: str) -> bool:
        """Whether such an episode is not over."""
        return (on, subject, rule) in self._held

    def touch(self, on: Condition, subject: str, rule: str, at: Moment) -> None:
        """Its present state is unknown: an open episode stays open."""
        held = self._held.get((on, subject, rule))
        if held is not None:
            self._held[on, subject, rule] = msgspec.structs.replace(held, seen_at=at.watched)

    def take_ended(self, at: Moment) -> Iterator[EpisodeEnd]:
        """Those that are over: everything that holds now has been noted."""
        ended = [
            identity
            for identity, held in self._held.items()
            if held.seen_at < at.watched and at.watched - held.seen_at >= held.resolve_after
        ]
        for identity in ended:
            del self._held[identity]
            yield EpisodeEnd(*identity, at=at.now)
