"""PagerDuty's Events API v2 through pdpyras: ``render`` builds the events, ``send`` delivers them.

Only ``exchange`` uses pdpyras. Nothing here reads or writes the outbox: the notifier updates the rows. The rest of the
program uses only ``channel``.
"""

from celery_monitor.adapters.channels.pagerduty.channel import configured
from celery_monitor.adapters.channels.pagerduty.lint import warnings
from celery_monitor.adapters.channels.pagerduty.settings import PagerDutyEntry

ENTRY = PagerDutyEntry

__all__ = ["ENTRY", "configured", "warnings"]
