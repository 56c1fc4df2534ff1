"""PagerDuty's Events API v2, by pdpyras: ``render`` says what an incident reads like, ``send`` delivers it.

Only ``exchange`` knows pdpyras. Nothing here reads or writes the outbox; what becomes of a row is the
notifier's. ``channel`` is what the rest of the program sees.
"""

from celery_monitor.adapters.channels.pagerduty.channel import configured
from celery_monitor.adapters.channels.pagerduty.lint import warnings
from celery_monitor.adapters.channels.pagerduty.settings import PagerDutyEntry

ENTRY = PagerDutyEntry

__all__ = ["ENTRY", "configured", "warnings"]
