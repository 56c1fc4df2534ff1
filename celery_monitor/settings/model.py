"""The whole configuration."""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from celery_monitor.settings.alerts import AlertsSettings
from celery_monitor.settings.broker import BrokerSettings
from celery_monitor.settings.channels import Channels
from celery_monitor.settings.email import EmailSettings
from celery_monitor.settings.links import LinkTemplate, Title
from celery_monitor.settings.metrics import MetricsSettings
from celery_monitor.settings.pagerduty import PagerDutySettings
from celery_monitor.settings.schedules import Schedules
from celery_monitor.settings.section import Section, Text
from celery_monitor.settings.store import StoreSchema, StoreSettings, TrackingSettings, schema_of
from celery_monitor.settings.web import WebSettings

_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_ANY_CASE: Final = "^(" + "|".join("".join(f"[{c}{c.upper()}]" for c in level) for level in _LEVELS) + ")$"


def _lower(value: object) -> object:
    """Accept levels in any case: Python's own names are upper case."""
    return value.lower() if isinstance(value, str) else value


class LogSettings(Section):
    """The monitor's own log, on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        BeforeValidator(_lower),
        WithJsonSchema({"type": "string", "pattern": _ANY_CASE, "$comment": f"{', '.join(_LEVELS)}, in any case"}),
    ] = "info"
    """The minimum level of log messages."""
    format: Literal["json", "console"] = "json"
    """``json`` for machines, one object per line; ``console`` for people."""


class Settings(Section):
    """All settings."""

    # `Settings()` contains the defaults; `load` applies the sources.

    # The channel types import this package, so their models are resolved when the first Settings are created.
    model_config = ConfigDict(defer_build=True)

    fleet: Text = "celery"
    """The name of the fleet, shown in incidents, in mails and on the page."""
    broker: BrokerSettings = BrokerSettings()
    store: StoreSettings = StoreSettings()
    tracking: TrackingSettings = TrackingSettings()
    metrics: MetricsSettings = MetricsSettings()
    web: WebSettings = WebSettings()
    alerts: AlertsSettings = AlertsSettings()
    pagerduty: PagerDutySettings = PagerDutySettings()
    email: EmailSettings = EmailSettings()
    channels: Channels = ()
    """Additional channels for incidents, each with a ``name`` and a ``type``; rules refer to them in ``to``."""
    schedules: Schedules = ()
    """Tasks that must run regularly, and when. An incident opens if one does not start in time."""
    links: dict[Title, LinkTemplate] = Field(default={})
    """Links to other systems, by title: their URLs are shown with failures and incidents, on the page and in messages.
    A URL may contain the placeholders ``{task_id}``, ``{task}``, ``{worker}``, ``{queue}``, ``{exception}``,
    ``{incident}`` and ``{fleet}`` after its host; they are percent-encoded. A link is omitted if the value of one of
    its placeholders is unknown.
    """
    log: LogSettings = LogSettings()

    @property
    def schema_of_store(self) -> StoreSchema:
        """The PostgreSQL schema that contains the tables."""
        name = self.store.schema_
        return StoreSchema(
            name or schema_of(self.fleet),
            derived=name is None,
            fleet=self.fleet,
            external_url=self.web.external_url or "",
        )
