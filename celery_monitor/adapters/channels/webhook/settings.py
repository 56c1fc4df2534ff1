"""An entry of ``channels`` of type webhook."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from celery_monitor.adapters.channels.webhook.sign import key_of
from celery_monitor.settings.channels import ChannelSettings
from celery_monitor.settings.secret import CredentialUrl, Secret, SecretFile, SecretSource, checked_by, file_checked_by
from celery_monitor.settings.section import check_http_url, check_one_source
from celery_monitor.settings.units import duration


class WebhookEntry(ChannelSettings):
    """A signed webhook: events as JSON, signed according to Standard Webhooks."""

    type: Literal["webhook"]
    """Events as JSON by HTTP POST, signed according to Standard Webhooks."""
    url: Annotated[CredentialUrl, checked_by(check_http_url)] | None = None
    """The URL to which events are posted. It or ``url_file`` is required. Only its scheme and host are shown, because
    the rest may contain a secret. Redirects are not followed.
    """
    url_file: Annotated[SecretFile, file_checked_by(check_http_url)] | None = Field(default=None, validate_default=True)
    """A file that contains the URL, instead of ``url``. It is reloaded when it changes."""
    secret: Annotated[Secret, checked_by(key_of)] | None = None
    """The secret that signs events: ``whsec_`` and 24 to 64 bytes in Base64. It or ``secret_file`` is required."""
    secret_file: Annotated[SecretFile, file_checked_by(key_of)] | None = Field(default=None, validate_default=True)
    """A file that contains the secret, instead of ``secret``. It is reloaded when it changes."""
    timeout: Annotated[float, duration("100ms", "5m")] = 10.0
    """The timeout of a request. After a timeout, the request is retried later."""
    rate_limit: int = Field(default=60, ge=1)
    """Maximum number of requests per minute."""

    @field_validator("url_file", "secret_file")
    @classmethod
    def _one_source(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return check_one_source(value, info, required=True)

    def url_source(self) -> SecretSource:
        """The source of the URL."""
        return SecretSource(self.url, self.url_file)

    def secret_source(self) -> SecretSource:
        """The source of the secret."""
        return SecretSource(self.secret, self.secret_file)
