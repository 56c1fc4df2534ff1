"""Sends messages to any service that Apprise supports: one when an incident opens, and one when it resolves.

Apprise is an optional dependency. Each message is sent by a separate process, `child`, because Apprise does not limit
the time that it takes, and loads more than a hundred services.
"""

from celery_monitor.adapters.channels.apprise.channel import configured, problems
from celery_monitor.adapters.channels.apprise.settings import AppriseEntry

ENTRY = AppriseEntry

__all__ = ["ENTRY", "configured", "problems"]
