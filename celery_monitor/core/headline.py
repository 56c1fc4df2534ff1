"""Formats an incident as text that every receiver accepts: a headline, fields and paragraphs.

Everything that a task controls (its name, its exception, the worker's host) is untrusted: control characters and lone
surrogates are replaced and lengths are limited, so that no receiver rejects the message.
"""

import re
from collections.abc import Mapping
from typing import Final

from celery_monitor.core.model import Condition, Incident
from celery_monitor.core.text import OTHER
from celery_monitor.core.times import rfc3339

_NAME_LIMIT: Final = 255
_FACT: Final = 2_000
_not_plain: Final = re.compile(r"[^A-Za-z0-9]+").sub
_VALUE_LIMIT: Final = 1_000
_LISTED: Final = 5
"""Names that a line lists; … stands for the rest."""
_HAPPENED: Final = {
    "WorkerLostError": "a worker's child process was killed (often out of memory)",
    "TimeLimitExceeded": "exceeded its hard time limit and was killed",
    "SoftTimeLimitExceeded": "exceeded its soft time limit",
    "NotRegistered": "it is not registered in the worker that received it",
}
"""Plain descriptions of exceptions whose class name alone does not explain the failure."""


_MANY: Final = {
    Condition.RUNTIME: "Many tasks run too long",
    Condition.WAITING: "Many tasks wait too long",
    Condition.LOST: "Many workers were lost with the tasks they were running",
    Condition.BACKLOG: "Many queues are too long",
    Condition.NO_WORKER: "Many queues have too few workers",
    Condition.MISSED: "Many scheduled tasks did not run",
}
"""Headline of a storm, for each condition other than failure."""


def headline(incident: Incident) -> str:
    """What failed, how often and with which message; for another condition, what holds."""
    fleet = f"[{incident.fleet}] " if incident.fleet else ""
    if incident.condition is not Condition.FAILURE:
        if not incident.is_storm:
            return fleet + incident.message
        subjects = ", ".join(line(name, 100) for name in list(incident.tasks)[:5])
        return f"{fleet}{_MANY[incident.condition]}: {incident.count}, including {subjects}"
    if incident.is_storm:
        named = {name: count for name, count in incident.tasks.items() if name != OTHER}
        tasks = f"more than {len(named)} tasks" if OTHER in incident.tasks else _number(len(named), "task")
        failures = _number(incident.count, "failure")
        return f"{fleet}Many tasks fail at once: {failures} of {tasks}: {format_counts(named, 5)}"
    times = "" if incident.count == 1 else f" {incident.count} times"
    kinds = list(incident.exceptions)
    if len(kinds) > 1:
        return f"{fleet}{incident.task} failed{times}: {format_counts(incident.exceptions, 5)}"
    if kinds and kinds[0] in _HAPPENED:
        times = "" if incident.count == 1 else f" ({incident.count} times)"
        return f"{fleet}{incident.task}: {_HAPPENED[kinds[0]]}{times}"
    message = " ".join(incident.message.split())
    if kinds and not message.startswith(kinds[0]):
        message = f"{kinds[0]}: {message}" if message else kinds[0]
    return f"{fleet}{incident.task} failed{times}" + (f": {message}" if message else "")


def facts(incident: Incident) -> list[tuple[str, str]]:
    """The details of a condition other than failure: labels and values, each on one line.

    Labels are unique and consist of letters, digits and spaces, because receivers turn them into field names.
    """
    values: dict[str, str] = {}
    for label, value in incident.details:
        name = _not_plain(" ", label).strip() or "Detail"
        values[name] = f"{values[name]}; {value}" if name in values else value
    lines = [(name, line(value, _FACT)) for name, value in values.items()]
    if incident.unwatched >= 1:
        lines.append(("Not watched", f"{duration(incident.unwatched)} of this time; what happened then is unknown"))
    return lines


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``1 h 5 min``, ``3 d 2 h``: the two largest units."""
    minutes, seconds_left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds_left, "s"))
    first = next((position for position, (amount, _) in enumerate(units) if amount), len(units) - 1)
    return " ".join(f"{amount} {unit}" for amount, unit in units[first : first + 2] if amount) or "0 s"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def overview(incident: Incident) -> list[tuple[str, str]]:
    """The fields that every channel shows below the headline: labels and values on one line, most important first."""
    one, failures = incident, incident.condition is Condition.FAILURE
    fields = [
        *([("Failures", str(one.count))] if failures else facts(one)),
        ("Tasks", format_counts(one.tasks, _LISTED) if one.is_storm or len(one.tasks) > 1 else ""),
        ("Exceptions", format_counts(one.exceptions, _LISTED)),
        ("First failure" if failures else "Since", rfc3339(one.first_at) or ""),
        ("Last failure" if failures else "Last seen", rfc3339(one.last_at) or ""),
        ("Queues", format_counts(one.queues, _LISTED)),
        ("Workers", format_counts(one.workers, _LISTED)),
        ("Rule", line(one.rule)),
        ("Sample task IDs" if failures else "Task IDs", ", ".join(line(uuid) for uuid in one.samples)),
    ]
    return [(label, value) for label, value in fields if value]


def paragraphs(incident: Incident, *, resolved: bool, limit: int) -> list[str]:
    """An incident as plain text: its headline and fields, then the end of its traceback or message.

    ``limit``: maximum characters of the latter, which a resolved incident omits.
    """
    fields = [("Severity", str(incident.severity)), *overview(incident)]
    width = max(len(label) for label, _ in fields) + 2
    lines = [f"{label + ':':<{width}}{line(value, _VALUE_LIMIT)}" for label, value in fields]
    head = line(headline(incident), _VALUE_LIMIT)
    excerpt = "" if resolved else text(incident.traceback or incident.message).strip()[-limit:]
    first = f"{head}\nThis incident is resolved." if resolved else head
    return ["\n\n".join([first, "\n".join(lines)]), *([excerpt] if excerpt else [])]


def text(value: str, limit: int | None = None) -> str:
    """The value without lone surrogates and unprintable characters (line breaks and tabs are kept), cut with ``…``."""
    value = value.encode("utf-8", "replace").decode()
    if not value.isprintable():
        value = "".join(char if char.isprintable() or char in "\n\t" else " " for char in value)
    return value if limit is None or len(value) <= limit else value[: limit - 1] + "…"


def line(value: str, limit: int = _NAME_LIMIT) -> str:
    """Like ``text``, on one line."""
    return text(" ".join(text(value).split()), limit)


def format_counts(counts: Mapping[str, int], limit: int) -> str:
    """The names with the highest counts, each with its count."""
    entries = by_count(counts)
    names = ", ".join(f"{line(name, 100)} ({count})" for name, count in entries[:limit])
    return names + (", …" if len(entries) > limit else "")


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Name and count, highest count first."""
    return sorted(counts.items(), key=lambda entry: -entry[1])
