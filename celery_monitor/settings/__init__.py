"""The configuration: nested models, one module per concern. All errors are reported at once.

`load` merges the command line, the environment and a YAML file (`layers`), and validates the result with the models.
No message of this package contains the value of a field, because any value may be a secret in the wrong place. Nothing
here logs, and only files named in the configuration are read.
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
