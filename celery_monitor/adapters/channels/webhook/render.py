"""Renders events as JSON of bounded size. Pure.

Messages and tracebacks are redacted before they are stored; text that a task controls is cleaned and shortened here.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from celery_monitor.adapters.channels import page_of
from celery_monitor.core.headline import by_count, facts, headline, line, text
from celery_monitor.core.model import Incident
from celery_monitor.core.times import rfc3339

MAX_BYTES: Final = 256_000
"""Maximum size of a body. The limits below keep texts and lists within it, whatever characters they contain."""
_SUMMARY: Final = 1_024
_TEXT: Final = 2_000
_TRACEBACK: Final = 8_000
_ENTRIES: Final = 20

TEST: Final = "test"
"""The type of a test event, which is about no incident."""


def render(kind: str, incident: Incident, at: float, external_url: str | None) -> bytes:
    """The body of an event about an incident. ``at``: the time of the decision. ``external_url``: base of the link."""
    source = incident
    data = {
        "key": text(source.key),
        "fleet": line(source.fleet),
        "summary": line(headline(source), _SUMMARY),
        "severity": str(source.severity),
        "state": str(source.state),
        "condition": str(source.condition),
        "subject": line(source.subject),
        "details": [{"label": label, "value": value} for label, value in facts(source)],
        "task": line(source.task),
        "storm": source.is_storm,
        "rule": line(source.rule),
        "failures": source.count,
        "first_failure_at": rfc3339(source.first_at),
        "last_failure_at": rfc3339(source.last_at),
        "exceptions": _counts(source.exceptions),
        "tasks": _counts(source.tasks),
        "queues": _counts(source.queues),
        "workers": _counts(source.workers),
        "sample_task_ids": [line(uuid) for uuid in source.samples[:_ENTRIES]],
        "message": text(source.message, _TEXT),
        "traceback": _end(source.traceback),
        "args": None if source.args is None else text(source.args, _TEXT),
        "kwargs": None if source.kwargs is None else text(source.kwargs, _TEXT),
        "runbook_url": source.runbook_url,
        "url": page_of(external_url, source.key),
        "links": [{"title": title, "url": url} for title, url in source.links],
    }
    return body(kind, at, data)


def body(kind: str, at: float, data: Mapping[str, Any]) -> bytes:
    """An event in the envelope of Standard Webhooks."""
    event = {"type": kind, "timestamp": rfc3339(at), "data": dict(data)}
    return json.dumps(event, ensure_ascii=False).encode()


def _counts(counts: Mapping[str, int]) -> dict[str, int]:
    """The largest counts first; those beyond the limit are added up."""
    entries = by_count(counts)
    counts_shown = {line(name) or "(none)": count for name, count in entries[:_ENTRIES]}
    others = sum(count for _, count in entries[_ENTRIES:])
    return counts_shown | {"(others)": others} if others else counts_shown


def _end(traceback: str) -> str:
    """The last lines of the traceback: the innermost frames and the exception."""
    cleaned = text(traceback)
    return cleaned if len(cleaned) <= _TRACEBACK else "…" + cleaned[-_TRACEBACK + 1 :]
