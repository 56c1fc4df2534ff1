"""Settings of the HTTP server for metrics, probes, web page and API."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from celery_monitor.settings.network import Network
from celery_monitor.settings.secret import Secret, SecretFile, SecretSource
from celery_monitor.settings.section import MAX_PORT, BaseUrl, Section, Text, check_credentials
from celery_monitor.settings.sign_in import AuthProxySettings, Group, OidcSettings, SessionKey, SessionKeyFile
from celery_monitor.settings.units import HOUR, duration

_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")
_LIKE_IPV4: Final = re.compile(r"[0-9.]+")
_NO_HOST: Final = (
    "must be an IP address or a host name, without scheme and port: :: for all addresses, 0.0.0.0 for "
    "all IPv4 addresses"
)


def _host(value: str) -> str:
    """Check the host and remove the brackets of an IPv6 address."""
    host = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != value or not _NAME.fullmatch(host) or _LIKE_IPV4.fullmatch(host):
            raise ValueError(_NO_HOST) from None
    return host


def _without_colon(value: object) -> object:
    if isinstance(value, str) and ":" in value:
        raise ValueError("must not contain a colon, which ends the user name in HTTP Basic authentication")
    return value


class WebSettings(Section):
    """The web server's address and access control."""

    host: Annotated[Text, AfterValidator(_host)] = "::"
    """The IP address or host name to listen on. ``::`` means all IPv4 and IPv6 addresses of the machine,
    ``0.0.0.0`` all IPv4 addresses.
    """
    port: int = Field(default=9808, ge=0, le=MAX_PORT)
    """The port to listen on. 0 selects a free port, which is logged."""
    external_url: BaseUrl | None = None
    """The base URL of the page for links in incidents and mails. If unset, there are no links."""
    notice: Annotated[Text, Field(max_length=300)] | None = None
    """A sentence at the top of every page, such as ``Staging`` or ``Demonstration``. If unset, there is none."""
    username: Annotated[Text, Field(pattern="^[^:]*$"), BeforeValidator(_without_colon)] | None = None
    """The user name for HTTP Basic authentication, required on everything except ``/metrics`` and the probes.
    Requires a password.
    """
    password: Secret | None = None
    """The password for HTTP Basic authentication."""
    password_file: SecretFile | None = Field(default=None, validate_default=True)
    """A file that contains the password, instead of ``password``. It is reloaded when it changes."""
    trusted_proxies: tuple[Network, ...] = ()
    """IP addresses or networks (``10.0.0.0/8``) of proxies whose ``X-Forwarded-For`` is trusted to identify the
    client. Clients with too many failed sign-ins are throttled; without this setting, all clients behind a proxy
    are throttled together.
    """
    viewers: tuple[Group, ...] = ()
    """Groups whose members may see the page and read the API, when they sign in by ``oidc`` or ``auth_proxy``. ``*`` is
    everybody who can sign in.
    """
    operators: tuple[Group, ...] = ()
    """Groups whose members may also add and end silences. ``*`` is everybody who can sign in. The
    user of ``username`` is an operator.
    """
    session_lifetime: Annotated[float, duration("5m", "30d")] = 8 * HOUR
    """How long a sign-in by ``oidc`` lasts. After that, the provider is asked again, also for the groups; users who are
    still signed in there do not have to sign in again.
    """
    session_key: SessionKey | None = None
    """The key that signs the sessions of ``oidc``, at least 32 characters, the same on all replicas. If unset, it is
    derived from the client secret, which must then have at least 32 characters. Changing the key signs everybody out.
    """
    session_key_file: SessionKeyFile | None = None
    """A file that contains the key, instead of ``session_key``. It is reloaded when it changes."""
    oidc: OidcSettings = OidcSettings()
    auth_proxy: AuthProxySettings = AuthProxySettings()

    @field_validator("password_file")
    @classmethod
    def _complete(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        check_credentials(value, info)
        return value

    def password_source(self) -> SecretSource:
        """The source of the password."""
        return SecretSource(self.password, self.password_file)

    def session_key_source(self) -> SecretSource:
        """The source of the key that signs sessions, by default the client secret."""
        if self.session_key is None and self.session_key_file is None:
            return self.oidc.secret_source()
        return SecretSource(self.session_key, self.session_key_file)
