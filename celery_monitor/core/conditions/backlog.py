"""``backlog``: a queue has more messages than its rule allows, at every poll for some time."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from celery_monitor.core.conditions.gaps import Gaps
from celery_monitor.core.conditions.holding import Moment
from celery_monitor.core.conditions.polled import QueueWatch
from celery_monitor.core.headline import duration
from celery_monitor.core.incident import Episode, EpisodeEnd
from celery_monitor.core.model import Condition, QueueStats
from celery_monitor.core.rules import Rule, RuleSet
from celery_monitor.core.times import rfc3339


class BacklogJudge:
    """Finds queues that are too long. Not thread-safe."""

    on: Final = Condition.BACKLOG

    def __init__(self, rules: RuleSet, gaps: Gaps) -> None:
        """``gaps``: times in which the broker was not polled."""
        self._watch = QueueWatch(rules)
        self.active = self._watch.active
        self._gaps = gaps

    def judge(self, queues: Sequence[QueueStats], at: Moment, *, answered: bool) -> Iterator[Episode | EpisodeEnd]:
        """Judge the current state of the queues. ``answered``: whether workers have ever answered."""
        del answered
        for queue in queues:
            rule = self._watch.rule_of(queue)
            if rule is None:
                continue
            if queue.length is None:
                self.active.touch(self.on, queue.name, rule.name, at)
                continue
            holds = queue.length > rule.more_than
            since = self._watch.since(queue.name, rule, at, holds=holds)
            if holds and (since is not None or self.active.has(self.on, queue.name, rule.name)):
                yield self._watch.episode(self._episode(queue, queue.length, rule, since or at.now, at), at)
        for end in self._watch.take_ended(at):
            yield msgspec.structs.replace(end, summary=f"Queue {end.subject} is within its limit again")

    def _episode(self, queue: QueueStats, length: int, rule: Rule, since: float, at: Moment) -> Episode:
        since = self.active.since((self.on, queue.name, rule.name), since)
        limit = f"limit {rule.more_than}, for {duration(rule.lasting)}" if rule.lasting else f"limit {rule.more_than}"
        return Episode(
            self.on, queue.name, rule, since, at.now,
            f"Queue {queue.name} has been too long since {rfc3339(since)}: {length} messages now ({limit})",
            details=[("Messages", str(length)), ("Workers", str(queue.workers)), ("Processes", str(queue.processes))],
            queues={queue.name: 1},
            unwatched=self._gaps.within(since, at.now),
        )  # fmt: skip
