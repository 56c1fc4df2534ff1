"""The HTTP server of metrics, probes, page and API."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from celery_monitor.settings.secret import Secret, SecretFile, SecretSource
from celery_monitor.settings.section import MAX_PORT, HttpUrl, Section, Text, check_credentials


class WebSettings(Section):
    """Where the server listens, and who may look."""

    host: Text = "0.0.0.0"
    """The address to listen on: all by default, because Prometheus and probes come from other hosts."""
    port: int = Field(default=9808, ge=0, le=MAX_PORT)
    """The port to listen on; 0 takes a free one and logs it."""
    external_url: HttpUrl | None = None
    """The base of the links in incidents and mails, as people reach the page. Unset: no links."""
    username: Annotated[Text, Field(pattern="^[^:]*$")] | None = None
    """With the password: HTTP Basic on everything but ``/metrics`` and the probes."""
    password: Secret | None = None
    """The password of HTTP Basic."""
    password_file: SecretFile | None = Field(default=None, validate_default=True)
    """A file that holds the password, instead of ``password``; it is read again when it changes."""

    @field_validator("password_file")
    @classmethod
    def _complete(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        check_credentials(value, info)
        return value

    def password_source(self) -> SecretSource:
        """The password, from wherever it comes; None when there is none."""
        return SecretSource(self.password, self.password_file)
