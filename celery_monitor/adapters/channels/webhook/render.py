"""What an event reads like. Pure: Incident → JSON, of bounded size.

Messages and tracebacks are redacted before they are stored; what a task can choose is cleaned and cut here.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from celery_monitor.adapters.channels import page_of
from celery_monitor.core.headline import facts, headline, line, most_first, text
from celery_monitor.core.model import Incident
from celery_monitor.core.times import rfc3339

MAX_BYTES: Final = 256_000
"""Of a body: texts and lists are bounded below so that together they fit, whatever their characters are."""
_SUMMARY: Final = 1_024
_TEXT: Final = 2_000
_TRACEBACK: Final = 8_000
_ENTRIES: Final = 20

TEST: Final = "test"
"""The type of an event that tells of no incident."""


def render(kind: str, incident: Incident, at: float, external_url: str | None) -> bytes:
    """The body of an event about an incident. ``at``: when it was decided. ``external_url``: the base of the link."""
    one = incident
    data = {
        "key": text(one.key),
        "fleet": line(one.fleet),
        "summary": line(headline(one), _SUMMARY),
        "severity": str(one.severity),
        "state": str(one.state),
        "condition": str(one.condition),
        "subject": line(one.subject),
        "details": [{"label": label, "value": value} for label, value in facts(one)],
        "task": line(one.task),
        "storm": one.is_storm,
        "rule": line(one.rule),
        "failures": one.count,
        "first_failure_at": rfc3339(one.first_at),
        "last_failure_at": rfc3339(one.last_at),
        "exceptions": _counts(one.exceptions),
        "tasks": _counts(one.tasks),
        "queues": _counts(one.queues),
        "workers": _counts(one.workers),
        "sample_task_ids": [line(uuid) for uuid in one.samples[:_ENTRIES]],
        "message": text(one.message, _TEXT),
        "traceback": _end(one.traceback),
        "args": None if one.args is None else text(one.args, _TEXT),
        "kwargs": None if one.kwargs is None else text(one.kwargs, _TEXT),
        "runbook_url": one.runbook_url,
        "url": page_of(external_url, one.key),
        "links": [{"title": title, "url": url} for title, url in one.links],
    }
    return body(kind, at, data)


def body(kind: str, at: float, data: Mapping[str, Any]) -> bytes:
    """An event, in the envelope of Standard Webhooks."""
    event = {"type": kind, "timestamp": rfc3339(at), "data": dict(data)}
    return json.dumps(event, ensure_ascii=False).encode()


def _counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Most first; what is too much is added up."""
    entries = most_first(counts)
    shown = {line(name) or "(none)": count for name, count in entries[:_ENTRIES]}
    rest = sum(count for _, count in entries[_ENTRIES:])
    return shown | {"(others)": rest} if rest else shown


def _end(traceback: str) -> str:
    """The last lines: the innermost frames and the exception."""
    cleaned = text(traceback)
    return cleaned if len(cleaned) <= _TRACEBACK else "…" + cleaned[-_TRACEBACK + 1 :]
