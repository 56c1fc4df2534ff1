"""The HTTP server of metrics, probes, page and API."""

import ipaddress
import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator, field_validator

from celery_monitor.settings.secret import Secret, SecretFile, SecretSource
from celery_monitor.settings.section import MAX_PORT, HttpUrl, Section, Text, check_credentials

_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")
_LIKE_IPV4: Final = re.compile(r"[0-9.]+")
_NO_HOST: Final = (
    "must be an IP address or a host name, without scheme and port: :: for all addresses, 0.0.0.0 for "
    "all IPv4 addresses"
)


def _host(value: str) -> str:
    """Without the brackets that an IPv6 address has in URLs."""
    host = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != value or not _NAME.fullmatch(host) or _LIKE_IPV4.fullmatch(host):
            raise ValueError(_NO_HOST) from None
    return host


def _network(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        if not isinstance(value, str):
            raise ValueError  # noqa: TRY301, TRY004  # Python takes numbers for addresses
        return handler(value)
    except ValueError:
        raise ValueError("must be an IP address or a network, like 10.1.2.3 or 10.0.0.0/8") from None


class WebSettings(Section):
    """Where the server listens, and who may look."""

    host: Annotated[Text, AfterValidator(_host)] = "::"
    """The address to listen on, or a name of this machine. ``::`` is all addresses, IPv4 and IPv6 as far as the machine
    has them, because Prometheus and probes come from other hosts; ``0.0.0.0`` is all of IPv4."""
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
    trusted_proxies: tuple[Annotated[IPv4Network | IPv6Network, WrapValidator(_network)], ...] = ()
    """Addresses or networks (``10.0.0.0/8``) of proxies in front of the page, whose ``X-Forwarded-For`` tells who the
    client is. Whose sign-ins fail too often has to wait: without this, all who come through a proxy wait together."""

    @field_validator("password_file")
    @classmethod
    def _complete(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        check_credentials(value, info)
        return value

    def password_source(self) -> SecretSource:
        """The password, from wherever it comes; None when there is none."""
        return SecretSource(self.password, self.password_file)
