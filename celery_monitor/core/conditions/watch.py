"""Runs the judges of all conditions, and provides the load and the oldest runs for the metrics."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol

from celery_monitor.core.clock_skew import SIGNIFICANT
from celery_monitor.core.conditions.backlog import BacklogJudge
from celery_monitor.core.conditions.confirmations import Confirmations
from celery_monitor.core.conditions.gaps import Gaps
from celery_monitor.core.conditions.holding import ActiveEpisodes, Moment
from celery_monitor.core.conditions.hosts import WorkerLiveness
from celery_monitor.core.conditions.lost import LostJudge, LostRun
from celery_monitor.core.conditions.no_worker import NoWorkerJudge
from celery_monitor.core.conditions.runtime import RuntimeJudge, SlowRun
from celery_monitor.core.conditions.waiting import WaitingJudge, WaitingTask
from celery_monitor.core.incident import Episode, EpisodeEnd
from celery_monitor.core.model import Condition, FleetTask, Incident, QueueStats, Stage, TaskRef
from celery_monitor.core.names import shortened_name
from celery_monitor.core.rules import Policy, RuleSet
from celery_monitor.core.runs import ENDED_UNSEEN, all_runs, is_killed, killed, lost_at, lost_since
from celery_monitor.core.track import Tracker
from celery_monitor.core.workers import Workers

MIN_AT_ONCE: Final = 500
"""Minimum number of tasks that a tick checks, which takes half a millisecond."""
ROUND: Final = 20
"""Maximum number of ticks in which every task under way is checked."""
CONFIRM_AFTER: Final = 60.0
"""Seconds of runtime after which a run must be confirmed by its worker before it is judged."""
HEARD_WITHIN: Final = 30.0
"""Seconds within which a worker must have shown a sign of life for its tasks to be judged, as it may be gone."""
MAX_POLL_GAP: Final = 120.0
"""Longest time between two polls of the queues, in seconds, that counts as watched."""
CLOCKS_DIFFER: Final = SIGNIFICANT
"""Seconds by which the clocks of two workers may differ, because smaller differences are not corrected."""
_SENT, _RECEIVED, _STARTED, _SUCCEEDED = map(int, (Stage.SENT, Stage.RECEIVED, Stage.STARTED, Stage.SUCCEEDED))
_QUEUE_JUDGES: Final = (BacklogJudge, NoWorkerJudge)


class Judge(Protocol):
    """The common interface of all judges."""

    @property
    def on(self) -> Condition:
        """The condition that it judges."""

    @property
    def active(self) -> ActiveEpisodes:
        """The episodes that have not ended."""


class QueueJudge(Judge, Protocol):
    """A judge of the queues."""

    def judge(self, queues: Sequence[QueueStats], at: Moment, *, answered: bool) -> Iterator[Episode | EpisodeEnd]:
        """Judge the current state of the queues. ``answered``: whether workers have ever answered."""


class Conditions:
    """Runs all judges. Not thread-safe: it belongs to the monitor."""

    def __init__(
        self,
        policy: Policy,
        tracker: Tracker,
        workers: Workers,
        *,
        purge: float,
        queue_of: Callable[[str, str], str],
        on_lost: Callable[[str, str], None],
        unreported: Callable[[], Container[str]] = frozenset,
    ) -> None:
        """``queue_of``: (task, worker) → the most likely queue; ``on_lost`` is called once for each lost run.

        ``unreported`` returns the names of tasks of which workers send no events.
        """
        self._tracker = tracker
        self._queue_of = queue_of
        self._on_lost = on_lost
        self._get_unreported = unreported
        self._unreported: Container[str] = frozenset()
        self._max_age = policy.max_age
        self._gaps, self._poll_gaps = Gaps(), Gaps()
        self._skipped = Gaps()
        """Periods that the machine's clock has skipped: tasks are younger than their times show."""
        self._liveness = WorkerLiveness(workers, purge)
        self._confirmations = Confirmations()
        rules = {on: RuleSet(policy, on) for on in Condition}
        self._runtime = RuntimeJudge(rules[Condition.RUNTIME], self._gaps)
        self._waiting = WaitingJudge(rules[Condition.WAITING], self._gaps)
        self._lost = LostJudge(rules[Condition.LOST], self._gaps)
        self._of_queues: list[QueueJudge] = [
            kind(rules[kind.on], self._poll_gaps) for kind in _QUEUE_JUDGES if len(rules[kind.on])
        ]
        self._rules = rules
        self.judges_waits = len(rules[Condition.WAITING]) > 0
        tracker.slow = self._runtime.least
        self._usual_runtime = min(CONFIRM_AFTER, self._runtime.least)
        """Seconds of runtime up to which a run needs no confirmation while its worker is alive."""
        self._safe_after: dict[str, float] = {}
        """Worker → ``WorkerLiveness.safe_after``, cached for one tick."""
        self._keys: Iterator[str] | None = None
        self._at_once = MIN_AT_ONCE
        self._oldest: dict[str, float] = {}
        self._load: Counter[str] = Counter()
        self.oldest_started: Mapping[str, float] = {}
        """Task → start time of its oldest run under way, in Unix seconds, as of the last round."""
        self.load: Mapping[str, int] = {}
        """Queue → number of tasks that its workers run or have fetched and that are due, as of the last round."""
        self._lengths: dict[str, int] = {}
        self._polled_at: float | None = None
        self._polled_for = 0.0

    def restore(self, open_of: Callable[[Condition], Sequence[Incident]]) -> None:
        """Continue the episodes that are open."""
        judges: Iterable[Judge] = (self._runtime, self._waiting, self._lost, *self._of_queues)
        for judge in judges:
            judge.active.restore(open_of(judge.on), self._rules[judge.on])

    def note_gap(self, since: float, until: float) -> None:
        """The events of this period are lost."""
        self._gaps.add(since, until)
        self._confirmations.gap()
        self._keys = None

    def clock_set_forward(self, since: float, until: float) -> None:
        """The machine's clock was set forward from ``since`` to ``until``."""
        self._skipped.add(since, until)
        self._keys = None

    def clock_set_back(self, seconds: float, now: float) -> None:
        """The machine's clock was set back by ``seconds`` to ``now``: skipped times after that will exist."""
        self._skipped.forget(now)
        for gaps in (self._gaps, self._poll_gaps):
            gaps.clock_set_back(seconds, now)
        self._liveness.clock_set_back(seconds, now)
        self._keys = None

    def tick(self, now: float, watched: float, *, live: bool) -> Iterable[Episode | EpisodeEnd]:
        """Check some tasks; called about once a second. Returns findings after each complete round.

        ``live``: the stream is read up to date.
        """
        if not live:
            self._keys = None  # the findings of this round may be outdated
            return ()
        tasks = self._tracker.tasks
        if self._keys is None:
            self._begin(tasks)
        at = Moment(now, watched)
        self._safe_after.clear()
        self._unreported = self._get_unreported()
        seen = 0
        for uuid in islice(self._keys or (), self._at_once):
            seen += 1
            entry = tasks.get(uuid)
            if entry is None:
                continue
            if entry.others is None:
                self._check(uuid, entry, entry, at)
            else:
                for run in all_runs(entry):
                    self._check(uuid, entry, run, at)
        return self._conclude(at) if seen < self._at_once else ()

    def polled(self, queues: Sequence[QueueStats], now: float) -> list[Episode | EpisodeEnd]:
        """Judge the queues after a poll. Returns the findings."""
        if self._polled_at is not None:
            elapsed = now - self._polled_at
            if 0 < elapsed <= MAX_POLL_GAP:
                self._polled_for += elapsed
            else:
                self._poll_gaps.add(self._polled_at, now)
        self._polled_at = now
        self._lengths = {queue.name: queue.length for queue in queues if queue.length is not None}
        at, answered = Moment(now, self._polled_for), self._liveness.any_answered
        return [change for judge in self._of_queues for change in judge.judge(queues, at, answered=answered)]

    def note_downtime(self, since: float, until: float) -> None:
        """The monitor did not run between these times."""
        self._poll_gaps.add(since, until)

    def note_answers(self, hostnames: Collection[str], busy: Container[str], watched: float) -> None:
        """Record answers of workers: see WorkerLiveness."""
        self._liveness.note_answers(hostnames, busy, watched)

    def cancelled(self, uuid: str, run: TaskRef, at: float) -> None:
        """The worker killed a run at ``at``, at a cold shutdown or because its connection was lost."""
        if run.stage == _STARTED:
            self._tracker.lose(uuid, run, killed(at))
            self._confirmations.drop(uuid)

    def learn(self, tasks: Iterable[FleetTask], watched: float) -> None:
        """Record the tasks that workers hold."""
        self._confirmations.learn((shortened_name(task.uuid) for task in tasks if task.started_at), watched)

    def to_ask(self) -> list[str]:
        """Workers to ask which tasks they hold."""
        return self._confirmations.to_ask()

    def confirm(self, hosts: Sequence[str], held: Mapping[str, Collection[str]], watched: float) -> None:
        """Apply their answers: hostname → the IDs of all tasks that it holds."""
        known = {host: {shortened_name(uuid) for uuid in ids} for host, ids in held.items()}
        self._confirmations.note_answers(hosts, known, watched)

    def _begin(self, tasks: Mapping[str, TaskRef]) -> None:
        # Most of the others have ended and are kept for late events.
        self._keys = iter(
            [uuid for uuid, entry in tasks.items() if entry.stage <= _STARTED or entry.others is not None]
        )
        self._at_once = max(MIN_AT_ONCE, len(tasks) // ROUND + 1)
        self._oldest, self._load = {}, Counter()
        self._runtime.begin()
        self._waiting.begin()
        self._lost.begin()

    def _check(self, uuid: str, entry: TaskRef, run: TaskRef, at: Moment) -> None:
        stage = run.stage
        if run.name is None or stage > _STARTED:
            return
        queue = run.queue or self._queue_of(run.name, run.host)
        if stage == _SENT and run.name in self._unreported:
            if entry.others is None:
                self._tracker.drop(uuid)
        elif stage != _STARTED:
            self._check_waiting(uuid, entry, run, queue, at)
        elif self._is_usual(uuid, run, at):  # nearly all are, and the checks below cost three times as much
            self._note_started(run.name, queue, run.started_at)
        elif run.due_at == -ENDED_UNSEEN or self._has_ended(uuid, run, at):
            return
        elif run.due_at < 0 or self._is_lost(uuid, entry, run, queue, at):
            self._check_lost(uuid, entry, run, queue, at)
        else:
            self._check_started(uuid, run, queue, at)

    def _check_started(self, uuid: str, run: TaskRef, queue: str, at: Moment) -> None:
        name, took = run.name or "", self._age(run.started_at, at.now)
        if took > CONFIRM_AFTER or took > self._runtime.least:
            holds = self._holds(uuid, run, at)
            if holds is False:
                return
            if holds and took > self._runtime.least and not self._is_silent(run.host, at):
                self._runtime.add(SlowRun(uuid, name, queue, run.host, run.started_at, took, ended=False))
        self._note_started(name, queue, run.started_at)

    def _is_usual(self, uuid: str, run: TaskRef, at: Moment) -> bool:
        """Whether it has run only for a short time and its worker is alive and has not reported its end."""
        started_at, host = run.started_at, run.host
        if run.due_at < 0 or at.now - started_at > self._usual_runtime:
            return False
        safe_after = self._safe_after_of(host, at)
        return started_at > safe_after and self._confirmations.over_at(uuid, started_at) is None

    def _safe_after_of(self, host: str, at: Moment) -> float:
        safe_after = self._safe_after.get(host)
        if safe_after is None:
            silent_for = min(HEARD_WITHIN, self._lost.least_silent_for)
            safe_after = self._safe_after[host] = self._liveness.safe_after(host, silent_for, at.watched)
        return safe_after

    def _note_started(self, name: str, queue: str, started_at: float) -> None:
        self._load[queue] += 1
        oldest = self._oldest.get(name)
        if oldest is None or started_at < oldest:
            self._oldest[name] = started_at

    def _check_waiting(self, uuid: str, entry: TaskRef, run: TaskRef, queue: str, at: Moment) -> None:
        if run.due_at == -ENDED_UNSEEN or (entry.others is not None and self._was_returned(uuid, entry, run, at)):
            return
        # Without task-sent and ETA, only the minute is known in which the task was fetched.
        due = run.due_at or (60.0 * (run.seen_minute + 1) if run.stage == _RECEIVED else 0.0)
        if not due or due > at.now:
            return
        gone = run.stage == _RECEIVED and self._is_gone(run, at)
        if run.stage == _RECEIVED and not gone:
            self._load[queue] += 1
        waited = self._age(due, at.now)
        if waited > self._waiting.least and not _has_expired(run, at.now):
            if run.host and (gone or self._holds(uuid, run, at) is not True):
                return
            if due < self._gaps.end and not run.host:
                return  # the event of its end may be lost
            task = WaitingTask(uuid, run.name or "", queue, run.host, due)
            self._waiting.add(task, due + waited, self._lengths)

    def _was_returned(self, uuid: str, entry: TaskRef, run: TaskRef, at: Moment) -> bool:
        """Whether its worker returned the run to the queue before it started it; if so, records that.

        A worker returns what it has prefetched when it stops or loses its connection. No event reports that, but the
        task is received again. A worker that holds further copies, of a Broadcast for example, still has its own.
        """
        if run.stage != _RECEIVED:
            return False
        if self._is_gone(run, at):
            if run is all_runs(entry)[-1]:
                return False  # not received again
        elif any(_follows(other, run) and other.stage >= _SUCCEEDED for other in _later(entry, run)):
            pass  # a worker starts tasks in the order in which it received them
        elif at.now - run.received_at <= CONFIRM_AFTER or self._holds(uuid, run, at) is not False:
            return False
        self._tracker.lose(uuid, run, ENDED_UNSEEN)
        return True

    def _is_gone(self, run: TaskRef, at: Moment) -> bool:
        """Whether the worker that fetched the run has said goodbye since, was replaced or is silent."""
        since, host = run.received_at or at.now, run.host
        if since > self._safe_after_of(host, at):
            return False
        gone_at = self._liveness.lost_at(host, since, HEARD_WITHIN, at.watched, finishing_for=0.0)
        return gone_at is not None

    def _age(self, since: float, now: float) -> float:
        """Seconds since then, without those that the clock has skipped."""
        return now - since - self._skipped.within(since, now)

    def _holds(self, uuid: str, run: TaskRef, at: Moment) -> bool | None:
        started_at = run.started_at or run.received_at or run.due_at
        return self._confirmations.holds(uuid, run.host, started_at, at.watched, gap_end=self._gaps.end)

    def _is_silent(self, host: str, at: Moment) -> bool:
        return self._lost_at(host, at.now, "", "", at, silent_for=HEARD_WITHIN) is not None

    def _has_ended(self, uuid: str, run: TaskRef, at: Moment) -> bool:
        """Whether its worker has reported that the run has ended without an event; if so, records that."""
        started_at = run.started_at
        if run.due_at < 0 or not self._liveness.has_ended(
            run.host, started_at, at.watched, denied_at=self._confirmations.over_at(uuid, started_at)
        ):
            return False
        self._tracker.lose(uuid, run, ENDED_UNSEEN)
        return True

    def _is_lost(self, uuid: str, entry: TaskRef, run: TaskRef, queue: str, at: Moment) -> bool:
        """Whether its worker is gone; if so, records the loss once, unless the task was redelivered."""
        name = run.name or ""
        gone_at = self._lost_at(run.host, run.started_at, name, queue, at)
        if gone_at is None:
            return False
        if _runs_again(entry, run, gone_at):
            return True
        if run.started_at < self._gaps.end and not self._confirmations.confirmed(uuid):
            return False  # it may have ended before its worker did
        self._tracker.lose(uuid, run, lost_since(gone_at))
        self._on_lost(name, queue)
        return True

    def _check_lost(self, uuid: str, entry: TaskRef, run: TaskRef, queue: str, at: Moment) -> None:
        runs_again = _runs_again(entry, run, lost_at(run))
        if is_killed(run) and not self._settle(uuid, run, queue, at, runs_again=runs_again):
            return
        if runs_again:
            if any(other.started_at for other in _later(entry, run)):
                self._tracker.lose(uuid, run, ENDED_UNSEEN)  # the next run has taken its place
            return
        gone_at = self._lost_at(run.host, run.started_at, run.name or "", queue, at)
        if gone_at is None and self._is_back(uuid, run, at):
            self._tracker.lose(uuid, run, 0.0)  # its worker is back and still has it
            return
        self._lost.add(LostRun(uuid, run.name or "", queue, run.host, run.started_at, lost_at(run)), at.now)

    def _settle(self, uuid: str, run: TaskRef, queue: str, at: Moment, *, runs_again: bool) -> bool:
        """Whether it is known by now that a killed run is lost or redelivered; if so, records that.

        The task may be redelivered within ``silent_for``.
        """
        name, killed_at = run.name or "", lost_at(run)
        if not runs_again and at.now - killed_at < self._lost.silent_for(name, queue):
            return False
        self._tracker.lose(uuid, run, killed_at)
        if runs_again:
            return True
        if killed_at < self._gaps.end:  # its redelivery may have been missed
            self._tracker.lose(uuid, run, ENDED_UNSEEN)
            return False
        self._on_lost(name, queue)
        return True

    def _lost_at(
        self, host: str, started_at: float, name: str, queue: str, at: Moment, *, silent_for: float | None = None
    ) -> float | None:
        """``WorkerLiveness.lost_at`` with the times of the task's rule."""
        if silent_for is None:
            silent_for = self._lost.silent_for(name, queue)
        finishing_for = self._lost.finishing_for(name, queue)
        return self._liveness.lost_at(host, started_at, silent_for, at.watched, finishing_for=finishing_for)

    def _is_back(self, uuid: str, run: TaskRef, at: Moment) -> bool:
        """Whether the worker of a lost run confirms that it has the run."""
        return bool(self._confirmations.holds(uuid, run.host, run.started_at, at.watched, gap_end=math.inf))

    def _conclude(self, at: Moment) -> list[Episode | EpisodeEnd]:
        self._keys = None
        self.oldest_started, self.load = self._oldest, self._load
        self._confirmations.forget(self._tracker.tasks)
        slow, self._tracker.slow_runs = self._tracker.slow_runs, []
        for uuid, task, queue, host, started_at, took in slow:
            ended_at = started_at + took
            if at.now - ended_at <= self._max_age:
                known_queue, took_really = queue or self._queue_of(task, host), self._age(started_at, ended_at)
                self._runtime.add(SlowRun(uuid, task, known_queue, host, started_at, took_really, ended=True))
        return [*self._runtime.conclude(at), *self._waiting.conclude(at), *self._lost.conclude(at)]


def _has_expired(run: TaskRef, now: float) -> bool:
    return run.details is not None and 0 < run.details.expires <= now


def _runs_again(entry: TaskRef, run: TaskRef, gone_at: float) -> bool:
    """Whether the task of a lost run has been redelivered since.

    The other runs of a Broadcast do not count. They start together with it, so they can be told apart unless it was
    lost within a minute.
    """
    return any(
        (other.stage == _RECEIVED and other.due_at != -ENDED_UNSEEN) or other.started_at >= gone_at - CLOCKS_DIFFER
        for other in _later(entry, run)
    )


def _follows(other: TaskRef, run: TaskRef) -> bool:
    """Whether the same worker received the same task again."""
    return other.host == run.host and other.name == run.name


def _later(entry: TaskRef, run: TaskRef) -> list[TaskRef]:
    """The runs of the task ID that were seen after this one."""
    if entry.others is None:
        return []
    runs = all_runs(entry)
    return runs[runs.index(run) + 1 :]
