"""The authorization code flow with PKCE (OpenID Connect Core 1.0, RFC 7636, RFC 9207)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from urllib3.exceptions import HTTPError

from celery_monitor import network
from celery_monitor.adapters.oidc.claims import checked, has, identity_of
from celery_monitor.adapters.oidc.metadata import Metadata
from celery_monitor.adapters.oidc.transport import prepare
from celery_monitor.core.text import printable
from celery_monitor.errors import MonitorError, ProviderUnavailableError, SignInRefusedError
from celery_monitor.ports import Clock, Identity, SignInAttempt
from celery_monitor.settings.sign_in import CALLBACK
from celery_monitor.settings.web import WebSettings

_TERMS: Final = network.ServerTerms(
    address="that HTTPS to it is allowed, or set HTTPS_PROXY or web.oidc.issuer",
    protocol="allow HTTPS to it, or set HTTPS_PROXY or web.oidc.issuer (https:// if and only if the port uses TLS)",
    trust="set REQUESTS_CA_BUNDLE to the CA certificates that the provider's certificate is signed with",
)
T = TypeVar("T")

_MAX_TEXT: Final = 200
_CONFIGURED_WRONG: Final = frozenset({"invalid_client", "unauthorized_client", "redirect_uri_mismatch"})
_CODES: Final = _CONFIGURED_WRONG | {
    "access_denied", "interaction_required", "invalid_grant", "invalid_request", "invalid_scope", "server_error",
    "temporarily_unavailable", "unsupported_grant_type",
}  # fmt: skip
"""Errors that are shown. Any other text may repeat the request, which contains the client secret and the code."""


class OidcProvider:
    """See ports.IdentityProvider. The constructor does no I/O."""

    def __init__(self, settings: WebSettings, clock: Clock) -> None:
        oidc = settings.oidc
        if oidc.issuer is None or oidc.client_id is None or settings.external_url is None:
            raise ValueError("issuer, client_id and external_url are checked when the settings are loaded")
        self._issuer, self._client_id = oidc.issuer, oidc.client_id
        self._settings = oidc
        self._back = f"{settings.external_url.rstrip('/')}{CALLBACK}"
        self._secret = oidc.secret_source()
        self._clock = clock
        self._metadata = Metadata(oidc.issuer, clock.monotonic)

    def address(self, attempt: SignInAttempt) -> str:
        """See ports.IdentityProvider."""
        return _foreign(lambda: self._address(attempt))

    def identity(self, attempt: SignInAttempt, *, code: str, issuer: str | None) -> Identity:
        """See ports.IdentityProvider."""
        return _foreign(lambda: self._identity(attempt, code, issuer))

    def _address(self, attempt: SignInAttempt) -> str:
        with self._client() as client:
            client.code_challenge_method = "S256"
            url, _ = client.create_authorization_url(
                self._metadata.required("authorization_endpoint"),
                state=attempt.state,
                nonce=attempt.nonce,
                code_verifier=attempt.verifier,
            )
        return str(url)

    def _identity(self, attempt: SignInAttempt, code: str, issuer: str | None) -> Identity:
        if issuer is not None and issuer != self._issuer:
            raise SignInRefusedError("the response is from another provider")
        if not code:
            raise SignInRefusedError("the response contains no code")
        with self._client() as client:
            token = client.fetch_token(
                self._metadata.required("token_endpoint"),
                grant_type="authorization_code",
                code=code,
                code_verifier=attempt.verifier,
            )
            claims = self._claims(token, attempt.nonce)
            if not has(claims, self._settings.groups_claim):
                claims = {**self._userinfo(client, claims), **claims}
        return identity_of(claims, name=self._settings.name_claim, groups=self._settings.groups_claim)

    def _claims(self, token: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        id_token, access_token = token.get("id_token"), token.get("access_token")
        if not isinstance(id_token, str):
            raise SignInRefusedError("the provider sent no ID token")
        check = partial(
            checked,
            id_token,
            issuer=self._issuer,
            client_id=self._client_id,
            nonce=nonce,
            access_token=access_token if isinstance(access_token, str) else None,
            now=self._clock.now(),
        )
        try:
            return check(self._metadata.keys())
        except (InvalidKeyIdError, BadSignatureError):
            # Providers change their keys.
            return check(self._metadata.keys(newer=True))

    def _userinfo(self, client: OAuth2Session, claims: Mapping[str, Any]) -> Mapping[str, Any]:
        """More claims, if the provider has them. Those of another person are refused (OpenID Connect Core, 5.3.2)."""
        url = self._metadata.endpoint("userinfo_endpoint")
        if url is None or not client.token:
            return {}
        response = client.get(url, headers={"accept": "application/json"})
        if not response.ok:
            raise ProviderUnavailableError(f"its userinfo endpoint answers HTTP {response.status_code}")
        answer = response.json()
        if not isinstance(answer, dict) or answer.get("sub") != claims["sub"]:
            raise SignInRefusedError("the userinfo response is about another user")
        return answer

    def _client(self) -> OAuth2Session:
        secret = self._secret.get()
        method = "none" if secret is None else "client_secret_basic"
        methods = "token_endpoint_auth_methods_supported"
        if secret is not None and self._metadata.supports(methods, method) is False:
            method = "client_secret_post"
        client = OAuth2Session(
            self._client_id,
            secret,
            token_endpoint_auth_method=method,
            scope=" ".join(self._settings.scopes),
            redirect_uri=self._back,
        )
        prepare(client)
        return client


def _foreign(call: Callable[[], T]) -> T:
    """Converts errors of libraries into ours; no text contains a code, a token or the secret."""
    try:
        return call()
    except MonitorError:
        raise
    except OAuthError as exc:
        code = str(exc.error)  # JSON of any type
        reason = code if code in _CODES else "an error code of its own"
        if code in _CONFIGURED_WRONG:
            raise ProviderUnavailableError(
                f"it refuses this monitor ({reason}): check web.oidc.client_id and the client secret"
            ) from exc
        raise SignInRefusedError(f"the provider refuses the code ({reason})") from exc
    except JoseError as exc:
        raise SignInRefusedError(f"the ID token is not valid ({printable(str(exc), _MAX_TEXT)})") from exc
    except (OSError, HTTPError) as exc:
        fault = network.fault_of(exc)
        reason = network.explain(exc) or type(exc).__name__
        advice = "" if fault is None else f"; {network.remedy(fault, _TERMS)}"
        raise ProviderUnavailableError(f"it does not answer ({reason}){advice}") from exc
    except Exception as exc:  # the exceptions for a foreign server's bytes cannot be listed
        raise ProviderUnavailableError(f"its answer cannot be read ({type(exc).__name__})") from exc
