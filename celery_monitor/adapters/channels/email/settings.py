"""An entry of ``channels`` of type email."""

from typing import Literal

from pydantic import Field, field_validator

from celery_monitor.settings import email_address
from celery_monitor.settings.channels import ChannelSettings
from celery_monitor.settings.email import Address


class EmailEntry(ChannelSettings):
    """Mails about incidents, with the server and the sender of the section ``email``."""

    type: Literal["email"]
    """A mail when an incident opens, and one when it resolves."""
    to: tuple[Address, ...] = Field(min_length=1)
    """The recipients. Duplicates receive one mail."""
    rate_limit: int = Field(default=30, ge=1)
    """Maximum number of mails per minute."""

    @field_validator("to")
    @classmethod
    def _unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        once: dict[str, str] = {}
        for address in value:
            once.setdefault(email_address.parse(address).identity, address)
        return tuple(once.values())
