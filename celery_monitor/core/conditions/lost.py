"""``lost``: a worker disappeared or was restarted while it ran tasks. Celery sends no event for this.

A cold shutdown of Celery 5.5 and later kills running tasks and sends task-cancelled. Celery 5.4 sends task-failed.

A lost run is marked in its tracked entry, so that it is counted only once. It is no longer lost when the task has run
again (``acks_late``), or when its worker is back and confirms that it still has the run.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

from celery_monitor.core.conditions.gaps import Gaps
from celery_monitor.core.conditions.holding import ActiveEpisodes, Moment
from celery_monitor.core.headline import duration
from celery_monitor.core.incident import Episode, EpisodeEnd
from celery_monitor.core.model import Condition
from celery_monitor.core.rules import DAY, Rule, RuleSet
from celery_monitor.core.times import rfc3339

SILENT_FOR: Final = 60.0
"""Seconds of silence after which a worker counts as gone, unless a rule says otherwise."""
FINISHING_FOR: Final = 3_600.0
"""Seconds after worker-offline after which a worker counts as finished, unless a rule says otherwise."""
GIVEN_UP: Final = DAY
"""Seconds after which a lost task is no longer expected to run again."""
_NAMED: Final = 20


class LostRun(msgspec.Struct, frozen=True):
    """A run whose worker is gone."""

    uuid: str
    task: str
    queue: str
    host: str
    started_at: float
    lost_at: float
    """When the worker was last alive, or its new process started."""


class LostJudge:
    """Finds workers that were lost with their tasks. Not thread-safe."""

    on: Final = Condition.LOST

    def __init__(self, rules: RuleSet, gaps: Gaps) -> None:
        """``gaps``: times in which the stream was not watched."""
        self.least_silent_for = min((SILENT_FOR, *(rule.silent_for for rule in rules)))
        """Seconds of silence up to which no worker counts as gone, whatever it runs."""
        self.active = ActiveEpisodes()
        self._rules = rules
        self._gaps = gaps
        self._groups: dict[tuple[str, str], tuple[Rule, list[LostRun]]] = {}

    def silent_for(self, task: str, queue: str) -> float:
        """Seconds for which the worker of a run must be silent to count as gone."""
        rule = self._rules.match(task, queue)
        return SILENT_FOR if rule is None else rule.silent_for

    def finishing_for(self, task: str, queue: str) -> float:
        """Seconds that the worker of a run may take to finish it after worker-offline."""
        rule = self._rules.match(task, queue)
        return FINISHING_FOR if rule is None else rule.finishing_for

    def begin(self) -> None:
        """Begin a round; an incomplete previous round is discarded."""
        self._groups = {}

    def add(self, run: LostRun, now: float) -> None:
        """Add a lost run whose task has not run again."""
        rule = self._rules.match(run.task, run.queue)
        if rule is not None and now - run.lost_at < GIVEN_UP:
            self._groups.setdefault((run.host, rule.name), (rule, []))[1].append(run)

    def conclude(self, at: Moment) -> Iterator[Episode | EpisodeEnd]:
        """End the round: all lost runs have been added."""
        groups, self._groups = self._groups, {}
        for (host, _), (rule, runs) in groups.items():
            yield self.active.note(self._episode(host, rule, runs, at), at)
        for end in self.active.take_ended(at):
            summary = (
                f"The tasks of {end.subject} have run again or ended, or were lost more than {duration(GIVEN_UP)} ago"
            )
            yield msgspec.structs.replace(end, summary=summary)

    def _episode(self, host: str, rule: Rule, runs: list[LostRun], at: Moment) -> Episode:
        since = self.active.since((self.on, host, rule.name), min(run.lost_at for run in runs))
        tasks = dict(Counter(run.task for run in runs))
        listed = ", ".join(f"{name} ({number})" if number > 1 else name for name, number in list(tasks.items())[:5])
        running = "1 task" if len(runs) == 1 else f"{len(runs)} tasks"
        return Episode(
            self.on, host, rule, since, at.now,
            f"Worker {host} was lost at {rfc3339(since)} while it was running {running}: {listed}",
            task=runs[0].task if len(tasks) == 1 else "", count=len(runs),
            details=[("Lost tasks", "; ".join(map(_describe, runs[:_NAMED])))],
            tasks=tasks,
            queues=dict(Counter(run.queue for run in runs)),
            workers={host: len(runs)},
            samples=[run.uuid for run in runs[:_NAMED]],
            unwatched=self._gaps.within(min(run.started_at for run in runs), at.now),
        )  # fmt: skip


def _describe(run: LostRun) -> str:
    return f"{run.task} {run.uuid}, started {rfc3339(run.started_at)}"
