"""An OpenID provider on a loopback port, made of Authlib's server: it checks client, redirect URI, PKCE and codes.

Whoever comes is signed in as ``person``, at once. A test changes what it says: ``claims`` go into the next ID tokens,
``sign`` makes another token of them, ``answers`` are given instead of its own.
"""

import json
import secrets
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Error, OAuth2Request, grants
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core.grants import OpenIDCode
from authlib.oidc.core.util import create_half_hash
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from tests.servers.ports import free_port

Key = ECKey | RSAKey
CLIENT_ID, SECRET = "celery-monitor", "the-client-secret-of-the-tests"
Claims = dict[str, Any]


def new_key(kind: str = "EC") -> Key:
    """A key with a new ID."""
    made = ECKey.generate_key("P-256") if kind == "EC" else RSAKey.generate_key(2048)
    made.ensure_kid()
    return made


def algorithm_of(key: Key) -> str:
    """The algorithm of a key's signatures."""
    return "ES256" if isinstance(key, ECKey) else "RS256"


@dataclass
class Provider:
    """See the module's docstring."""

    now: Callable[[], float]
    back: str = ""
    """The redirect URI that is registered."""
    secret: str | None = SECRET
    person: Claims = field(default_factory=lambda: {"sub": "u-1", "preferred_username": "anna", "groups": ["ops"]})
    claims: Claims = field(default_factory=dict)
    userinfo: Claims | None = None
    sign: Callable[["Provider", Claims], str] | None = None
    keys: list[Key] = field(default_factory=lambda: [new_key()])
    """The first one signs; all of them are published."""
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """By the path."""
    asked: list[str] = field(default_factory=list)
    """Paths of requests."""
    port: int = field(default_factory=free_port)

    def __enter__(self) -> Self:
        """Listen."""
        self._codes: dict[str, _Code] = {}
        self._oauth = _oauth(self)
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), partial(_Handler, self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="openid")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)

    @property
    def issuer(self) -> str:
        """The issuer."""
        return f"http://127.0.0.1:{self.port}"

    def metadata(self) -> Claims:
        """The published metadata."""
        paths = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}
        if self.userinfo is not None:
            paths["userinfo_endpoint"] = "userinfo"
        return {"issuer": self.issuer} | {name: f"{self.issuer}/{path}" for name, path in paths.items()}

    def id_token(self, claims: Claims, key: Key | None = None, **header: str) -> str:
        """A signed token."""
        signing = key or self.keys[0]
        algorithm = algorithm_of(signing)
        return jwt.encode({"alg": algorithm, "kid": signing.kid or "", **header}, claims, signing, [algorithm])

    def token_of(self, code: "_Code", access_token: str) -> str:
        """The ID token for a code."""
        now = int(self.now())
        half = create_half_hash(access_token, algorithm_of(self.keys[0]))
        claims = {
            "iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": code.nonce,
            "at_hash": (half or b"").decode(), **self.person, **self.claims,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        return self.id_token(claims) if self.sign is None else self.sign(self, claims)

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: str) -> tuple[int, Any, dict[str, str]]:
        """The answer to a request: status, JSON, and headers."""
        place, query = urlsplit(path).path, urlsplit(path).query
        self.asked.append(place)
        if place in self.answers:
            status, raw = self.answers[place]
            return status, raw, {"location": "https://elsewhere.example.com/"} if status == 302 else {}
        documents: dict[str, Callable[[], Claims | None]] = {
            "/.well-known/openid-configuration": self.metadata,
            "/jwks": lambda: {"keys": [key.as_dict(private=False) for key in self.keys]},
            "/userinfo": lambda: self.userinfo,
        }
        if place in documents:
            return 200, documents[place](), {}
        if place == "/authorize":
            return self._authorize(_request(method, path, headers, query))
        if place == "/token":
            made: tuple[int, Any, dict[str, str]] = self._oauth.create_token_response(
                _request(method, path, headers, body)
            )
            return made
        return 404, {}, {}

    def _authorize(self, request: OAuth2Request) -> tuple[int, Any, dict[str, str]]:
        grant = self._oauth.get_consent_grant(request, end_user=self.person)
        made: tuple[int, Any, dict[str, str]] = self._oauth.create_authorization_response(
            request, grant_user=self.person, grant=grant
        )
        return made


@dataclass(frozen=True)
class _Client(ClientMixin):  # type: ignore[misc]  # Authlib has no types
    provider: Provider

    def get_client_id(self) -> str:
        return CLIENT_ID

    def get_default_redirect_uri(self) -> str:
        return self.provider.back

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == self.provider.back

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == self.provider.secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        del endpoint
        return (method == "none") == (self.provider.secret is None)

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"


@dataclass(frozen=True)
class _Code:
    text: str
    redirect_uri: str
    scope: str
    nonce: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


class _Grant(grants.AuthorizationCodeGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post", "none")
    provider: Provider

    def save_authorization_code(self, code: str, request: OAuth2Request) -> None:
        given = request.payload.data
        self.provider._codes[code] = _Code(
            code, given["redirect_uri"], given["scope"], given["nonce"], given["code_challenge"],
            given["code_challenge_method"],
        )  # fmt: skip

    def query_authorization_code(self, code: str, client: _Client) -> _Code | None:
        del client
        return self.provider._codes.pop(code, None)

    def delete_authorization_code(self, authorization_code: _Code) -> None:
        """It is gone already."""

    def authenticate_user(self, authorization_code: _Code) -> Claims:
        del authorization_code
        return self.provider.person


class _OpenId(OpenIDCode):  # type: ignore[misc]
    def __init__(self, provider: Provider) -> None:
        super().__init__(require_nonce=True)
        self._provider = provider

    def exists_nonce(self, nonce: str, request: OAuth2Request) -> bool:
        del request
        return any(code.nonce == nonce for code in self._provider._codes.values())

    def encode_id_token(self, token: Mapping[str, str], request: OAuth2Request) -> str:
        return self._provider.token_of(request.authorization_code, token["access_token"])


class _Oauth(AuthorizationServer):  # type: ignore[misc]
    provider: Provider

    def query_client(self, client_id: str) -> _Client | None:
        return _Client(self.provider) if client_id == CLIENT_ID else None

    def save_token(self, token: object, request: OAuth2Request) -> None:
        """Nobody asks for it again."""

    def create_oauth2_request(self, request: OAuth2Request) -> OAuth2Request:
        return request

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Nobody listens."""

    def handle_response(
        self, status: int, body: object, headers: list[tuple[str, str]]
    ) -> tuple[int, Any, dict[str, str]]:
        return status, body, {name.lower(): value for name, value in headers}


class _Request(OAuth2Request):  # type: ignore[misc]
    @property
    def args(self) -> Mapping[str, str]:
        return dict(self.payload.data)

    @property
    def form(self) -> Mapping[str, str]:
        return dict(self.payload.data)


def _request(method: str, path: str, headers: Mapping[str, str], text: str) -> OAuth2Request:
    request = _Request(method, f"https://provider.example.com{path}", headers=headers)
    request.payload = BasicOAuth2Payload(dict(parse_qsl(text)))
    return request


def _oauth(provider: Provider) -> _Oauth:
    made = _Oauth()
    made.provider = provider
    grant = type("Grant", (_Grant,), {"provider": provider})
    made.register_grant(grant, [CodeChallenge(required=True), _OpenId(provider)])
    made.register_token_generator("default", BearerTokenGenerator(lambda *_, **__: secrets.token_hex(16)))
    return made


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, provider: Provider, *args: Any) -> None:
        self._provider = provider
        super().__init__(*args)

    def do_GET(self) -> None:
        self._answer("")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("content-length", 0))).decode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base's
        """Be quiet."""

    def _answer(self, body: str) -> None:
        try:
            status, content, headers = self._provider.answer(self.command, self.path, dict(self.headers), body)
        except OAuth2Error as exc:
            status, content, headers = 400, dict(exc.get_body()), {}
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers | {"content-length": str(len(raw)), "content-type": "application/json"}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)


def unsigned(provider: Provider, claims: Claims) -> str:
    """A token with the algorithm none."""
    del provider
    parts = ({"alg": "none"}, claims)
    return ".".join([*(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts), ""])
