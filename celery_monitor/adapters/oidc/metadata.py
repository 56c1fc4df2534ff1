"""The published metadata of a provider: its endpoints (OpenID Connect Discovery 1.0) and its keys (RFC 7517)."""

import math
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet, import_key
from requests import Session

from celery_monitor.adapters.oidc.transport import prepare
from celery_monitor.errors import ProviderUnavailableError

CACHE_SECONDS: Final = 3600.0
"""Seconds after which endpoints and keys are fetched again. If the provider does not answer, the old ones are used."""
MIN_FETCH_INTERVAL: Final = 10.0
"""Minimum seconds between two fetches of keys because of tokens with unknown keys, and after a failed fetch."""


class Metadata:
    """Endpoints and keys of one issuer. Thread-safe. ``monotonic`` is in seconds."""

    def __init__(self, issuer: str, monotonic: Callable[[], float]) -> None:
        self._issuer = issuer
        self._endpoints = _Cached(self._discover, monotonic)
        self._keys = _Cached(self._fetch_keys, monotonic)

    def endpoint(self, name: str) -> str | None:
        """The URL of an endpoint; None if the provider has none."""
        values = self._endpoints.get().get(name)
        return values if isinstance(values, str) and _is_url(values) else None

    def required(self, name: str) -> str:
        """The URL of an endpoint that every provider has."""
        values = self.endpoint(name)
        if values is None:
            raise ProviderUnavailableError(f"its metadata has no {name}: is {self._issuer} an OpenID provider?")
        return values

    def supports(self, name: str, value: str) -> bool | None:
        """Whether a list of the metadata contains this value; None if there is no such list."""
        values = self._endpoints.get().get(name)
        return value in values if isinstance(values, list) else None

    def keys(self, *, newer: bool = False) -> KeySet:
        """The keys that sign ID tokens. ``newer``: the cached ones are not sufficient."""
        return self._keys.get(newer=newer)

    def _discover(self) -> Mapping[str, Any]:
        document = _get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self._issuer:
            raise ProviderUnavailableError(
                f"its metadata contains a different issuer than web.oidc.issuer ({self._issuer}): set it exactly "
                "as the "
                "provider writes it, with or without a slash at the end"
            )
        return document

    def _fetch_keys(self) -> KeySet:
        entries = _get(self.required("jwks_uri")).get("keys")
        keys = [key for key in map(_signing_key, entries if isinstance(entries, list) else ()) if key is not None]
        if not keys:
            raise ProviderUnavailableError("it publishes no key that can be used")
        return KeySet(keys)


def _signing_key(published: object) -> Key | None:
    """A signing key; None for an unreadable key (RFC 7517, section 5) or one with another use."""
    if not isinstance(published, dict) or published.get("use") == "enc":
        return None
    try:
        return import_key(published)
    except (JoseError, ValueError, TypeError):
        return None


T = TypeVar("T")


class _Cached(Generic[T]):
    """Cached data of the provider."""

    def __init__(self, fetch: Callable[[], T], monotonic: Callable[[], float]) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._value: T | None = None
        self._at = -math.inf
        self._fetched_at = -math.inf

    def get(self, *, newer: bool = False) -> T:
        """The cached or newly fetched data. One thread fetches, and the others wait for it."""
        with self._lock:
            now = self._monotonic()
            value = self._value
            if value is not None and (
                now < self._fetched_at + MIN_FETCH_INTERVAL or (not newer and now < self._at + CACHE_SECONDS)
            ):
                return value
            self._fetched_at = now
            try:
                value = self._value = self._fetch()
            except ProviderUnavailableError:
                if value is None or newer:
                    raise
            else:
                self._at = now
            return value


def _get(url: str) -> dict[str, Any]:
    with Session() as session:
        prepare(session)
        response = session.get(url, headers={"accept": "application/json"})
        if not response.ok:
            raise ProviderUnavailableError(f"{url} answers HTTP {response.status_code}")
        document = response.json()
    if not isinstance(document, dict):
        raise ProviderUnavailableError(f"{url} is not a JSON object")
    return document


def _is_url(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in {"http", "https"} and bool(parts.hostname)
