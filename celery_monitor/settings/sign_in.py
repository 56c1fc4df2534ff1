"""Settings of sign-in and permissions: by an OpenID provider, or by a proxy in front of the monitor."""

from collections.abc import Iterator
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from celery_monitor.errors import Problem
from celery_monitor.settings.network import Network, is_loopback
from celery_monitor.settings.secret import Secret, SecretFile, SecretSource, checked_by, file_checked_by
from celery_monitor.settings.section import BaseUrl, Section, Text, check_one_source

if TYPE_CHECKING:
    from celery_monitor.settings.web import WebSettings

CALLBACK: Final = "/sign-in/callback"
"""Path below ``web.external_url`` to which the provider redirects users."""
_WELL_KNOWN: Final = "/.well-known/"
_MIN_KEY: Final = 32
"""Minimum length of a key that signs sessions."""
_OTHER_HEADERS: Final = frozenset({
    "authorization", "connection", "content-length", "content-type", "cookie", "forwarded", "host", "origin", "referer",
    "transfer-encoding", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
})  # fmt: skip
"""Headers that never contain a user name, or have another meaning."""
_HEADER: Final = r"^[A-Za-z0-9-]{1,100}$"


def _issuer(value: str) -> str:
    if _WELL_KNOWN in value:
        raise ValueError("must be the issuer itself, without /.well-known/openid-configuration")
    return value


def _header(value: str) -> str:
    if value.lower() in _OTHER_HEADERS:
        raise ValueError("is a header with another meaning; use one that only the proxy sets, like X-Forwarded-User")
    return value


def _narrow(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if network.prefixlen == 0:
        raise ValueError("would let everybody sign in as anybody: list only the addresses of the proxy")
    return network


def check_key(text: str) -> None:
    """Raise ValueError for a key that can be guessed."""
    if len(text) < _MIN_KEY:
        raise ValueError(f"must have at least {_MIN_KEY} characters: create one with openssl rand -base64 32")


Group = Annotated[str, Field(min_length=1, max_length=255)]
SessionKey = Annotated[Secret, checked_by(check_key)]
SessionKeyFile = Annotated[SecretFile, file_checked_by(check_key)]
HeaderName = Annotated[str, Field(pattern=_HEADER), AfterValidator(_header)]


class OidcSettings(Section):
    """Sign-in by an OpenID provider (OpenID Connect, authorization code flow with PKCE). Off without ``issuer``."""

    issuer: Annotated[BaseUrl, AfterValidator(_issuer)] | None = None
    """The provider's issuer URL, exactly as the provider writes it. ``<issuer>/.well-known/openid-configuration`` must
    exist. Register ``<web.external_url>/sign-in/callback`` as the redirect URI at the provider.
    """
    client_id: Text | None = None
    """The client ID that the provider has given to this monitor."""
    client_secret: Secret | None = None
    """The client secret. Leave it unset for a public client, which PKCE protects. Without a secret, or with one of
    fewer than 32 characters, ``web.session_key`` is required.
    """
    client_secret_file: SecretFile | None = Field(default=None, validate_default=True)
    """A file that contains the client secret, instead of ``client_secret``. It is reloaded when it changes."""
    scopes: tuple[Text, ...] = ("openid", "profile", "email")
    """The scopes that are requested. Some providers send groups only with a scope ``groups``."""
    name_claim: Text = "preferred_username"
    """The claim with the name that is shown, and stored with silences. If it is missing: ``email``, then ``sub``."""
    groups_claim: Text = "groups"
    """The claim with the groups, in the ID token or in the userinfo response: a list, or one name. Dots separate
    nested claims: ``realm_access.roles``.
    """

    @field_validator("client_secret_file")
    @classmethod
    def _one_secret(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return check_one_source(value, info)

    @field_validator("scopes")
    @classmethod
    def _with_openid(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in value:
            raise ValueError("must contain openid: without it, a provider sends no ID token")
        return value

    def secret_source(self) -> SecretSource:
        """The source of the client secret."""
        return SecretSource(self.client_secret, self.client_secret_file)


class AuthProxySettings(Section):
    """Sign-in by a proxy that passes the user name in a header, like oauth2-proxy. Off without ``addresses``."""

    addresses: tuple[Annotated[Network, AfterValidator(_narrow)], ...] = ()
    """IP addresses or networks of the proxy. The headers of all other clients are ignored and counted. Whoever can
    connect from these addresses can sign in as anybody.
    """
    user_header: HeaderName = "X-Forwarded-User"
    """The header with the user name."""
    groups_header: HeaderName = "X-Forwarded-Groups"
    """The header with the user's groups, in one line."""
    groups_separator: Literal[",", ";", "|", " "] = ","
    """What separates two groups in ``groups_header``."""

    @field_validator("groups_header")
    @classmethod
    def _another(cls, value: str, info: ValidationInfo) -> str:
        if value.lower() == str(info.data.get("user_header", "")).lower():
            raise ValueError("must not be the same header as user_header")
        return value


def problems_of_sign_in(web: "WebSettings") -> Iterator[Problem]:
    """Settings that cannot work together, each with its field and what to do."""
    oidc, proxied = web.oidc, bool(web.auth_proxy.addresses)
    signed = oidc.client_secret is not None or oidc.client_secret_file is not None
    if web.session_key is not None and web.session_key_file is not None:
        yield Problem("web.session_key_file", "set either session_key or session_key_file, not both")
    if oidc.issuer is None and (signed or oidc.client_id is not None):
        yield Problem("web.oidc.issuer", "must be set with client_id and client_secret")
    if oidc.issuer is not None:
        if oidc.client_id is None:
            yield Problem("web.oidc.client_id", "must be set with issuer: ask the provider's administrator for it")
        if web.external_url is None:
            message = f"must be set with web.oidc.issuer: the provider sends people back to <external_url>{CALLBACK}"
            yield Problem("web.external_url", message)
        yield from _problems_of_key(web, signed=signed)
        if find_spec("authlib") is None:
            message = "Authlib is not installed: pip install 'celery-monitor[oidc]' (the container image has it)"
            yield Problem("web.oidc.issuer", message)
    if (oidc.issuer is not None or proxied) and not (web.viewers or web.operators):
        message = 'name the groups that may see the page, here or in web.operators; ["*"] for everybody who can sign in'
        yield Problem("web.viewers", message)


def _problems_of_key(web: "WebSettings", *, signed: bool) -> Iterator[Problem]:
    """Check the key that signs sessions. Anyone can request a signed cookie and try keys on it offline."""
    if web.session_key is not None or web.session_key_file is not None:
        return
    if not signed:
        message = "is required without client_secret: create one with openssl rand -base64 32"
        yield Problem("web.session_key", message)
    elif len(web.oidc.secret_source().get() or "") < _MIN_KEY:
        message = (
            f"must be set, because the client secret has fewer than {_MIN_KEY} characters and could be guessed from a "
            "cookie that it signs: create one with openssl rand -base64 32"
        )
        yield Problem("web.session_key", message)


def warnings_of_sign_in(web: "WebSettings") -> Iterator[Problem]:
    """Settings that work but are probably not intended."""
    oidc = web.oidc
    if _behind_unknown_proxy(web):
        text = (
            "is not set, though web.external_url is https, which only a proxy in front of the monitor can serve: all "
            "people behind it are throttled together when one of them fails to sign in; list the proxy's addresses"
        )
        yield Problem("web.trusted_proxies", text)
    if oidc.issuer is None and not web.auth_proxy.addresses and (web.viewers or web.operators):
        field = "viewers" if web.viewers else "operators"
        yield Problem(f"web.{field}", "has no effect without web.oidc.issuer or web.auth_proxy.addresses")
    if oidc.issuer is None:
        return
    if _in_clear(oidc.issuer):
        message = "is not https: anyone on the network path to the provider can sign in as anybody"
        yield Problem("web.oidc.issuer", message)
    if web.external_url is not None and _in_clear(web.external_url):
        message = "is not https: anyone on the network path can take over the session of a person who has signed in"
        yield Problem("web.external_url", message)


def _behind_unknown_proxy(web: "WebSettings") -> bool:
    """Whether users sign in through an unknown proxy: there must be one, as the monitor does not serve https."""
    signs_in = web.username is not None or web.oidc.issuer is not None
    https = web.external_url is not None and web.external_url.startswith("https:")
    return signs_in and https and not web.trusted_proxies


def _in_clear(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")
