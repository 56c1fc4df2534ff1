"""Cookies: the session of a signed-in person, and the state of a sign-in at the provider.

Both are signed and contain all of their state. Nothing is stored on the server, so a session is valid on each replica
and after a restart.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import cookie_parser
from starlette.responses import Response

from celery_monitor.adapters.web.people import Person, Role
from celery_monitor.adapters.web.signing import Signer
from celery_monitor.ports import SignInAttempt
from celery_monitor.settings.sign_in import CALLBACK
from celery_monitor.settings.web import WebSettings

ATTEMPT_SECONDS: Final = 600.0
"""Time for a person to sign in at the provider."""
_SLOTS: Final = 8
"""Maximum number of concurrent sign-ins of a browser: a restored window loads all of its tabs at once."""
_SESSION: Final = "session"
_ATTEMPT: Final = "sign-in"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sign-in in progress. ``next``: the path that the person requested, from the root of the site."""

    secret: SignInAttempt
    next: str


class Sessions:
    """Creates and reads the cookies of the site at ``web.external_url``."""

    def __init__(self, settings: WebSettings, fleet: str) -> None:
        url = urlsplit(settings.external_url or "")
        self.base = (settings.external_url or "").rstrip("/")
        """The URL of the site without a trailing slash."""
        self.path = url.path.rstrip("/")
        self._lifetime = settings.session_lifetime
        self._secure = url.scheme == "https"
        # Browsers accept these prefixes only with Secure. __Host- requires the path "/", and no other host can set it.
        # __Secure- can be set by other hosts of the domain, which could sign a person in as somebody else.
        whole = self._secure and not self.path
        prefix = "__Host-" if whole else "__Secure-" if self._secure else ""
        self._name = f"{prefix}celery_monitor_session"
        self._attempt_name = f"{prefix}celery_monitor_sign_in_"
        self._attempt_path = "/" if whole else f"{self.path}{CALLBACK}"
        roles = [sorted(settings.viewers), sorted(settings.operators)]
        context = [fleet, self.base, settings.oidc.issuer, settings.oidc.client_id, *roles]
        self._signer = Signer(settings.session_key_source().get, json.dumps(context))

    def begin(self, response: Response, person: Person, now: float) -> None:
        """Sign the person in."""
        signed = self._signer.sign(_SESSION, {"name": person.name, "role": person.role}, now + self._lifetime)
        self._set(response, self._name, signed, self._lifetime, self.path or "/")

    def end(self, response: Response) -> None:
        """Sign the browser out."""
        self._set(response, self._name, "", 0, self.path or "/")

    def person(self, cookies: str, now: float) -> Person | None:
        """The signed-in person according to the header ``Cookie``, or None."""
        content = self._read(_SESSION, cookie_parser(cookies).get(self._name), now)
        match content:
            case {"name": str(name), "role": str(role)} if role in set(Role):
                return Person(name, Role(role), session=True)
        return None

    def attempt(self, response: Response, attempt: Attempt, now: float) -> None:
        """Set the cookie with the state of a sign-in."""
        signed = self._signer.sign(
            _ATTEMPT, {"state": attempt.secret.state, "next": attempt.next}, now + ATTEMPT_SECONDS
        )
        self._set(response, self._slot(attempt.secret.state), signed, ATTEMPT_SECONDS, self._attempt_path)

    def attempted(self, cookies: str, state: str, now: float) -> Attempt | None:
        """The sign-in with this state, if it was started in this browser and not too long ago."""
        content = self._read(_ATTEMPT, cookie_parser(cookies).get(self._slot(state)), now)
        match content:
            case {"state": str(known), "next": str(following)} if secrets.compare_digest(
                known.encode(), state.encode("utf-8", "replace")
            ):
                return Attempt(self.secret_of(state), following)
        return None

    def attempt_ended(self, response: Response, state: str) -> None:
        """Delete the cookie of the sign-in, so that it cannot be used again."""
        self._set(response, self._slot(state), "", 0, self._attempt_path)

    def new_state(self) -> str:
        """A state for a new sign-in. Its first character selects the cookie."""
        return f"{secrets.randbelow(_SLOTS)}{secrets.token_urlsafe(32)}"

    def secret_of(self, state: str) -> SignInAttempt:
        """The state with nonce and verifier, which are derived from it. Raises ValueError without a key."""
        nonce, verifier = (self._signer.derive(purpose, state).hex() for purpose in ("nonce", "verifier"))
        return SignInAttempt(state, nonce, verifier)

    def _slot(self, state: str) -> str:
        return f"{self._attempt_name}{state[:1] if state[:1].isdigit() and state.isascii() else 0}"

    def _read(self, purpose: str, signed: str | None, now: float) -> Mapping[str, Any] | None:
        return None if not signed else self._signer.read(purpose, signed, now)

    def _set(self, response: Response, name: str, value: str, seconds: float, path: str) -> None:
        response.set_cookie(
            name, value, max_age=int(seconds), path=path, secure=self._secure, httponly=True, samesite="lax"
        )
