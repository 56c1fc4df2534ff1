"""``runtime``: a run of a task takes longer than its rule says, whether it still runs or has ended."""

from collections.abc import Iterator
from typing import Final

import msgspec

from celery_monitor.core.conditions.gaps import Gaps
from celery_monitor.core.conditions.holding import Holding, Moment
from celery_monitor.core.headline import duration
from celery_monitor.core.incident import Episode, Over
from celery_monitor.core.model import Condition
from celery_monitor.core.rules import Rule, RuleSet
from celery_monitor.core.times import rfc3339

_NAMED: Final = 20
"""Runs that an incident names."""


class SlowRun(msgspec.Struct, frozen=True):
    """A run that took, or has taken so far, as long as this."""

    uuid: str
    task: str
    queue: str
    host: str
    began: float
    took: float
    ended: bool


class _Slow(msgspec.Struct):
    """The slow runs of one task under one rule, as of this round."""

    rule: Rule
    runs: list[SlowRun] = []
    number: int = 0
    longest: SlowRun | None = None
    first: float = 0.0

    def add(self, run: SlowRun) -> None:
        self.number += 1
        if len(self.runs) < _NAMED:
            self.runs.append(run)
        if self.longest is None or run.took > self.longest.took:
            self.longest = run
        self.first = min(self.first or run.began, run.began)


class RuntimeJudge:
    """Not thread-safe."""

    on: Final = Condition.RUNTIME

    def __init__(self, rules: RuleSet, gaps: Gaps) -> None:
        """``gaps``: when the stream was not watched."""
        self.least = min((rule.longer_than for rule in rules), default=float("inf"))
        """Seconds below which no run is of interest."""
        self.holding = Holding()
        self._rules = rules
        self._gaps = gaps
        self._found: dict[tuple[str, str], _Slow] = {}

    def begin(self) -> None:
        """A round begins: what was seen in one that was not completed is forgotten."""
        self._found = {}

    def see(self, run: SlowRun) -> None:
        """A run that takes longer than ``least``."""
        rule = self._rules.match(run.task, run.queue)
        if rule is not None and run.took > rule.longer_than:
            found = self._found.get((run.task, rule.name))
            if found is None:
                found = self._found[run.task, rule.name] = _Slow(rule)
            found.add(run)

    def conclude(self, at: Moment) -> Iterator[Episode | Over]:
        """All that run have been seen."""
        found, self._found = self._found, {}
        for (task, _), slow in found.items():
            yield self.holding.note(self._episode(task, slow, at), at)
        for over in self.holding.over(at):
            rule = next((rule for rule in self._rules if rule.name == over.rule), None)
            limit = "too long" if rule is None else f"longer than {duration(rule.longer_than)}"
            yield msgspec.structs.replace(over, summary=f"No run of {over.subject} takes {limit} any more")

    def _episode(self, task: str, slow: _Slow, at: Moment) -> Episode:
        limit = duration(slow.rule.longer_than)
        identity = self.on, task, slow.rule.name
        since = self.holding.since(identity, slow.first + slow.rule.longer_than)
        worst = slow.longest
        took = "" if worst is None else _took(worst)
        several = f"{slow.number} runs of {task} take longer than {limit}; the longest {took}"
        return Episode(
            self.on, task, slow.rule, since, at.now,
            several if slow.number > 1 else f"{task} {took} (limit {limit})",
            task=task, count=slow.number,
            details=[("Runs", "; ".join(map(_told, slow.runs)))],
            queues=_numbers(run.queue for run in slow.runs),
            workers=_numbers(run.host for run in slow.runs),
            samples=[run.uuid for run in slow.runs],
            unwatched=self._gaps.within(since - slow.rule.longer_than, at.now),
        )  # fmt: skip


def _took(run: SlowRun) -> str:
    return f"took {duration(run.took)}" if run.ended else f"has been running since {rfc3339(run.began)}"


def _told(run: SlowRun) -> str:
    ended = f"took {duration(run.took)}" if run.ended else "still running"
    return f"{run.uuid} on {run.host} since {rfc3339(run.began)}, {ended}"


def _numbers(names: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
