"""Any of the services that Apprise knows, as one message when an incident opens, and one when it resolves.

Apprise is an optional dependency. It runs in a process of its own, `child`, for each message: it bounds no time, and
loads more than a hundred services.
"""

from celery_monitor.adapters.channels.apprise.channel import configured, problems
from celery_monitor.adapters.channels.apprise.settings import AppriseEntry

ENTRY = AppriseEntry

__all__ = ["ENTRY", "configured", "problems"]
