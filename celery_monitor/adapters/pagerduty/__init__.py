"""PagerDuty's Events API v2, by pdpyras: ``render`` says what an incident reads like, ``send`` delivers it.

Only ``exchange`` knows pdpyras. Nothing here reads or writes the outbox; what becomes of a row is the
courier's.
"""

from celery_monitor.adapters.pagerduty.send import PagerDuty, endpoint

__all__ = ["PagerDuty", "endpoint"]
