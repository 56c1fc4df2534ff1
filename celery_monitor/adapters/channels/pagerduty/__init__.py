"""PagerDuty's Events API v2, by pdpyras: ``render`` says what an incident reads like, ``send`` delivers it.

Only ``exchange`` knows pdpyras. Nothing here reads or writes the outbox; what becomes of a row is the
notifier's.
"""

from celery_monitor.adapters.channels.pagerduty.reachability import check_reachable
from celery_monitor.adapters.channels.pagerduty.send import PagerDuty, endpoint, routing_keys, send_test

__all__ = ["PagerDuty", "check_reachable", "endpoint", "routing_keys", "send_test"]
