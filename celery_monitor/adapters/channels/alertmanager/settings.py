"""An entry of ``channels`` of type alertmanager."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from celery_monitor.settings.channels import ChannelSettings
from celery_monitor.settings.secret import Secret, SecretFile, SecretSource
from celery_monitor.settings.section import HttpUrl, Text, check_credentials
from celery_monitor.settings.units import MINUTE, duration

OWN_LABELS: Final = ("alertname", "condition", "fleet", "incident", "rule", "severity", "subject", "task")
_REPEATS: Final = 3
"""Repetitions that must fit into ``resolve_timeout``, so that one lost request does not resolve an alert."""
_MAX_URLS: Final = 16


def _base(value: str) -> str:
    return value.rstrip("/").removesuffix("/api/v2/alerts").removesuffix("/api/v2").rstrip("/")


def _labels(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name):
            raise ValueError(f"{name!r} is not a label name: use letters, digits and _, not beginning with a digit")
        if name in OWN_LABELS:
            raise ValueError(f"{name} is set by the monitor; choose another name")
    return value


class AlertmanagerEntry(ChannelSettings):
    """A Prometheus Alertmanager, or all members of a cluster of them."""

    type: Literal["alertmanager"]
    """Alerts through Alertmanager's API v2, sent again while their incidents are open."""
    urls: tuple[Annotated[HttpUrl, AfterValidator(_base)], ...] = Field(min_length=1, max_length=_MAX_URLS)
    """The base URL of each Alertmanager, as in ``http://alertmanager-0:9093``. Every alert is sent to all of them, as
    Prometheus does: list each member of a cluster, not a load balancer in front of it."""
    username: Text | None = None
    """The user name for HTTP basic authentication. Unset: none."""
    password: Secret | None = None
    """The password for HTTP basic authentication."""
    password_file: SecretFile | None = Field(default=None, validate_default=True)
    """A file that contains the password, instead of ``password``. It is reloaded when it changes."""
    labels: dict[str, str] = Field(default={})
    """Labels that are added to every alert, for routing: ``{team: billing}``."""
    repeat: Annotated[float, duration("5s", "1h")] = MINUTE
    """How often open incidents are sent again, so that the Alertmanager keeps them firing."""
    resolve_timeout: Annotated[float, duration("15s", "1d")] = 10 * MINUTE
    """How long an alert keeps firing after the monitor last sent it. Set it longer than the monitor is down during an
    upgrade, and at least three times ``repeat``. Alertmanager's own ``resolve_timeout`` does not apply.
    """
    timeout: Annotated[float, duration("100ms", "5m")] = 10.0
    """The timeout of a request to one Alertmanager. After a timeout, the request is retried later."""
    rate_limit: int = Field(default=600, ge=1)
    """Maximum number of alerts per minute, without repetitions."""

    @field_validator("password_file")
    @classmethod
    def _complete(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        check_credentials(value, info)
        return value

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, value: dict[str, str]) -> dict[str, str]:
        return _labels(value)

    @field_validator("resolve_timeout")
    @classmethod
    def _longer_than_repeat(cls, value: float, info: ValidationInfo) -> float:
        repeat = info.data.get("repeat")
        if repeat is not None and value < _REPEATS * repeat:
            raise ValueError(
                "must be at least three times repeat, so that one lost request does not resolve alerts that are open"
            )
        return value

    def password_source(self) -> SecretSource:
        """The source of the password; None if there is no password."""
        return SecretSource(self.password, self.password_file)
