"""Renders an incident as a PagerDuty event, without the routing key. Pure.

All text that a task controls (its name, its exception, the worker's host) is hostile: control characters are removed,
lone surrogates are replaced and long texts are shortened, so that they never cause PagerDuty to reject an event. The
fields and limits are those of PagerDuty's Events API v2.
"""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from celery_monitor.core.headline import by_count, facts, headline, line, text
from celery_monitor.core.model import LATEST_TIMESTAMP, Condition, Incident, Severity
from celery_monitor.core.text import path_part
from celery_monitor.core.times import rfc3339

SUMMARY_LIMIT: Final = 1024
"""Characters."""
EVENT_LIMIT: Final = 512_000
"""Maximum size of a whole event, in bytes."""
CLIENT: Final = "celery-monitor"

_NAME_LIMIT: Final = 255
_URL_LIMIT: Final = 2000
_TEXT_LIMIT: Final = 2000
_TRACEBACK_LIMIT: Final = 8000
_ENTRIES: Final = 20
_ENVELOPE: Final = len('"routing_key": "", "event_action": "trigger", ') + 32
"""Bytes that the sender adds to the event."""

_ESSENTIAL: Final = ("failures", "rate", "first_failure", "last_failure", "condition", "subject", "since", "last_seen")
"""The details that replace those of an event that is too large."""
_ADVICE: Final = {
    "WorkerLostError": "The task did not raise this: its worker process died. Check the workers' hosts or "
    "containers for the out-of-memory killer, and their memory limits.",
    "TimeLimitExceeded": "The worker killed the process at task_time_limit; the task had no chance to clean up.",
    "SoftTimeLimitExceeded": "The task was interrupted at task_soft_time_limit and did not handle it.",
    "NotRegistered": "The message was dropped. The worker runs older code, does not import the task's module, or "
    "consumes the wrong queue.",
}


def render(incident: Incident, external_url: str | None) -> dict[str, Any]:
    """The properties of a trigger event. ``external_url`` is the base URL of links to the page; None for no links."""
    failures = incident.condition is Condition.FAILURE
    payload: dict[str, Any] = {
        "summary": line(headline(incident), SUMMARY_LIMIT),
        "source": line(incident.fleet) or "celery",
        "severity": str(incident.severity),
        "component": line(incident.task if failures else incident.subject),
        "group": line(_most_frequent(incident.queues)),
        "class": line(_most_frequent(incident.exceptions)) if failures else str(incident.condition),
        "timestamp": rfc3339(incident.last_at),
        "custom_details": _details(incident) if failures else _details_of_condition(incident),
    }
    base = external_url.rstrip("/") if external_url else None
    event: dict[str, Any] = {
        "dedup_key": text(incident.key),
        "payload": {name: value for name, value in payload.items() if value},
        "client": CLIENT,
        "links": _links(incident, base),
    }
    if base:
        this = _page(base, "incidents/", incident.key)
        event["client_url"] = this if this and len(this) <= _URL_LIMIT else f"{base}/incidents"
    return _within_limit(event)


def render_test(fleet: str, key: str) -> dict[str, Any]:
    """A test trigger that is marked as such."""
    payload = {
        "summary": line(f"[{fleet}] Test from celery-monitor: nothing failed", SUMMARY_LIMIT),
        "source": line(fleet) or "celery",
        "severity": str(Severity.INFO),
        "custom_details": {"note": "Sent by `celery-monitor notify test pagerduty` and resolved immediately."},
    }
    return {"dedup_key": text(key), "payload": payload, "client": CLIENT}


def _details(incident: Incident) -> dict[str, Any]:
    storm = incident.is_storm
    details: dict[str, Any] = {
        "failures": incident.count,
        "rate": _rate(incident),
        "tasks": _counts(incident.tasks) if storm or len(incident.tasks) > 1 else None,
        "exceptions": _counts(incident.exceptions),
        "what_to_look_at": " ".join(_ADVICE[kind] for kind in _ADVICE if kind in incident.exceptions),
        "message": text(incident.message, _TEXT_LIMIT),
        "workers": _counts(incident.workers),
        "queues": _counts(incident.queues),
        "first_failure": rfc3339(incident.first_at),
        "last_failure": rfc3339(incident.last_at),
        "sample_task_ids": [line(uuid) for uuid in incident.samples[:_ENTRIES]],
        "args": text(incident.args, _TEXT_LIMIT) if incident.args is not None else None,
        "kwargs": text(incident.kwargs, _TEXT_LIMIT) if incident.kwargs is not None else None,
        "rule": line(incident.rule),
        "threshold": incident.threshold if incident.threshold > 1 else None,
        "traceback": _end(incident.traceback),
    }
    return {name: value for name, value in details.items() if value}


def _details_of_condition(incident: Incident) -> dict[str, Any]:
    details: dict[str, Any] = {
        "condition": str(incident.condition),
        "subject": line(incident.subject),
        **dict(facts(incident)),
        "tasks": _counts(incident.tasks),
        "workers": _counts(incident.workers),
        "queues": _counts(incident.queues),
        "since": rfc3339(incident.first_at),
        "last_seen": rfc3339(incident.last_at),
        "task_ids": [line(uuid) for uuid in incident.samples[:_ENTRIES]],
        "rule": line(incident.rule),
    }
    return {name: value for name, value in details.items() if value}


def _links(incident: Incident, base: str | None) -> list[dict[str, str]]:
    links = []
    if base:
        links.append((_page(base, "incidents/", incident.key), "This incident"))
        links.append((_page(base, "failures/", incident.last_uuid), "Latest failure"))
        if not incident.is_storm and incident.task:
            links.append((_page(base, "tasks/", incident.task), f"{incident.task} in celery-monitor"))
    if incident.runbook_url:
        links.append((incident.runbook_url, "Runbook"))
    links += [(url, title) for title, url in incident.links]
    # A shortened URL leads nowhere.
    return [{"href": href, "text": line(label)} for href, label in links if href and len(href) <= _URL_LIMIT]


def _page(base: str, path: str, name: str) -> str | None:
    """The URL of a page by its name; None if the name cannot be part of a link, which would lead to another page."""
    return f"{base}/{path}{quote(path_part(name), safe='')}" if name and text(name) == name else None


def _within_limit(event: dict[str, Any]) -> dict[str, Any]:
    """The event within PagerDuty's size limit: in a larger event, a note replaces most of the details."""
    if len(json.dumps(event)) + _ENVELOPE <= EVENT_LIMIT:
        return event
    details = event["payload"]["custom_details"]
    essential = {name: details[name] for name in _ESSENTIAL if name in details}
    note = "Other details were omitted: they exceed PagerDuty's size limit."
    return event | {"payload": event["payload"] | {"custom_details": essential | {"note": note}}}


def _rate(incident: Incident) -> str | None:
    seconds = incident.last_at - incident.first_at
    if incident.count < 2 or not 1 <= seconds <= LATEST_TIMESTAMP:  # noqa: PLR2004 - one failure has no rate
        return None
    return f"{incident.count / max(seconds, 60) * 60:.3g} a minute over {_duration(int(seconds))}"


def _duration(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{amount} {unit}" for amount, unit in ((hours, "h"), (minutes, "min"), (seconds, "s")) if amount]
    return " ".join(parts[:2])


def _most_frequent(counts: Mapping[str, int]) -> str:
    return max(counts, key=lambda name: counts[name], default="")


def _counts(counts: Mapping[str, int]) -> dict[str, int]:
    """The largest counts first; those beyond the limit are added up."""
    entries = by_count(counts)
    counts_shown = {line(name) or "(none)": count for name, count in entries[:_ENTRIES]}
    others = sum(count for _, count in entries[_ENTRIES:])
    return counts_shown | {"(others)": others} if others else counts_shown


def _end(traceback: str) -> str:
    """The last lines of the traceback: the innermost frames and the exception."""
    traceback = text(traceback)
    return traceback if len(traceback) <= _TRACEBACK_LIMIT else "…" + traceback[-_TRACEBACK_LIMIT + 1 :]
