"""Settings of the daily mail."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from celery_monitor.settings import email_address
from celery_monitor.settings.cron import Cron
from celery_monitor.settings.secret import Secret, SecretFile, SecretSource
from celery_monitor.settings.section import MAX_PORT, FieldError, Section, Text, TimeZone, check_credentials


def _address(value: str) -> str:
    email_address.parse(value)
    return value


def _hello(value: str) -> str:
    if value.startswith("[") and value.endswith("]"):
        email_address.parse(f"hello@{value}")
        return value
    try:
        return email_address.ascii_domain(value)
    except ValueError:
        raise ValueError("must be a host name like monitor.example.com, or an address like [192.0.2.1]") from None


Address = Annotated[Text, AfterValidator(_address)]


class EmailSettings(Section):
    """The daily mail and its SMTP server."""

    host: Text = "localhost"
    """The SMTP server."""
    port: int = Field(default=587, ge=1, le=MAX_PORT)
    """The port of the SMTP server: usually 587 with starttls, 465 with tls, 25 with none."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """``starttls`` and ``tls`` verify the server's certificate. ``none`` sends everything in clear text."""
    hello: Annotated[Text, AfterValidator(_hello)] | None = None
    """The host name in EHLO, such as ``monitor.example.com``. Servers may refuse a name without a dot or one that
    is not in DNS. Default: this host's name if it has a dot, otherwise the domain of ``from``.
    """
    username: Text | None = None
    """The user name for the SMTP server. Unset: no login."""
    password: Secret | None = None
    """The password for the SMTP server."""
    password_file: SecretFile | None = Field(default=None, validate_default=True)
    """A file that contains the password, instead of ``password``. It is reloaded when it changes."""
    from_: Address | None = Field(default=None, alias="from")
    """The sender of the mail, as ``ops@example.com`` or ``Shop monitor <ops@example.com>``."""
    to: tuple[Address, ...] = ()
    """The recipients. If empty, no mail is sent. Duplicates receive one mail."""
    schedule: Cron = "0 8 * * *"
    """When the mail is sent, as a cron expression (minute hour day month weekday) in ``timezone``."""
    timezone: TimeZone = "UTC"
    """The time zone of the schedule and of the reported day."""
    send_when_quiet: bool = True
    """Whether to send the mail for a day without failures. It shows that the monitor is alive."""

    @field_validator("password_file")
    @classmethod
    def _complete(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        check_credentials(value, info)
        return value

    @field_validator("to")
    @classmethod
    def _has_sender(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if value and "from_" in info.data and info.data["from_"] is None:
            raise FieldError("from", "must be set if email.to is set")
        once: dict[str, str] = {}
        for address in value:
            once.setdefault(email_address.parse(address).identity, address)
        return tuple(once.values())

    def password_source(self) -> SecretSource:
        """The source of the password."""
        return SecretSource(self.password, self.password_file)
