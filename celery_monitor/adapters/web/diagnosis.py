"""Sentences for an incident's page: whether it is getting better, and what to do next. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from celery_monitor.adapters.web.filters import address, elapsed, path, percent
from celery_monitor.core.model import BUCKET_SECONDS, FAILED, SUCCEEDED, Condition, HistoryRow, Incident, IncidentState
from celery_monitor.core.text import OTHER

SPAN: Final = 2 * BUCKET_SECONDS
"""Length in seconds of the two compared periods: the latest one and the one before."""
_MANY: Final = 5
"""Minimum number of failures for which a common worker is worth mentioning."""
OF_QUEUES: Final = frozenset({Condition.BACKLOG, Condition.NO_WORKER})
"""Conditions whose subject is a queue."""
_BETTER: Final = 0.5
"""A failure rate below this fraction of the earlier one is a trend."""

HINTS: Final[Mapping[str, str]] = {
    "WorkerLostError": "Its process was killed, usually for running out of memory: check the memory limit of "
    "the worker's container and the kernel log of that host.",
    "TimeLimitExceeded": "It exceeded its hard time limit: find out what it waits for (py-spy dump on a running "
    "process), or raise time_limit.",
    "SoftTimeLimitExceeded": "It exceeded its soft time limit: find out what it waits for, or raise soft_time_limit.",
    "NotRegistered": "The worker does not know this task: it runs another version than the sender, or does not "
    "import the task's module.",
    "MaxRetriesExceededError": "It has exceeded its retries: the earlier failures show why.",
    "OperationalError": "A database or the broker refused or dropped the connection: check that server first.",
    "ConnectionError": "A server did not answer or dropped the connection: check that server first.",
    "ConnectionRefusedError": "Nothing listens at the address it connects to: check that server first.",
}
"""Advice for exceptions whose class indicates where to look."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Whether the incident is getting better. ``tone``: good, bad or quiet."""

    tone: str
    text: str
    numbers: str


@dataclass(frozen=True, slots=True)
class Step:
    """A recommended step. ``link`` is relative to the root, or absolute."""

    text: str
    link: str = ""
    link_text: str = ""
    external: bool = False


def outlook(incident: Incident, rows: Sequence[HistoryRow], now: float) -> Outlook:
    """Compare recent with earlier runs. ``rows``: history of the incident's tasks since ``compared_since``."""
    if incident.condition is not Condition.FAILURE:
        return _of_condition(incident, now)
    begin = recent_since(now)
    recent = _sum([row for row in rows if row.start >= begin])
    earlier = _sum([row for row in rows if begin - SPAN <= row.start < begin])
    silent_for = max(0.0, now - incident.last_at)
    span, lasted = elapsed(now - begin), f"{SPAN // 60:.0f} min before"
    numbers = f"Last {span}: {_outcome_text(*recent)}. The {lasted}: {_outcome_text(*earlier)}."
    if incident.state is IncidentState.RESOLVED:
        return Outlook("good", f"It is over: resolved; the last failure was {elapsed(silent_for)} ago.", numbers)
    if silent_for > SPAN:
        succeeded = f", and {recent[0]:,} runs have succeeded in the last {span}" if recent[0] else ""
        none = "" if recent[0] else " It has not run since, so it may not be fixed."
        return Outlook(
            "good" if recent[0] else "quiet", f"No failure for {elapsed(silent_for)}{succeeded}.{none}", numbers
        )
    tone, trend = _compared(_share(*recent), _share(*earlier))
    return Outlook(tone, trend or f"It is still failing: the last failure was {elapsed(silent_for)} ago.", numbers)


def _compared(now: float | None, then: float | None) -> tuple[str, str]:
    """Tone and sentence; "" if there is nothing to compare with."""
    if now is None or not then:
        return "bad", ""
    shares = f"{percent(now)} of its runs fail now, {percent(then)} before."
    if now < then * _BETTER:
        return "good", f"It is getting better: {shares}"
    return "bad", f"It is getting worse: {shares}" if then < now * _BETTER else f"It continues as before: {shares}"


def _of_condition(incident: Incident, now: float) -> Outlook:
    if incident.state is IncidentState.OPEN:
        return Outlook("bad", f"Ongoing for {elapsed(max(0.0, now - incident.first_at))}.", "")
    lasted = elapsed(max(0.0, incident.last_at - incident.first_at))
    return Outlook("good", f"It is over: it lasted {lasted}.", "")


def recent_since(now: float) -> int:
    """Start of the recent period. It includes the present, incomplete bucket."""
    return int(now) // BUCKET_SECONDS * BUCKET_SECONDS - BUCKET_SECONDS


def compared_since(now: float) -> int:
    """Start of the earlier period."""
    return recent_since(now) - SPAN


def next_steps(incident: Incident, *, is_notified: bool, workers: int, operator: bool = False) -> list[Step]:
    """Recommended steps. ``workers``: number of workers that are up. ``operator``: the viewer may add silences."""
    steps = []
    if incident.runbook_url:
        steps.append(Step("Follow the runbook:", incident.runbook_url, incident.runbook_url, external=True))
    kinds = sorted(incident.exceptions, key=lambda kind: -incident.exceptions[kind])
    steps += [Step(f"{kind}: {HINTS[kind]}") for kind in kinds[:3] if kind in HINTS]
    hosts = [host for host in incident.workers if host != OTHER]
    if len(hosts) == len(incident.workers) == 1 and workers > 1 and incident.count >= _MANY:
        steps.append(
            Step(f"All failures were on {hosts[0]}. If other workers run this task too, check that one first.")
        )
    if len(incident.queues) == 1 and len(incident.tasks) > 1:
        steps.append(Step(f"All its tasks are in the queue {next(iter(incident.queues))}: check what they share."))
    if incident.last_uuid:
        newest = f"failures/{path(incident.last_uuid)}"
        steps.append(Step("Read the newest failure in full:", newest, "traceback and arguments"))
    if not is_notified and incident.state is IncidentState.OPEN:
        steps.append(Step("Nobody has been notified yet: see Notified."))
    if operator and incident.state is IncidentState.OPEN and _can_be_silenced(incident):
        silences = address("silences", match=incident.task)
        steps.append(Step("To stop its pages while you work on it,", silences, "silence this task"))
    if incident.condition in OF_QUEUES and incident.subject:
        steps.append(Step("Look at the queue", f"queues/{path(incident.subject)}", incident.subject))
    if incident.condition is not Condition.FAILURE or not steps:
        steps.append(Step("Look at the", "workers", "workers"))
    return steps


def _can_be_silenced(one: Incident) -> bool:
    """Whether the silences form can represent the task, as the form separates names by spaces."""
    return bool(one.task) and not one.is_storm and len(one.task.split()) == 1 and one.task != OTHER


def _sum(rows: Sequence[HistoryRow]) -> tuple[int, int]:
    return sum(row.counts[SUCCEEDED] for row in rows), sum(row.counts[FAILED] for row in rows)


def _share(succeeded: int, failed: int) -> float | None:
    return failed / (succeeded + failed) if succeeded + failed else None


def _outcome_text(succeeded: int, failed: int) -> str:
    share = _share(succeeded, failed)
    runs = f"{failed:,} of {succeeded + failed:,} runs failed"
    return "no run ended" if share is None else f"{runs} ({percent(share)})"
