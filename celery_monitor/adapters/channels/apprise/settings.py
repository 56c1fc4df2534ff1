"""An entry of ``channels`` of type apprise."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from celery_monitor.settings.channels import ChannelSettings
from celery_monitor.settings.secret import Secret, SecretFile, SecretSource, checked_by, file_checked_by
from celery_monitor.settings.section import check_one_source
from celery_monitor.settings.units import duration


def _check(url: str) -> None:
    """Check the URL. Errors contain no part of it, because all of it is secret."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", url):
        raise ValueError(
            "must be one Apprise URL, like tgram://TOKEN/CHAT_ID; https://appriseit.com lists the services"
        )


class AppriseEntry(ChannelSettings):
    """A service that Apprise supports: Teams, Telegram, Discord, ntfy and more than a hundred others."""

    type: Literal["apprise"]
    """Messages through Apprise. The container image includes it; otherwise install ``celery-monitor[apprise]``."""
    url: Annotated[Secret, checked_by(_check)] | None = None
    """The Apprise URL of the service. It or ``url_file`` is required. Use one channel for each service, so that each
    has its own retries.
    """
    url_file: Annotated[SecretFile, file_checked_by(_check)] | None = Field(default=None, validate_default=True)
    """A file that contains the URL, instead of ``url``. It is reloaded when it changes."""
    timeout: Annotated[float, duration("5s", "5m")] = 60.0
    """The timeout of one message. After a timeout, the message is retried later."""
    rate_limit: int = Field(default=20, ge=1)
    """Maximum number of messages per minute."""

    @field_validator("url_file")
    @classmethod
    def _one_url(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return check_one_source(value, info, required=True)

    def url_source(self) -> SecretSource:
        """The source of the URL."""
        return SecretSource(self.url, self.url_file)
