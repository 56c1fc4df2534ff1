"""Sign-in by an OpenID provider."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Identity:
    """Who has signed in at a provider."""

    name: str
    groups: frozenset[str]


@dataclass(frozen=True, slots=True)
class SignInAttempt:
    """What ties an answer of the provider to the browser that asked. All of it is random, or derived from what is."""

    state: str
    nonce: str
    verifier: str
    """Of PKCE (RFC 7636)."""


class IdentityProvider(Protocol):
    """An OpenID provider. Each call may take some seconds, and raises ProviderUnavailableError."""

    def address(self, attempt: SignInAttempt) -> str:
        """Where a browser goes to sign in."""

    def identity(self, attempt: SignInAttempt, *, code: str, issuer: str | None) -> Identity:
        """Who has signed in, by the code that the browser brought back. Raises SignInRefusedError.

        ``issuer``: who the answer says that it is from, where it says so (RFC 9207).
        """
