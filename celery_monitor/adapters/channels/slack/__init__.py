"""Posts incidents to Slack through a bot, which keeps one message per incident up to date, or an incoming webhook."""

from celery_monitor.adapters.channels.slack.channel import configured
from celery_monitor.adapters.channels.slack.settings import SlackEntry

ENTRY = SlackEntry

__all__ = ["ENTRY", "configured"]
