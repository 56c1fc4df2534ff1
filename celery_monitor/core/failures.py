"""Processes one failure: classify its texts, group it, judge it, and keep it as a sample."""

from typing import Final

from celery_monitor.core.aggregate import Aggregator
from celery_monitor.core.classify import Classifier, group_id
from celery_monitor.core.counters import Counters
from celery_monitor.core.decide import Decider, Notice
from celery_monitor.core.incident import MAX_TRACEBACK_LENGTH, TaskFailure, Verdict
from celery_monitor.core.limits import Limits
from celery_monitor.core.model import CounterFamily, CounterName, Event, Failure, Reason
from celery_monitor.core.names import shortened_name
from celery_monitor.core.text import OTHER, redacted
from celery_monitor.core.track import MAX_ARGUMENTS_LENGTH, Tracker

MAX_NOTICES: Final = 100
"""Verdicts that are kept for the log between two calls."""
_TOO_OLD: Final = Reason.TOO_OLD


class FailureJudge:
    """Not thread-safe: it belongs to the monitor."""

    def __init__(
        self, limits: Limits, tracker: Tracker, aggregator: Aggregator, decider: Decider, counters: Counters
    ) -> None:
        """Use these parts of the monitor."""
        self._redact = limits.redact
        self._classify = Classifier(limits.redact).classify
        self._tracker = tracker
        self._aggregator = aggregator
        self._decide = decider.decide
        self._counters = counters
        self._notices: list[Notice] = []

    def judge(self, event: Event, name: str, queue: str, now: float) -> str:
        """Group and judge a failure; returns the short name of its exception class."""
        classified = self._classify(event.exception, event.traceback)
        exception, frame = classified.qualified, classified.frame
        group = group_id(name, exception, frame)
        if not self._aggregator.admits_group(name, group):
            exception, frame = OTHER, ""
            group = group_id(name, exception, frame)
        uuid, at, short = event.uuid, event.timestamp, classified.exception
        hostname = shortened_name(event.hostname)
        args, kwargs = self._arguments_of(uuid) if self._tracker.arguments else (None, None)
        traceback = classified.traceback[-MAX_TRACEBACK_LENGTH:]
        verdict = self._decide(
            TaskFailure(uuid, name, queue, short, at, hostname, classified.message, traceback, args, kwargs), now
        )
        self._note(name, uuid, short, verdict)
        self._aggregator.add_error(
            exception,
            frame,
            Failure(
                uuid, name, queue, hostname, at, short, classified.message, classified.traceback,
                group, verdict.incident, verdict.reason, args, kwargs,
            ),
        )  # fmt: skip
        return short

    def take_notices(self) -> list[Notice]:
        """Verdicts since the last call, to be logged; at most MAX_NOTICES."""
        notices, self._notices = self._notices, []
        return notices

    def _note(self, name: str, uuid: str, exception: str, verdict: Verdict) -> None:
        if verdict.reason is _TOO_OLD:
            self._counters.add(CounterName.TOO_OLD_FAILURES, 1)
        if verdict.muted:
            self._counters.add(CounterName.SILENCED_FAILURES, 1)
        if verdict.changed:
            self._counters.add(CounterFamily.INCIDENTS.counter(verdict.reason), 1)
        if len(self._notices) < MAX_NOTICES:
            self._notices.append(Notice(name, uuid, exception, verdict))

    def _arguments_of(self, uuid: str) -> tuple[str | None, str | None]:
        args, kwargs = self._tracker.arguments.get(uuid, (None, None))
        return (
            args and redacted(args, self._redact)[:MAX_ARGUMENTS_LENGTH],
            kwargs and redacted(kwargs, self._redact)[:MAX_ARGUMENTS_LENGTH],
        )
