"""The configuration: nested models, one file per concern; every fault of it is reported at once.

`load` merges what was given by argv, the environment and a YAML file (`layers`), and checks it by the models.
No text that leaves this package holds the value of a field, because any of them may be a secret that was put
into the wrong place. Nothing here logs, and only files that the configuration names are read.
"""

from celery_monitor.settings.alerts import AlertsSettings, RuleSettings, StormSettings
from celery_monitor.settings.broker import BrokerSettings, QueueSettings
from celery_monitor.settings.channels import ChannelSettings
from celery_monitor.settings.email import EmailSettings
from celery_monitor.settings.load import load
from celery_monitor.settings.metrics import MetricsSettings
from celery_monitor.settings.model import LogSettings, Settings
from celery_monitor.settings.pagerduty import PagerDutySettings
from celery_monitor.settings.secret import Secret, SecretSource, SecretUrl, redact_url
from celery_monitor.settings.store import StoreSettings, TrackingSettings
from celery_monitor.settings.units import Duration, Size
from celery_monitor.settings.web import WebSettings

__all__ = [
    "AlertsSettings",
    "BrokerSettings",
    "ChannelSettings",
    "Duration",
    "EmailSettings",
    "LogSettings",
    "MetricsSettings",
    "PagerDutySettings",
    "QueueSettings",
    "RuleSettings",
    "Secret",
    "SecretSource",
    "SecretUrl",
    "Settings",
    "Size",
    "StoreSettings",
    "StormSettings",
    "TrackingSettings",
    "WebSettings",
    "load",
    "redact_url",
]
