"""Access control: tries the ways to sign in, in order."""

from collections.abc import Callable, Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from celery_monitor.adapters.web.audience import OPEN_PATHS, for_program
from celery_monitor.adapters.web.auth_proxy import AuthProxy
from celery_monitor.adapters.web.basic import CHALLENGE, Basic, Clients
from celery_monitor.adapters.web.destination import SIGN_IN, SIGN_OUT
from celery_monitor.adapters.web.people import Person, Roles
from celery_monitor.adapters.web.refused import REASONS, Refused, RefusedReason
from celery_monitor.adapters.web.sessions import Sessions
from celery_monitor.settings.sign_in import CALLBACK
from celery_monitor.settings.web import WebSettings

_DOORS: Final = frozenset({SIGN_IN, CALLBACK, SIGN_OUT})


class Access:
    """Decides about requests. If no way to sign in is configured, everybody may read everything."""

    def __init__(self, settings: WebSettings, sessions: Sessions, clients: Clients, now: Callable[[], float]) -> None:
        self._sessions = sessions
        self._now = now
        self._refused: dict[str, int] = {str(reason): 0 for reason in REASONS}
        self.roles = Roles(settings.viewers, settings.operators)
        self._proxy = AuthProxy(settings.auth_proxy, self.roles) if settings.auth_proxy.addresses else None
        password = settings.password_source().get
        self._basic = Basic(settings.username, password, clients) if settings.username is not None else None
        self.oidc = settings.oidc.issuer is not None
        self.open = self._proxy is None and self._basic is None and not self.oidc

    @property
    def denials(self) -> Mapping[str, int]:
        """Number of refused requests by reason."""
        return {**self._refused, "header": self._proxy.ignored if self._proxy is not None else 0}

    @property
    def schemes(self) -> tuple[str, ...]:
        """The security schemes of the API's description; empty if no sign-in is required."""
        ways = {"password": self._basic is not None, "session": self.oidc, "proxy": self._proxy is not None}
        return tuple(name for name, configured in ways.items() if configured)

    def count(self, reason: RefusedReason) -> None:
        """Count a failed sign-in."""
        self._refused[reason] += 1

    def person(self, scope: Scope) -> Person | Refused | None:
        """The person who makes a request, or the refusal; None if the path needs no sign-in."""
        path = scope["path"]
        if self.open or path in OPEN_PATHS or (self.oidc and path in _DOORS):
            return None
        person = self._authenticate(scope, Headers(scope=scope))
        if person is None:
            return self._nobody(path)
        if isinstance(person, Refused) and person.reason is not None:
            self.count(person.reason)
        return person

    def _authenticate(self, scope: Scope, headers: Headers) -> Person | Refused | None:
        """The person or the refusal; None without credentials. The proxy first, as it may also send a Basic header."""
        person = None if self._proxy is None else self._proxy.person(scope, headers)
        if person is not None:
            return person
        authorization = headers.get("authorization", "")
        if self._basic is not None and authorization:
            return self._basic.person(scope, authorization)
        if self.oidc and (cookies := headers.get("cookie")):
            return self._sessions.person(cookies, self._now())
        return None

    def _nobody(self, path: str) -> Refused:
        # If users sign in with the provider, the browser must not ask for a password.
        headers = CHALLENGE if self._basic is not None and (for_program(path) or not self.oidc) else {}
        if self.oidc:
            return Refused(401, "Sign in to see this page.", headers, retry=True)
        if self._basic is not None:
            message = (
                "HTTP Basic authentication required"
                if for_program(path)
                else "A user name and a password are required."
            )
            return Refused(401, message, headers)
        return Refused(401, "Sign in through the proxy: open this page at the proxy's address.")
