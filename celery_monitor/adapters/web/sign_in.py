"""Sign-in with an OpenID provider: redirect to the provider, callback, and sign-out."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

import structlog
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from celery_monitor.adapters.web import door
from celery_monitor.adapters.web.access import Access
from celery_monitor.adapters.web.auth_proxy import NO_GROUP
from celery_monitor.adapters.web.basic import Clients
from celery_monitor.adapters.web.destination import SIGN_IN, SIGN_OUT, following
from celery_monitor.adapters.web.origin import OTHER_SITE, of_this_site
from celery_monitor.adapters.web.people import MAX_NAME, Person
from celery_monitor.adapters.web.refused import Refused
from celery_monitor.adapters.web.sessions import Attempt, Sessions
from celery_monitor.core.text import printable
from celery_monitor.errors import ProviderUnavailableError, SignInRefusedError
from celery_monitor.ports import Identity, IdentityProvider
from celery_monitor.settings.sign_in import CALLBACK

THREADS: Final = 4
PROVIDER_SECONDS: Final = 20.0
"""Timeout for all requests to the provider in one sign-in."""
_MAX_PARAMETER: Final = 4096
_NOT_BEGUN: Final = (
    "This sign-in was started in another browser or at another address, or more than ten minutes ago. Open {} and "
    "sign in again."
)

T = TypeVar("T")
_log = structlog.get_logger()


class SignIn:
    """The endpoints of the sign-in. Requests to the provider run in separate threads.

    Clients whose codes the provider rejects are throttled. This is independent of the throttling for wrong passwords,
    because all users behind a proxy may have the same address.
    """

    def __init__(
        self,
        provider: IdentityProvider,
        sessions: Sessions,
        access: Access,
        clients: Clients,
        now: Callable[[], float],
        *,
        external_url: str | None,
    ) -> None:
        self._external_url = external_url
        self._provider = provider
        self._sessions = sessions
        self._access = access
        self._clients = clients
        self._now = now
        self._pool = ThreadPoolExecutor(THREADS, "sign-in")

    def routes(self) -> list[Route]:
        """The routes of the endpoints."""
        return [
            Route(SIGN_IN, self.begin),
            Route(CALLBACK, self.complete),
            Route(SIGN_OUT, self.end, methods=["POST"]),
        ]

    def stop(self) -> None:
        """Drop requests that have not started."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def begin(self, request: Request) -> Response:
        """Redirect to the provider and remember the requested page."""
        try:
            attempt = Attempt(self._sessions.secret_of(self._sessions.new_state()), following(request))
            address = await self._ask(partial(self._provider.address, attempt.secret))
        except ProviderUnavailableError as exc:
            return self._unavailable(request, exc)
        except ValueError:  # the file with the key was removed
            return self._unavailable(request, ProviderUnavailableError("the key that signs sessions is missing"))
        response = RedirectResponse(address, 302)
        self._sessions.attempt(response, attempt, self._now())
        return response

    async def complete(self, request: Request) -> Response:
        """Handle the callback from the provider, with a code or an error."""
        query = {name: value[:_MAX_PARAMETER] for name, value in request.query_params.items()}
        state = query.get("state", "")
        attempt = self._sessions.attempted(request.headers.get("cookie", ""), state, self._now())
        if attempt is None:
            # Not counted as a failure of the client: nothing can be guessed here, and users behind a proxy share it.
            message = _NOT_BEGUN.format(self._sessions.base or "the page")
            return self._refuse(request, Refused(400, message, reason="answer", retry=True))
        try:
            response = await self._signed_in(request, attempt, query)
        except ProviderUnavailableError as exc:
            response = self._unavailable(request, exc)
        except SignInRefusedError as exc:
            _log.warning("Sign-in failed", client=self._clients.address_of(request.scope), problem=str(exc))
            message = f"The sign-in failed: {exc}. Sign in again."
            response = self._refuse(request, Refused(400, message, reason="answer", retry=True))
        self._sessions.attempt_ended(response, state)
        return response

    async def _signed_in(self, request: Request, attempt: Attempt, query: dict[str, str]) -> Response:
        if "error" in query:
            reason = printable(query.get("error_description") or query["error"], MAX_NAME)
            raise SignInRefusedError(f"the provider says “{reason}”")
        if (throttled := self._clients.wait(request.scope)) is not None:
            return self._refuse(request, throttled)
        code, issuer = query.get("code", ""), query.get("iss")
        identity: Identity
        try:
            identity = await self._ask(partial(self._provider.identity, attempt.secret, code=code, issuer=issuer))
        except SignInRefusedError:
            self._clients.failed(request.scope)
            raise
        name = printable(identity.name, MAX_NAME)
        role = self._access.roles.for_groups(identity.groups)
        if role is None:
            _log.warning("Sign-in without a role", user=name, client=self._clients.address_of(request.scope))
            return self._refuse(request, Refused(403, NO_GROUP.format(name), reason="group", retry=True))
        # The site's own URL and a path that begins with a slash, so it cannot lead to another site.
        response = RedirectResponse(f"{self._sessions.base}{attempt.next}", 303)
        self._sessions.begin(response, Person(name, role), self._now())
        _log.info("Signed in", user=name, role=str(role), client=self._clients.address_of(request.scope))
        return response

    async def end(self, request: Request) -> Response:
        """Sign out here, but not at the provider, because other sites may use that session."""
        if not of_this_site(request.headers, self._external_url, form=True):
            return self._refuse(request, Refused(403, f"Nothing was changed: {OTHER_SITE}."))
        message = "You are signed out here. If you are still signed in at the provider, one click signs you in again."
        response = door.page(request, "Signed out", message)
        self._sessions.end(response)
        return response

    async def _ask(self, call: Callable[[], T]) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        try:
            return await asyncio.wait_for(future, PROVIDER_SECONDS)
        except TimeoutError as exc:
            raise ProviderUnavailableError(f"no answer within {PROVIDER_SECONDS:.0f} s") from exc

    def _unavailable(self, request: Request, exc: ProviderUnavailableError) -> Response:
        _log.warning("The sign-in provider is unavailable", problem=str(exc))
        message = (
            f"The sign-in provider is unavailable: {exc}. Users who are signed in stay signed in. Try again in a "
            "moment."
        )
        return self._refuse(request, Refused(503, message, {"retry-after": "10"}, reason="provider", retry=True))

    def _refuse(self, request: Request, denied: Refused) -> Response:
        if denied.reason is not None:
            self._access.count(denied.reason)
        return door.refusal(request, denied)
