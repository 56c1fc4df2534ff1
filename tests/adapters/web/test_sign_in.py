"""Sign-in by a real OpenID provider on loopback."""

import hmac
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

import celery_monitor
from celery_monitor.adapters.oidc import OidcProvider
from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.adapters.web import Site, WebServer
from celery_monitor.adapters.web.destination import following
from celery_monitor.adapters.web.people import Person, Role
from celery_monitor.adapters.web.sessions import Sessions
from celery_monitor.errors import ProviderUnavailableError, SignInRefusedError
from celery_monitor.settings.web import WebSettings
from tests.adapters.web.conftest import Served, served
from tests.adapters.web.fleet import NOW, Fleet, usual
from tests.fakes import ManualClock
from tests.servers.openid import CLIENT_ID, SECRET, Claims, Provider, new_key, unsigned
from tests.servers.unencrypted import NO_TLS

BASE = "http://monitor.test"
SESSION = "celery_monitor_session"
FORM = {"match": "shop.*", "for": "1h", "reason": "deploy"}
ANNA = Person("anna", Role.OPERATOR)
Sign = Callable[[Provider, Claims], str]


@dataclass
class Place:
    """A provider, and a monitor that trusts it."""

    provider: Provider
    site: Served
    clock: ManualClock
    store: SqlStore
    settings: WebSettings
    clients: ExitStack = field(default_factory=ExitStack)

    def browser(self, site: Served | None = None) -> "Browser":
        """A browser that is not signed in."""
        client = httpx.Client(base_url=(site or self.site).url, timeout=60, verify=NO_TLS)
        return Browser(self, self.clients.enter_context(client))

    def refused(self) -> dict[str, int]:
        """The refused sign-ins so far, by reason."""
        return dict(self.site.server.sign_ins_refused)


@dataclass
class Browser:
    """Follows the redirects of a sign-in one by one."""

    place: Place
    client: httpx.Client

    def get(self, path: str, **headers: str) -> httpx.Response:
        """A page of the monitor."""
        return self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def begin(self, path: str = "/sign-in") -> str:
        """Go to the provider; returns the address to which it redirects."""
        to_provider = self.get(path)
        assert to_provider.status_code == 302, to_provider.text
        back = httpx.get(to_provider.headers["location"], timeout=60, verify=NO_TLS)
        assert back.status_code == 302, back.text
        return str(back.headers["location"])

    def complete(self, address: str) -> httpx.Response:
        """Return from the provider."""
        assert address.startswith(f"{BASE}/")
        return self.get(address.removeprefix(BASE))

    def sign_in(self, path: str = "/sign-in") -> httpx.Response:
        """The whole sign-in."""
        return self.complete(self.begin(path))


def settings_of(provider: Provider, **changes: Any) -> WebSettings:
    """The settings of a monitor that trusts it."""
    oidc = {"issuer": provider.issuer, "client_id": CLIENT_ID, "client_secret": SECRET} | changes.pop("oidc", {})
    given = {"external_url": BASE, "viewers": ["staff"], "operators": ["ops"], "oidc": oidc}
    return WebSettings(**given | changes)


@contextmanager
def monitor(store: SqlStore, clock: ManualClock, settings: WebSettings) -> Iterator[Served]:
    """A running monitor."""
    sources = replace(Fleet(store).sources(), clock=clock)
    with served(WebServer(Site(settings, sources, OidcProvider(settings, clock)), host="127.0.0.1", port=0)) as site:
        yield site


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests: each restores the provider."""
    clock = ManualClock(time=NOW)
    store = open_store(
        f"sqlite:///{tmp_path_factory.mktemp('sign-in') / 'store.db'}", retention=2_592_000.0, fingerprint_window=100
    )
    store.start()
    store.commit(usual())
    with Provider(clock.now, back=f"{BASE}/sign-in/callback") as provider:
        settings = settings_of(provider)
        with monitor(store, clock, settings) as site:
            yield Place(provider, site, clock, store, settings)
    store.stop()


@pytest.fixture
def place(kept: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The provider has its usual answers, and nobody has failed to sign in."""
    monkeypatch.setattr("celery_monitor.adapters.web.basic.monotonic", kept.clock.monotonic)
    with ExitStack() as clients:
        yield replace(kept, clients=clients)
    fresh = Provider(kept.clock.now, port=kept.provider.port)
    for name in ("person", "claims", "userinfo", "sign", "answers"):
        setattr(kept.provider, name, getattr(fresh, name))
    kept.clock.advance(61)


def test_a_person_signs_in_and_out(place: Place) -> None:
    """A page leads to the provider and back; the name is shown and stored; signing out ends it."""
    browser = place.browser()
    led = browser.get("/tasks?q=a%26b")
    assert (led.status_code, led.headers["location"]) == (303, "./sign-in?next=/tasks%3Fq%3Da%2526b")
    signed = browser.sign_in(f"/{led.headers['location'].removeprefix('./')}")
    assert (signed.status_code, signed.headers["location"]) == (303, f"{BASE}/tasks?q=a%26b")
    page = browser.get("/silences")
    assert page.status_code == 200
    assert "anna" in page.text
    same = {"sec-fetch-site": "same-origin"}
    assert browser.client.post("/silences", data=FORM, headers=same).status_code == 303
    assert [one.created_by for one in place.store.silences.current(place.clock.now())] == ["anna"]
    assert browser.client.post("/sign-out", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert browser.get("/").status_code == 200
    out = browser.client.post("/sign-out", headers=same)
    assert out.status_code == 200
    assert "signed out" in out.text
    assert browser.get("/").status_code == 303


def test_what_cookies_are_like(place: Place) -> None:
    """HttpOnly, Lax, expiring and signed; over https also Secure, with names that no other host can set."""
    browser = place.browser()
    begun = browser.get("/sign-in").headers["set-cookie"]
    assert "Max-Age=600" in begun
    assert "Path=/sign-in/callback" in begun
    session = browser.sign_in().headers.get_list("set-cookie")[0]
    for part in ("HttpOnly", "SameSite=lax", "Max-Age=28800", "Path=/"):
        assert part in session
    https = settings_of(place.provider, external_url="https://monitor.test/shop")
    with monitor(place.store, place.clock, https) as site:
        cookie = site.get("/sign-in").headers["set-cookie"]
    assert cookie.startswith("__Secure-celery_monitor_sign_in_")
    assert "Secure" in cookie.split("; ")
    assert "Path=/shop/sign-in/callback" in cookie
    with monitor(place.store, place.clock, settings_of(place.provider, external_url="https://monitor.test")) as site:
        cookie = site.get("/sign-in").headers["set-cookie"]
    assert cookie.startswith("__Host-celery_monitor_sign_in_")
    assert {"Secure", "Path=/"} <= set(cookie.split("; "))
    assert "domain" not in cookie.lower()


def test_the_request_to_the_provider(place: Place) -> None:
    """Code flow, PKCE with S256, state and nonce; nothing that can be predicted without the cookie."""
    address = place.browser().get("/sign-in").headers["location"]
    asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    assert address.startswith(f"{place.provider.issuer}/authorize?")
    assert asked["redirect_uri"] == f"{BASE}/sign-in/callback"
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert asked["scope"] == "openid profile email"
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43


def hs256(provider: Provider, claims: Claims) -> str:
    """Signed with the public key as a shared secret, which everybody knows."""
    public = provider.keys[0].as_pem(private=False)
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "kid": provider.keys[0].kid}, claims)]
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    return f"{signed.decode()}.{urlsafe_b64encode(hmac.digest(public, signed, sha256)).rstrip(b'=').decode()}"


FORGED: dict[str, Claims | Sign] = {
    "another nonce": {"nonce": "n" * 64},
    "no nonce": {"nonce": None},
    "another audience": {"aud": "another-client"},
    "several audiences, authorized for another": {"aud": [CLIENT_ID, "another-client"], "azp": "another-client"},
    "another audience, though authorized for this one": {"aud": "another-client", "azp": CLIENT_ID},
    "no audience": {"aud": None},
    "another issuer": {"iss": "http://evil.example.com"},
    "the issuer with a slash": {"iss": "http://127.0.0.1/"},
    "expired": {"exp": int(NOW) - 600, "iat": int(NOW) - 900},
    "no end": {"exp": None},
    "an end that is no number": {"exp": "2099-01-01"},
    "of the future": {"iat": int(NOW) + 86_400, "nbf": int(NOW) + 86_400},
    "of another access token": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
    "no subject": {"sub": None},
    "a subject that is no text": {"sub": 7},
    "alg none": unsigned,
    "HS256 with the public key": hs256,
    "signed with another key": lambda provider, claims: provider.id_token(claims, new_key()),
    "signed with another key under the name of the right one": lambda provider, claims: provider.id_token(
        claims, new_key(), kid=str(provider.keys[0].kid)
    ),
    "changed afterwards": lambda provider, claims: _changed(provider.id_token(claims)),
    "no token": lambda _, __: "",
    "no dots": lambda _, __: "token",
    "five parts": lambda _, __: "a.b.c.d.e",
}


def _changed(token: str) -> str:
    head, body, signature = token.split(".")
    return ".".join((head, body[:-4] + ("AAAA" if body[-4:] != "AAAA" else "BBBB"), signature))


@pytest.mark.parametrize("kind", FORGED)
def test_a_token_that_proves_nothing(place: Place, kind: str) -> None:
    """Nobody is signed in with an invalid token; the page reports the failure, and it is counted."""
    forged, before = FORGED[kind], place.refused()
    if isinstance(forged, dict):
        place.provider.claims = {"exp": int(place.clock.now()) + 300, **forged}
    else:
        place.provider.sign = forged
    browser = place.browser()
    answer = browser.sign_in()
    assert answer.status_code == 400, answer.text
    assert "Sign-in failed" in answer.text
    assert SESSION not in browser.client.cookies
    assert browser.get("/").status_code == 303
    assert place.refused()["answer"] == before["answer"] + 1


def test_an_answer_that_this_browser_did_not_ask_for(place: Place) -> None:
    """Forged, from another browser, replayed, too old or from another provider: it signs nobody in."""
    victim, attacker = place.browser(), place.browser()
    address = attacker.begin()
    assert victim.complete(address).status_code == 400
    victim.begin()
    state = parse_qs(urlsplit(address).query)["state"][0]
    for forged in ("", "state=", f"state={state}", f"state={'x' * 5000}&code=1", "state=0%C3%A9&code=1"):
        assert victim.get(f"/sign-in/callback?{forged}").status_code == 400
    assert victim.complete(f"{victim.begin()}&iss=http://evil.example.com").status_code == 400
    assert victim.get("/").status_code == 303
    place.clock.advance(61)
    slow = victim.begin()
    cookies = dict(victim.client.cookies)
    assert victim.complete(slow).status_code == 303
    # With the cookie as it was: the provider takes a code once.
    replayed = httpx.get(slow.replace(BASE, place.site.url), cookies=cookies, timeout=60, verify=NO_TLS)
    assert replayed.status_code == 400
    late = place.browser()
    address = late.begin()
    place.clock.advance(601)
    assert late.complete(address).status_code == 400


def test_the_provider_says_no(place: Place) -> None:
    """Its error is a page, with its text as text."""
    browser = place.browser()
    state = parse_qs(urlsplit(browser.begin()).query)["state"][0]
    answer = browser.get(f"/sign-in/callback?state={state}&error=access_denied&error_description=%3Cb%3Eno%00")
    assert answer.status_code == 400
    assert "&lt;b&gt;no" in answer.text


ELSEWHERE = (
    "//evil.example.com",
    "https://evil.example.com/",
    "/\\evil.example.com",
    "\\\\evil",
    "@evil.example.com",
    ".evil.example.com",
    "javascript:alert(1)",
    "/\r\nset-cookie: a=b",
    "/sign-in?next=/",
    "/sign-out",
    "/" + "a" * 600,
    "/\N{LATIN SMALL LETTER U WITH DIAERESIS}",
    "",
)


def test_no_open_redirect(place: Place) -> None:
    """For any ``next``, the redirect stays on this site; other values lead to its root."""
    for path in ELSEWHERE:
        scope = {"type": "http", "query_string": str(httpx.QueryParams({"next": path})).encode(), "headers": []}
        assert (path, following(Request(scope))) == (path, "/")
    answer = place.browser().sign_in(str(httpx.URL("/sign-in", params={"next": "//evil.example.com"})))
    assert (answer.status_code, answer.headers["location"]) == (303, f"{BASE}/")
    encoded = place.browser().sign_in("/sign-in?next=/%250d%250aset-cookie:a=b")
    assert encoded.headers["location"] == f"{BASE}/%0d%0aset-cookie:a=b"


def test_cookies_that_nobody_gave(place: Place) -> None:
    """Changed, oversized, for another purpose, with another key, and expired ones are ignored."""
    browser = place.browser()
    browser.sign_in()
    good = browser.client.cookies[SESSION]
    body, _, signature = good.partition(".")
    asking = place.browser()
    asking.get("/sign-in")
    of_a_sign_in = next(iter(asking.client.cookies.values()))
    role = urlsafe_b64encode(json.dumps({"name": "eve", "role": "operator", "until": 9e9}).encode()).decode()
    for forged in (
        f"{body}.{signature[:-2]}AA", f"{role}.{signature}", f"{body}.", body, f".{signature}", good + "A" * 5000,
        of_a_sign_in, "\xe9.\xe9", '"', f"{body}.{'=' * 43}",
    ):  # fmt: skip
        answer = place.site.get("/", headers={"cookie": f"{SESSION}={forged}".encode("latin-1")})
        assert (forged[:20], answer.status_code) == (forged[:20], 303)
    assert place.site.get("/", headers={"cookie": f"{SESSION}={good}"}).status_code == 200
    place.clock.advance(8 * 3600)
    assert place.site.get("/", headers={"cookie": f"{SESSION}={good}"}).status_code == 303


def test_a_session_on_another_replica(place: Place, tmp_path: Path) -> None:
    """It is valid on each replica and after a restart, but not with another key, other roles, or another fleet."""
    key = tmp_path / "key"
    key.write_text("k" * 40)
    good, now = place.settings, place.clock.now()
    response = Response()
    Sessions(good, "shop").begin(response, ANNA, now)
    cookie = response.headers["set-cookie"].partition(";")[0]
    with monitor(place.store, place.clock, settings_of(place.provider)) as site:
        assert site.get("/", headers={"cookie": cookie}).status_code == 200
    others = {
        "the same": (settings_of(place.provider), "shop"),
        "a key": (settings_of(place.provider, session_key_file=key), "shop"),
        "another secret": (settings_of(place.provider, oidc={"client_secret": "another"}), "shop"),
        "no secret": (settings_of(place.provider, oidc={"client_secret": None}), "shop"),
        "other roles": (settings_of(place.provider, operators=["others"]), "shop"),
        "another address": (settings_of(place.provider, external_url="http://monitor.test/other"), "shop"),
        "another client": (settings_of(place.provider, oidc={"client_id": "another"}), "shop"),
        "another fleet": (good, "mail"),
    }
    accepted = {
        name for name, (settings, fleet) in others.items() if Sessions(settings, fleet).person(cookie, now) is not None
    }
    assert accepted == {"the same"}


def test_roles(place: Place) -> None:
    """Viewers read, operators change, and people in neither group get a page that says so."""
    place.provider.person = {"sub": "u-2", "email": "bo@example.com", "groups": ["staff", 7, None]}
    viewer = place.browser()
    assert viewer.sign_in().status_code == 303
    page = viewer.get("/silences").text
    assert "bo@example.com" in page
    assert 'action="./silences"' not in page
    same = {"sec-fetch-site": "same-origin"}
    assert viewer.client.post("/silences", data=FORM, headers=same).status_code == 403
    asked = {"match": ["a"], "for": "1h", "reason": "b"}
    assert viewer.client.post("/api/v1/silences", json=asked).status_code == 403
    assert viewer.client.delete("/api/v1/silences/a1").status_code == 403
    place.provider.person = {"sub": "<i>u-3", "groups": "guests"}
    guest = place.browser()
    refused = guest.sign_in()
    assert refused.status_code == 403
    assert "&lt;i&gt;u-3" in refused.text
    assert guest.get("/").status_code == 303


def test_groups_of_the_userinfo_response(place: Place) -> None:
    """If the ID token has none; a response about another person is refused."""
    place.provider.person = {"sub": "u-4"}
    place.provider.userinfo = {"sub": "u-4", "groups": ["ops"], "preferred_username": "dora"}
    place.clock.advance(3601)  # so that the metadata is asked for again
    browser = place.browser()
    assert browser.sign_in().status_code == 303
    assert "dora" in browser.get("/").text
    place.provider.userinfo = {"sub": "u-5", "groups": ["ops"]}
    assert place.browser().sign_in().status_code == 400


def test_the_provider_changes_its_keys(place: Place) -> None:
    """A token with a new key is valid immediately; clocks may differ by a minute."""
    place.browser().sign_in()
    place.clock.advance(11)
    place.provider.keys = [new_key("RSA"), *place.provider.keys]
    place.provider.claims = {"exp": int(place.clock.now()) - 30, "iat": int(place.clock.now()) + 50}
    assert place.browser().sign_in().status_code == 303
    place.provider.keys = place.provider.keys[1:]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/token", 500, b"oops"),
        ("/token", 302, b""),
        ("/token", 200, b"<html>"),
        ("/token", 200, b"[]"),
        ("/token", 200, b"x" * 600_000),
        ("/token", 401, b'{"error": "invalid_client", "error_description": "no"}'),
        ("/jwks", 503, b""),
        ("/jwks", 200, b'{"keys": "none"}'),
        ("/jwks", 200, b'{"keys": [{"kty": "EC"}]}'),
        ("/.well-known/openid-configuration", 404, b""),
        ("/.well-known/openid-configuration", 200, b'{"issuer": "http://evil.example.com"}'),
        ("/.well-known/openid-configuration", 200, b"\xff"),
    ],
)
def test_a_provider_that_does_not_work(place: Place, path: str, status: int, body: bytes) -> None:
    """It is reported as unavailable, with the problem and without secrets."""
    provider = OidcProvider(place.settings, place.clock)
    sessions = Sessions(place.settings, "shop")
    attempt = sessions.secret_of(sessions.new_state())
    if path.startswith("/."):
        place.provider.answers[path] = (status, body)
        with pytest.raises(ProviderUnavailableError) as raised:
            provider.address(attempt)
    else:
        back = httpx.get(provider.address(attempt), timeout=60, verify=NO_TLS).headers["location"]
        place.provider.answers[path] = (status, body)
        with pytest.raises(ProviderUnavailableError) as raised:
            provider.identity(attempt, code=parse_qs(urlsplit(back).query)["code"][0], issuer=None)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("error", ['"invalid_grant"', f'"{SECRET}"', f'["{SECRET}"]', '{"a": 1}'])
def test_a_provider_that_refuses_the_code(place: Place, error: str) -> None:
    """Whatever the error contains, repeated parts of the request are not shown."""
    provider = OidcProvider(place.settings, place.clock)
    sessions = Sessions(place.settings, "shop")
    place.provider.answers["/token"] = (400, b'{"error": %s}' % error.encode())
    with pytest.raises(SignInRefusedError) as raised:
        provider.identity(sessions.secret_of(sessions.new_state()), code="x", issuer=None)
    assert SECRET not in str(raised.value)
    assert ("invalid_grant" in str(raised.value)) == ("invalid_grant" in error)


def test_authlib_is_only_there_where_it_is_used() -> None:
    """Only the provider's adapter imports it, and nothing imports that adapter before a provider is configured."""
    package = Path(celery_monitor.__file__).parent
    heavy = re.compile(r"^(from|import) (authlib|joserfc|celery_monitor\.adapters\.oidc)\b", re.MULTILINE)
    found = {path.relative_to(package) for path in package.rglob("*.py") if heavy.search(path.read_text())}
    assert {path.parts[:2] for path in found} == {("adapters", "oidc")}


def test_a_provider_that_is_down(place: Place, tmp_path: Path) -> None:
    """Nothing listens there, or the key is gone: the page says so, and metrics still work."""
    key = tmp_path / "key"
    key.write_text("k" * 40)
    down = settings_of(place.provider, session_key_file=key, oidc={"issuer": "http://127.0.0.1:1"})
    with monitor(place.store, place.clock, down) as site:
        answer = site.get("/sign-in")
        assert answer.status_code == 503
        assert "Connection refused" in answer.text
        assert "nothing is listening there" in answer.text
        assert [site.get(path).status_code for path in ("/metrics", "/livez", "/style.css")] == [200] * 3
        assert site.server.sign_ins_refused["provider"] == 1
    signed = place.browser()
    signed.sign_in()
    place.provider.answers = dict.fromkeys(("/.well-known/openid-configuration", "/jwks", "/token"), (500, b""))
    assert signed.get("/").status_code == 200
    answer = place.browser().sign_in()
    assert (answer.status_code, "provider is unavailable" in answer.text) == (503, True)


def test_a_public_client(place: Place) -> None:
    """Without a secret, PKCE identifies the client."""
    place.provider.secret = None
    settings = settings_of(place.provider, session_key="k" * 40, oidc={"client_secret": None})
    try:
        with monitor(place.store, place.clock, settings) as site:
            browser = place.browser(site)
            assert browser.sign_in().status_code == 303
            assert browser.get("/").status_code == 200
    finally:
        place.provider.secret = SECRET


def test_programs_and_scripts_are_not_led_away(place: Place) -> None:
    """The API answers 401 in JSON, the script of an open page gets the sign-in page, metrics stay open."""
    browser = place.browser()
    api = browser.get("/api/v1/tasks")
    assert (api.status_code, api.headers.get("www-authenticate")) == (401, None)
    assert api.json() == {"error": "Sign in to see this page."}
    script = browser.get("/tasks", sec_fetch_mode="cors")
    assert script.status_code == 401
    assert 'href="./sign-in?next=/tasks"' in script.text
    form = browser.client.post("/silences/a1/end")
    assert (form.status_code, 'href="../../sign-in?next=/"' in form.text) == (401, True)
    assert browser.get("/metrics").status_code == 200
    with monitor(place.store, place.clock, settings_of(place.provider, username="robot", password="p")) as both:
        assert both.get("/api/v1/tasks").headers["www-authenticate"].startswith("Basic")
        assert both.get("/api/v1/tasks", auth=("robot", "p")).status_code == 200
        assert both.get("/").status_code == 303


def test_whom_a_forged_answer_locks_out(place: Place) -> None:
    """Nobody, because all clients behind a proxy share an address. The same for errors and wrong passwords."""
    with monitor(place.store, place.clock, settings_of(place.provider, username="robot", password="p")) as site:
        forger = place.browser(site)
        assert {forger.get("/sign-in/callback?state=x&code=y").status_code for _ in range(25)} == {400}
        address = forger.begin().removeprefix(BASE)
        cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in forger.client.cookies.items())}
        state = parse_qs(urlsplit(address).query)["state"][0]
        declined = f"/sign-in/callback?state={state}&error=access_denied"
        assert {forger.get(declined, **cookie).status_code for _ in range(25)} == {400}
        assert {site.get("/", auth=("robot", "wrong")).status_code for _ in range(25)} == {401, 429}
        assert place.browser(site).sign_in().status_code == 303


def test_guessing_is_throttled(place: Place) -> None:
    """After twenty refused codes the client has to wait; clients with a password do not."""
    with monitor(place.store, place.clock, settings_of(place.provider, username="robot", password="p")) as site:
        browser = place.browser(site)
        state = parse_qs(urlsplit(browser.begin()).query)["state"][0]
        cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())}
        guess = f"/sign-in/callback?state={state}&code=guessed"
        assert [browser.get(guess, **cookie).status_code for _ in range(21)] == [400] * 20 + [429]
        assert site.get("/", auth=("robot", "p")).status_code == 200
