"""A signed webhook: posts incidents as JSON to any HTTP server, signed according to Standard Webhooks."""

from celery_monitor.adapters.channels.webhook.channel import configured
from celery_monitor.adapters.channels.webhook.settings import WebhookEntry

ENTRY = WebhookEntry

__all__ = ["ENTRY", "configured"]
