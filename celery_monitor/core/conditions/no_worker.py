"""``no_worker``: a queue with tasks has no consumers, or a queue has fewer workers than its rule requires."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from celery_monitor.core.conditions.gaps import Gaps
from celery_monitor.core.conditions.holding import Moment
from celery_monitor.core.conditions.polled import QueueWatch
from celery_monitor.core.incident import Episode, EpisodeEnd
from celery_monitor.core.model import Condition, QueueStats
from celery_monitor.core.rules import Rule, RuleSet
from celery_monitor.core.times import rfc3339


class NoWorkerJudge:
    """Finds queues without enough workers. Not thread-safe."""

    on: Final = Condition.NO_WORKER

    def __init__(self, rules: RuleSet, gaps: Gaps) -> None:
        """``gaps``: times in which the broker was not polled."""
        self._watch = QueueWatch(rules)
        self.active = self._watch.active
        self._gaps = gaps

    def judge(self, queues: Sequence[QueueStats], at: Moment, *, answered: bool) -> Iterator[Episode | EpisodeEnd]:
        """Judge the current state of the queues. ``answered``: whether any ever answered; else the broker counts."""
        for queue in queues:
            rule = self._watch.rule_of(queue)
            workers = _workers(queue, answered=answered)
            if rule is None:
                continue
            if workers is None:
                self.active.touch(self.on, queue.name, rule.name, at)
                continue
            holds = workers < rule.fewer_than or (workers == 0 and bool(queue.length))
            since = self._watch.since(queue.name, rule, at, holds=holds)
            if holds and (since is not None or self.active.has(self.on, queue.name, rule.name)):
                yield self._watch.episode(self._episode(queue, workers, rule, since or at.now, at), at)
        for end in self._watch.take_ended(at):
            summary = f"Queue {end.subject} has enough workers again, or is empty"
            yield msgspec.structs.replace(end, summary=summary)

    def _episode(self, queue: QueueStats, workers: int, rule: Rule, since: float, at: Moment) -> Episode:
        since = self.active.since((self.on, queue.name, rule.name), since)
        who = "no worker" if workers == 0 else f"{workers} workers" if workers > 1 else "1 worker"
        fewer = f" (fewer than {rule.fewer_than})" if rule.fewer_than else ""
        length = queue.length or 0
        holds = f" and holds {length} task{'' if length == 1 else 's'}" if length else ""
        return Episode(
            self.on, queue.name, rule, since, at.now,
            f"Queue {queue.name} has had {who}{fewer} since {rfc3339(since)}{holds}",
            details=[("Messages", str(length)), ("Workers", str(workers))],
            queues={queue.name: 1},
            unwatched=self._gaps.within(since, at.now),
        )  # fmt: skip


def _workers(queue: QueueStats, *, answered: bool) -> int | None:
    """Number of its workers by their answers, and at least 1 if the broker knows a consumer; None if unknown."""
    if answered:
        return max(queue.workers, 1 if queue.consumers else 0)
    return queue.consumers
