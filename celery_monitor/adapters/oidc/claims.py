"""Verifies ID tokens (OpenID Connect Core 1.0, 3.1.3.7) and returns their claims."""

from collections.abc import Mapping
from typing import Any, Final

from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from celery_monitor.ports import Identity

ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
"""Asymmetric algorithms only: with HS256, anybody who knows the public key could sign, and with none, everybody."""
LEEWAY_SECONDS: Final = 60
"""Maximum difference of the provider's clock, in seconds."""
MAX_GROUPS: Final = 10_000
_NAMES: Final = ("email", "sub")

_registry: Final = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)


def checked(
    token: str, keys: KeySet, *, issuer: str, client_id: str, nonce: str, access_token: str | None, now: float
) -> Mapping[str, Any]:
    """The verified claims. Raises an error of joserfc, or ValueError, for an invalid token."""
    decoded = jwt.decode(token, keys, registry=_registry)
    claims = CodeIDToken(
        decoded.claims,
        decoded.header,
        {"iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": client_id}},
        {"nonce": nonce, "client_id": client_id, "access_token": access_token},
    )
    claims.validate(now=int(now), leeway=LEEWAY_SECONDS)
    return dict(claims)


def has(claims: Mapping[str, Any], path: str) -> bool:
    """Whether the claim exists."""
    return _at(claims, path) is not None


def identity_of(claims: Mapping[str, Any], *, name: str, groups: str) -> Identity:
    """The person, according to the claims with these names."""
    names = (_at(claims, name), *(claims.get(other) for other in _NAMES))
    groups_claim = _at(claims, groups)
    items = [groups_claim] if isinstance(groups_claim, str) else groups_claim if isinstance(groups_claim, list) else []
    return Identity(
        next(candidate for candidate in names if isinstance(candidate, str) and candidate.strip()),
        frozenset(group for group in items[:MAX_GROUPS] if isinstance(group, str)),
    )


def _at(claims: Mapping[str, Any], path: str) -> object:
    """The claim with this name, otherwise the nested claim if the name has dots."""
    if path in claims:
        return claims[path]
    value: object = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
