"""``runtime``: a run takes longer than its rule allows, whether it still runs or has ended."""

from collections.abc import Iterator
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
"""Maximum number of runs that an incident lists."""


class SlowRun(msgspec.Struct, frozen=True):
    """A run and how long it took, or has taken so far."""

    uuid: str
    task: str
    queue: str
    host: str
    started_at: float
    runtime: float
    ended: bool


class _Slow(msgspec.Struct):
    """The slow runs of one task and rule in this round."""

    rule: Rule
    runs: list[SlowRun] = []
    number: int = 0
    longest: SlowRun | None = None
    first: float = 0.0

    def add(self, run: SlowRun) -> None:
        self.number += 1
        if len(self.runs) < _NAMED:
            self.runs.append(run)
        if self.longest is None or run.runtime > self.longest.runtime:
            self.longest = run
        self.first = min(self.first or run.started_at, run.started_at)


class RuntimeJudge:
    """Finds tasks that run too long. Not thread-safe."""

    on: Final = Condition.RUNTIME

    def __init__(self, rules: RuleSet, gaps: Gaps) -> None:
        """``gaps``: times in which the stream was not watched."""
        self.least = min((rule.longer_than for rule in rules), default=float("inf"))
        """The smallest threshold of all rules, in seconds."""
        self.active = ActiveEpisodes()
        self._rules = rules
        self._gaps = gaps
        self._groups: dict[tuple[str, str], _Slow] = {}

    def begin(self) -> None:
        """Begin a round; an incomplete previous round is discarded."""
        self._groups = {}

    def add(self, run: SlowRun) -> None:
        """Add a run that takes longer than ``least``."""
        rule = self._rules.match(run.task, run.queue)
        if rule is not None and run.runtime > rule.longer_than:
            group = self._groups.get((run.task, rule.name))
            if group is None:
                group = self._groups[run.task, rule.name] = _Slow(rule)
            group.add(run)

    def conclude(self, at: Moment) -> Iterator[Episode | EpisodeEnd]:
        """End the round: all runs have been added."""
        groups, self._groups = self._groups, {}
        for (task, _), slow in groups.items():
            yield self.active.note(self._episode(task, slow, at), at)
        for end in self.active.take_ended(at):
            rule = next((rule for rule in self._rules if rule.name == end.rule), None)
            limit = "too long" if rule is None else f"longer than {duration(rule.longer_than)}"
            yield msgspec.structs.replace(end, summary=f"No current run of {end.subject} takes {limit}")

    def _episode(self, task: str, slow: _Slow, at: Moment) -> Episode:
        limit = duration(slow.rule.longer_than)
        identity = self.on, task, slow.rule.name
        since = self.active.since(identity, slow.first + slow.rule.longer_than)
        longest = slow.longest
        took = "" if longest is None else _runtime_text(longest)
        several = f"{slow.number} runs of {task} take longer than {limit}; the longest {took}"
        return Episode(
            self.on, task, slow.rule, since, at.now,
            several if slow.number > 1 else f"{task} {took} (limit {limit})",
            task=task, count=slow.number,
            details=[("Runs", "; ".join(map(_describe, slow.runs)))],
            queues=_numbers(run.queue for run in slow.runs),
            workers=_numbers(run.host for run in slow.runs),
            samples=[run.uuid for run in slow.runs],
            unwatched=self._gaps.within(since - slow.rule.longer_than, at.now),
        )  # fmt: skip


def _runtime_text(run: SlowRun) -> str:
    return f"took {duration(run.runtime)}" if run.ended else f"has been running since {rfc3339(run.started_at)}"


def _describe(run: SlowRun) -> str:
    ended = f"took {duration(run.runtime)}" if run.ended else "still running"
    return f"{run.uuid} on {run.host} since {rfc3339(run.started_at)}, {ended}"


def _numbers(names: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
