"""Warnings about valid but probably unintended settings of PagerDuty."""

import re
import string
from collections.abc import Iterator

from celery_monitor.errors import Problem
from celery_monitor.settings import Settings


def warnings(settings: Settings) -> Iterator[Problem]:
    """Warn if a success in another fleet may resolve an incident."""
    sources = [settings.pagerduty.routing_key_source(), *(rule.routing_key_source() for rule in settings.alerts.rules)]
    sends = any(source.get() is not None for source in sources)
    if (settings.alerts.resolve or settings.pagerduty.resolve) != "on_success" or not sends:
        return
    parts = [*string.Formatter().parse(settings.alerts.dedup_key)]
    if any(re.search(r"\w", literal) for literal, *_ in parts):
        return  # A fixed text in the key, such as the fleet's name, makes the keys distinct.
    if all(name != "fleet" for _, name, *_ in parts):
        yield Problem(
            "alerts.dedup_key",
            "has no {fleet}: if another fleet uses the same routing key, a success there resolves this fleet's "
            "incidents (resolve is on_success); write {fleet}/{task}/{hour}, or give each fleet its own "
            "routing key",
        )
    elif settings.fleet == Settings.model_fields["fleet"].default:
        yield Problem(
            "fleet",
            "is the default, which other fleets may also use: with the same routing key, a success there resolves this "
            "fleet's incidents (resolve is on_success); give each fleet its own name",
        )
