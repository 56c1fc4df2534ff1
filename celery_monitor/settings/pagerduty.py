"""Where incidents go."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from celery_monitor.settings.secret import Secret, SecretFile, SecretSource, read_secret
from celery_monitor.settings.section import HttpUrl, Section
from celery_monitor.settings.units import MINUTE, Duration, duration


def _check_routing_key(text: str) -> None:
    if not re.fullmatch(r"[\x21-\x7e]{32}", text):
        raise ValueError(
            "must be the 32 characters of an Events API v2 integration key "
            "(PagerDuty: service, Integrations, Events API V2)"
        )


def _routing_key(value: Secret) -> Secret:
    _check_routing_key(value.get_secret_value())
    return value


def _routing_key_file(value: Path) -> Path:
    try:
        _check_routing_key(read_secret(value))
    except ValueError as exc:
        raise ValueError(f"{value}: {exc}") from None
    return value


def check_one_routing_key(file: Path | None, info: ValidationInfo) -> Path | None:
    """The file, unless a routing key stands beside it.

    Raises:
        ValueError: Both are given.
    """
    if file is not None and info.data.get("routing_key") is not None:
        raise ValueError("set either routing_key or routing_key_file, not both")
    return file


RoutingKey = Annotated[Secret, AfterValidator(_routing_key)] | None
RoutingKeyFile = Annotated[SecretFile, AfterValidator(_routing_key_file)] | None


class PagerDutySettings(Section):
    """PagerDuty's Events API v2."""

    routing_key: RoutingKey = None
    """The integration key of the service that is paged. Unset: incidents are logged, shown and kept, not
    sent."""
    routing_key_file: RoutingKeyFile = None
    """A file that holds the routing key, instead of ``routing_key``; it is read again when it changes."""
    region: Literal["us", "eu"] = "us"
    """The service region of the account: us or eu."""
    url: HttpUrl | None = None
    """Another address than that of the region: a proxy, or a test server."""
    timeout: Annotated[float, duration("100ms", "5m")] = 10.0
    """How long one request may take, before it is tried again later."""
    update_interval: Duration = 10 * MINUTE
    """At most one refresh of an open incident's counts in this time."""
    rate_limit: int = Field(default=100, ge=1)
    """Events per minute and routing key. PagerDuty takes about 120."""
    resolve: Literal["never", "on_success"] = "never"
    """``on_success``: an incident resolves itself when the task succeeded after its last failure and was
    quiet for ``resolve_after``. ``never``: a person resolves it."""
    resolve_after: Duration = 30 * MINUTE
    """How long a task must be without failures before its incident resolves itself."""

    @field_validator("routing_key_file")
    @classmethod
    def _one_routing_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return check_one_routing_key(value, info)

    def routing_key_source(self) -> SecretSource:
        """The routing key, from wherever it comes; None when there is none."""
        return SecretSource(self.routing_key, self.routing_key_file)
