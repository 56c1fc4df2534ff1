"""Slack: a message for each incident, by a bot that keeps it up to date, or by an incoming webhook."""

from celery_monitor.adapters.channels.slack.channel import configured
from celery_monitor.adapters.channels.slack.settings import SlackEntry

ENTRY = SlackEntry

__all__ = ["ENTRY", "configured"]
