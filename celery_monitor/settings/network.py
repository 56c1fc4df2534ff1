"""IP addresses and networks in settings."""

import ipaddress
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import ValidatorFunctionWrapHandler, WrapValidator


def _network(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        if not isinstance(value, str):
            raise ValueError  # noqa: TRY301, TRY004  # Python takes numbers for addresses
        return handler(value)
    except ValueError:
        raise ValueError("must be an IP address or a network, like 10.1.2.3 or 10.0.0.0/8") from None


Network = Annotated[IPv4Network | IPv6Network, WrapValidator(_network)]


def is_loopback(host: str) -> bool:
    """Whether the host is a loopback name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
