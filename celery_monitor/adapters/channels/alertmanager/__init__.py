"""Sends incidents as alerts to Prometheus Alertmanager, through its API v2."""

from celery_monitor.adapters.channels.alertmanager.channel import configured
from celery_monitor.adapters.channels.alertmanager.settings import AlertmanagerEntry

ENTRY = AlertmanagerEntry

__all__ = ["ENTRY", "configured"]
