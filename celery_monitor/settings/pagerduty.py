"""Settings of PagerDuty."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from celery_monitor.settings.secret import Secret, SecretFile, SecretSource, checked_by, file_checked_by
from celery_monitor.settings.section import HttpUrl, Section, check_one_source
from celery_monitor.settings.units import MINUTE, Duration, duration


def _check_routing_key(text: str) -> None:
    if not re.fullmatch(r"[\x21-\x7e]{32}", text):
        raise ValueError(
            "must be the 32 characters of an Events API v2 integration key "
            "(PagerDuty: service, Integrations, Events API V2)"
        )


RoutingKey = Annotated[Secret, checked_by(_check_routing_key)] | None
RoutingKeyFile = Annotated[SecretFile, file_checked_by(_check_routing_key)] | None


class PagerDutySettings(Section):
    """PagerDuty's Events API v2."""

    routing_key: RoutingKey = None
    """The integration key of the PagerDuty service. If unset, incidents are logged and stored, but not sent."""
    routing_key_file: RoutingKeyFile = None
    """A file that contains the routing key, instead of ``routing_key``. It is reloaded when it changes."""
    region: Literal["us", "eu"] = "us"
    """The service region of the PagerDuty account: us or eu."""
    url: HttpUrl | None = None
    """Overrides the URL of the region, for a proxy or a test server."""
    timeout: Annotated[float, duration("100ms", "5m")] = 10.0
    """The timeout of a request. After a timeout, the request is retried later."""
    update_interval: Duration = 10 * MINUTE
    """The minimum time between two updates of an open incident's counts."""
    rate_limit: int = Field(default=100, ge=1)
    """Maximum number of events per minute and routing key. PagerDuty accepts about 120."""
    resolve: Literal["never", "on_success"] = "never"
    """``on_success``: resolve an incident when the task has succeeded after its last failure and has had no
    failure for ``resolve_after``. ``never``: incidents are resolved manually.
    """
    resolve_after: Duration = 30 * MINUTE
    """How long a task must be without failures before its incident is resolved."""

    @field_validator("routing_key_file")
    @classmethod
    def _one_routing_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return check_one_source(value, info)

    def routing_key_source(self) -> SecretSource:
        """The source of the routing key."""
        return SecretSource(self.routing_key, self.routing_key_file)
