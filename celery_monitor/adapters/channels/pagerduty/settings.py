"""An entry of ``channels`` of type pagerduty: one more service."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from celery_monitor.settings.channels import ChannelSettings
from celery_monitor.settings.pagerduty import RoutingKey, RoutingKeyFile
from celery_monitor.settings.secret import SecretSource
from celery_monitor.settings.section import HttpUrl, check_one_source
from celery_monitor.settings.units import duration


class PagerDutyEntry(ChannelSettings):
    """One more PagerDuty service. Refreshes and resolves are as in the section ``pagerduty``."""

    type: Literal["pagerduty"]
    """PagerDuty's Events API v2."""
    routing_key: RoutingKey = None
    """The integration key of the service; it or ``routing_key_file`` is required."""
    routing_key_file: RoutingKeyFile = Field(default=None, validate_default=True)
    """A file that holds the routing key, instead of ``routing_key``; it is read again when it changes."""
    region: Literal["us", "eu"] = "us"
    """The service region of the account: us or eu."""
    url: HttpUrl | None = None
    """Another address than that of the region: a proxy, or a test server."""
    timeout: Annotated[float, duration("100ms", "5m")] = 10.0
    """How long one request may take, before it is tried again later."""
    rate_limit: int = Field(default=100, ge=1)
    """Events per minute. PagerDuty takes about 120."""

    @field_validator("routing_key_file")
    @classmethod
    def _one_routing_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return check_one_source(value, info, required=True)

    def routing_key_source(self) -> SecretSource:
        """The routing key, from wherever it comes."""
        return SecretSource(self.routing_key, self.routing_key_file)
