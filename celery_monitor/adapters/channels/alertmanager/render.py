"""Renders an incident as an alert: JSON of bounded size. Pure.

The labels identify the alert, so they must not change while the incident is open. Source of the fields:
https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from celery_monitor.adapters.channels import page_of
from celery_monitor.core.headline import headline, line, overview, text
from celery_monitor.core.model import Incident
from celery_monitor.core.times import rfc3339

ALERTNAME: Final = "CeleryIncident"
CLOCK_TOLERANCE: Final = 60.0
"""Seconds by which the end of a resolved alert is moved back. An Alertmanager whose clock is behind would see the end
in the future and keep the later end that it received before."""
_SUMMARY: Final = 1_024
_TEXT: Final = 2_000

Alert = dict[str, Any]
Labels = Mapping[str, str]


def labels_of(incident: Incident, more: Labels) -> dict[str, str]:
    """The labels that identify the alert. ``more``: labels from the settings."""
    own = {
        "alertname": ALERTNAME,
        "condition": str(incident.condition),
        "fleet": line(incident.fleet),
        "incident": line(incident.key),
        "rule": line(incident.rule),
        "severity": str(incident.severity),
        "subject": line(incident.subject),
        "task": line(incident.task),
    }
    # Alertmanager treats an empty label as missing.
    return {name: value for name, value in {**more, **own}.items() if value}


def firing(incident: Incident, labels: Labels, ends_at: float, external_url: str | None) -> Alert:
    """A firing alert, which ends at ``ends_at`` unless it is sent again."""
    alert: Alert = {
        "labels": dict(labels),
        "annotations": _annotations(incident),
        "startsAt": rfc3339(incident.opened_at),
        "endsAt": rfc3339(ends_at),
    }
    if (page := page_of(external_url, incident.key)) is not None:
        alert["generatorURL"] = page
    return alert


def resolved(incident: Incident, labels: Labels, at: float, external_url: str | None) -> Alert:
    """An alert that was resolved at ``at``."""
    return firing(incident, labels, max(incident.opened_at, at - CLOCK_TOLERANCE), external_url)


def receipt_of(labels: Labels) -> str:
    """The receipt of a delivery: the labels by which Alertmanager identifies the alert."""
    return json.dumps(dict(labels), sort_keys=True)


def labels_from(receipt: str | None) -> dict[str, str] | None:
    """The labels in a receipt; None if there is no readable receipt."""
    try:
        labels = json.loads(receipt or "")
    except ValueError:
        return None
    is_valid = isinstance(labels, dict) and all(isinstance(value, str) for value in labels.values())
    return labels if is_valid else None


def _annotations(incident: Incident) -> dict[str, str]:
    """The annotations. Templates refer to their names: ``failures``, ``last_failure``."""
    annotations = {label.lower().replace(" ", "_"): value for label, value in overview(incident)}
    values = {
        **{line(name): line(value, _TEXT) for name, value in annotations.items()},
        "summary": line(headline(incident), _SUMMARY),
        "message": text(incident.message, _TEXT),
        "runbook_url": incident.runbook_url or "",
        "links": "\n".join(f"{title}: {url}" for title, url in incident.links),
    }
    return {name: value for name, value in values.items() if value}
