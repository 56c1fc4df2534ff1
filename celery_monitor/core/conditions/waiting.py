"""``waiting``: a task waits longer than its rule allows, since it was sent, or since its ETA if that is later."""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from celery_monitor.core.conditions.gaps import Gaps
from celery_monitor.core.conditions.holding import ActiveEpisodes, Moment
from celery_monitor.core.headline import duration
from celery_monitor.core.incident import Episode, EpisodeEnd
from celery_monitor.core.model import Condition
from celery_monitor.core.rules import Rule, RuleSet
from celery_monitor.core.times import rfc3339

_NAMED: Final = 20
"""Maximum number of tasks that an incident lists."""


class WaitingTask(msgspec.Struct, frozen=True):
    """A task that should have started at ``due``."""

    uuid: str
    task: str
    queue: str
    host: str
    """The worker that has fetched it; "" while it is in the queue."""
    due: float


class _Overdue(msgspec.Struct):
    rule: Rule
    oldest: WaitingTask
    tasks: list[WaitingTask] = []
    number: int = 0


class WaitingJudge:
    """Finds tasks that wait too long. Not thread-safe."""

    on: Final = Condition.WAITING

    def __init__(self, rules: RuleSet, gaps: Gaps) -> None:
        """``gaps``: times in which the stream was not watched."""
        self.least = min((rule.longer_than for rule in rules), default=float("inf"))
        """The smallest threshold of all rules, in seconds."""
        self.active = ActiveEpisodes()
        self._rules = rules
        self._gaps = gaps
        self._groups: dict[tuple[str, str], _Overdue] = {}

    def begin(self) -> None:
        """Begin a round; an incomplete previous round is discarded."""
        self._groups = {}

    def add(self, task: WaitingTask, now: float, lengths: Mapping[str, int]) -> None:
        """Add a task that waits longer than ``least``. ``lengths``: the known lengths of queues.

        A task that no worker has fetched and whose queue is empty was purged from it, and is ignored.
        """
        rule = self._rules.match(task.task, task.queue)
        if rule is None or now - task.due <= rule.longer_than or (not task.host and lengths.get(task.queue) == 0):
            return
        group = self._groups.get((task.task, rule.name))
        if group is None:
            group = self._groups[task.task, rule.name] = _Overdue(rule, task)
        group.number += 1
        if len(group.tasks) < _NAMED:
            group.tasks.append(task)
        if task.due < group.oldest.due:
            group.oldest = task

    def conclude(self, at: Moment) -> Iterator[Episode | EpisodeEnd]:
        """End the round: all waiting tasks have been added."""
        groups, self._groups = self._groups, {}
        for (task, _), waiting in groups.items():
            yield self.active.note(self._episode(task, waiting, at), at)
        for end in self.active.take_ended(at):
            yield msgspec.structs.replace(end, summary=f"{end.subject} tasks no longer wait too long")

    def _episode(self, task: str, waiting: _Overdue, at: Moment) -> Episode:
        rule, oldest = waiting.rule, waiting.oldest
        since = self.active.since((self.on, task, rule.name), oldest.due + rule.longer_than)
        who = (
            f"{task} has been waiting"
            if waiting.number == 1
            else f"{waiting.number} {task} tasks are waiting, the oldest"
        )
        queues: dict[str, int] = {}
        for waiting_task in waiting.tasks:
            queues[waiting_task.queue] = queues.get(waiting_task.queue, 0) + 1
        return Episode(
            self.on, task, rule, since, at.now,
            f"{who} since {rfc3339(oldest.due)} (limit {duration(rule.longer_than)}) in queue {oldest.queue}",
            task=task, count=waiting.number,
            details=[("Waiting", "; ".join(map(_describe, waiting.tasks)))],
            queues=queues,
            samples=[waiting_task.uuid for waiting_task in waiting.tasks],
            unwatched=self._gaps.within(since - rule.longer_than, at.now),
        )  # fmt: skip


def _describe(task: WaitingTask) -> str:
    place = f"fetched by {task.host}" if task.host else "in the queue"
    return f"{task.uuid} due {rfc3339(task.due)}, {place}"
