"""Incidents like the monitor's, for the tests of PagerDuty's events."""

import dataclasses
from typing import Any

from msgspec import structs

from celery_monitor.core.model import Action, Incident, IncidentState, OutboxItem, Reason, Severity

KEY = "R" * 32
AT = 1_795_442_531.25
"""2026-11-23T14:02:11Z, and a quarter of a second."""


def an_incident(**changes: Any) -> Incident:
    """One CardDeclined of shop.billing.charge, unless changed."""
    incident = Incident(
        key="shop.billing.charge/2026-11-23T14Z",
        fleet="shop",
        task="shop.billing.charge",
        rule="billing",
        route="",
        severity=Severity.CRITICAL,
        state=IncidentState.OPEN,
        reason=Reason.OPENED,
        hour="2026-11-23T14Z",
        opened_at=AT,
        first_at=AT,
        last_at=AT,
        count=1,
        threshold=1,
        exceptions={"CardDeclined": 1},
        workers={"celery@box-1": 1},
        queues={"billing": 1},
        tasks={"shop.billing.charge": 1},
        samples=("5d3f0b9e-0000-4000-8000-000000000001",),
        message="insufficient funds",
        traceback='Traceback (most recent call last):\n  File "/app/billing.py", line 12, in charge\n'
        "shop.billing.CardDeclined: insufficient funds",
        runbook_url="https://runbooks.example.com/billing",
    )
    return structs.replace(incident, **changes)


def an_item(incident: Incident, action: Action = Action.TRIGGER, **changes: Any) -> OutboxItem:
    """The outbox row of an incident."""
    item = OutboxItem(
        id=1,
        channel="pagerduty",
        key=incident.key,
        action=action,
        route=incident.route,
        revision=1,
        attempts=0,
        created_at=AT,
        due_at=AT,
        state="pending",
    )
    return dataclasses.replace(item, **changes)
