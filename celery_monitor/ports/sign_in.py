"""Sign-in with an OpenID provider."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Identity:
    """The person who has signed in at a provider."""

    name: str
    groups: frozenset[str]


@dataclass(frozen=True, slots=True)
class SignInAttempt:
    """Binds the provider's answer to the browser that started the sign-in. Random values, or derived from such."""

    state: str
    nonce: str
    verifier: str
    """The code verifier of PKCE (RFC 7636)."""


class IdentityProvider(Protocol):
    """An OpenID provider. Each call may take some seconds, and may raise ProviderUnavailableError."""

    def address(self, attempt: SignInAttempt) -> str:
        """The URL to which the browser is sent to sign in."""

    def identity(self, attempt: SignInAttempt, *, code: str, issuer: str | None) -> Identity:
        """The identity for the code that the browser brought back. Raises SignInRefusedError.

        ``issuer``: the ``iss`` parameter of the answer, if it has one (RFC 9207).
        """
