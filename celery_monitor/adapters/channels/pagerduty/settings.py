"""An entry of ``channels`` of type pagerduty: an additional service."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from celery_monitor.settings.channels import ChannelSettings
from celery_monitor.settings.pagerduty import RoutingKey, RoutingKeyFile
from celery_monitor.settings.secret import SecretSource
from celery_monitor.settings.section import HttpUrl, check_one_source
from celery_monitor.settings.units import duration


class PagerDutyEntry(ChannelSettings):
    """Another PagerDuty service. Updates and resolutions work as in the section ``pagerduty``."""

    type: Literal["pagerduty"]
    """PagerDuty's Events API v2."""
    routing_key: RoutingKey = None
    """The integration key of the service; it or ``routing_key_file`` is required."""
    routing_key_file: RoutingKeyFile = Field(default=None, validate_default=True)
    """A file that contains the routing key, instead of ``routing_key``. It is reloaded when it changes."""
    region: Literal["us", "eu"] = "us"
    """The service region of the account: us or eu."""
    url: HttpUrl | None = None
    """Overrides the URL of the region, for a proxy or a test server."""
    timeout: Annotated[float, duration("100ms", "5m")] = 10.0
    """The timeout of a request. After a timeout, the request is retried later."""
    rate_limit: int = Field(default=100, ge=1)
    """Maximum number of events per minute. PagerDuty accepts about 120."""

    @field_validator("routing_key_file")
    @classmethod
    def _one_routing_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return check_one_source(value, info, required=True)

    def routing_key_source(self) -> SecretSource:
        """The source of the routing key."""
        return SecretSource(self.routing_key, self.routing_key_file)
