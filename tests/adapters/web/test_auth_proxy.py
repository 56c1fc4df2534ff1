"""Sign-in by a proxy, which sends the person's name in a header."""

from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

from celery_monitor.adapters.web.auth_proxy import AuthProxy
from celery_monitor.adapters.web.people import Person, Role, Roles
from celery_monitor.adapters.web.refused import Refused
from celery_monitor.settings.sign_in import AuthProxySettings
from tests.adapters.web.conftest import Serve
from tests.adapters.web.fleet import NOW, Fleet

PROXIES = ("192.0.2.7", "10.1.0.0/16", "2001:db8::/64")
ROLES = Roles(["staff"], ["ops"])
USER, GROUPS = b"x-forwarded-user", b"x-forwarded-groups"
ANNA = Person("anna", Role.OPERATOR)
Given = list[tuple[bytes, bytes]]


def asked(peer: str, headers: Given, **settings: Any) -> tuple[Person | Refused | None, int]:
    """The person of a request, and the number of ignored headers."""
    proxy = AuthProxy(AuthProxySettings(addresses=PROXIES, **settings), ROLES)
    found = proxy.person({"client": (peer, 5)} if peer else {}, Headers(raw=headers))
    return found, proxy.ignored


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("192.0.2.7", True),
        ("10.1.255.255", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::5", True),
        ("192.0.2.8", False),
        ("10.2.0.0", False),
        ("::ffff:192.0.2.8", False),
        ("2001:db8:0:1::", False),
        ("127.0.0.1", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_only_the_proxy_is_believed(peer: str, trusted: bool) -> None:  # noqa: FBT001 - of the table
    """By the address of the connection; all other headers are ignored and counted."""
    given = [(USER, b"anna"), (GROUPS, b"ops"), (b"x-forwarded-for", b"192.0.2.7"), (b"x-real-ip", b"192.0.2.7")]
    assert asked(peer, given) == ((ANNA, 0) if trusted else (None, 1))


@pytest.mark.parametrize(
    ("headers", "who"),
    [
        ([(USER, b"anna"), (GROUPS, b"ops")], ANNA),
        ([(USER, b" anna "), (GROUPS, b"guests, ops ,")], ANNA),
        ([(USER, "Zo\u00eb".encode()), (GROUPS, b"staff")], Person("Zo\u00eb", Role.VIEWER)),
        ([(USER, b"a" * 300), (GROUPS, b"staff")], Person("a" * 255, Role.VIEWER)),
        ([(USER, b"anna"), (GROUPS, b"operations")], 403),
        ([(USER, b"anna"), (GROUPS, b"OPS")], 403),
        ([(USER, b"anna"), (GROUPS, b"")], 403),
        ([(USER, b"anna")], 403),
        ([], None),
        ([(USER, b""), (GROUPS, b"")], None),
        # What a client may have sent beside the proxy's own.
        ([(USER, b"anna"), (USER, b"anna"), (GROUPS, b"ops")], "ignored"),
        ([(USER, b""), (USER, b"anna"), (GROUPS, b"ops")], "ignored"),
        ([(USER, b"anna"), (GROUPS, b"staff"), (GROUPS, b"ops")], "ignored"),
        ([(GROUPS, b"ops")], "ignored"),
        ([(USER, b"an\tna"), (GROUPS, b"ops")], "ignored"),
        ([(USER, b"an\x1b[31mna"), (GROUPS, b"ops")], "ignored"),
        ([(USER, b"\xff\xfe"), (GROUPS, b"ops")], "ignored"),
        ([(USER, "an\u202ena".encode()), (GROUPS, b"ops")], "ignored"),
        ([(b"x_forwarded_user", b"anna"), (b"x_forwarded_groups", b"ops")], None),
    ],
)
def test_what_the_headers_say(headers: Given, who: Person | int | str | None) -> None:
    """One name and one list of groups, in plain text; a duplicate header names nobody."""
    found, ignored = asked("10.1.2.3", headers)
    assert ignored == (1 if who == "ignored" else 0)
    if isinstance(who, int):
        assert isinstance(found, Refused)
        assert (found.status, found.reason) == (who, "group")
    else:
        assert found == (None if who == "ignored" else who)


def test_other_headers() -> None:
    """Their names and the separator of groups are configurable; the default names are then ignored."""
    settings = {"user_header": "X-Authentik-Username", "groups_header": "X-authentik-groups", "groups_separator": "|"}
    given = [(b"x-authentik-username", b"anna"), (b"x-authentik-groups", b"a,b|ops")]
    assert asked("10.1.2.3", given, **settings) == (ANNA, 0)
    assert asked("10.1.2.3", [(USER, b"anna"), (GROUPS, b"ops")], **settings) == (None, 0)


def test_a_site_behind_a_proxy(serve: Serve, fleet: Fleet) -> None:
    """The person is shown and stored, without a sign-out button; others get a page that says where to go."""
    settings = {"viewers": ["staff"], "operators": ["ops"], "username": "robot", "password": "p"}
    site = serve(**settings, auth_proxy={"addresses": ["127.0.0.1"]})
    # oauth2-proxy also sends the name as a user name with some password.
    anna = {"X-Forwarded-User": "anna", "X-Forwarded-Groups": "ops", "Authorization": "Basic YW5uYTo="}
    page = site.get("/silences", headers=anna)
    assert page.status_code == 200
    assert "anna" in page.text
    assert "sign-out" not in page.text
    form = {"match": "a.*", "for": "1h", "reason": "b"}
    same = {"sec-fetch-site": "same-origin"}
    assert httpx.post(f"{site.url}/silences", data=form, headers=anna | same).status_code == 303
    assert httpx.post(f"{site.url}/silences", data=form, headers=anna).status_code == 403
    assert [one.created_by for one in fleet.store.silences.current(NOW)] == ["anna"]
    assert site.get("/api/v1/tasks", auth=("robot", "p")).status_code == 200
    assert "None of" not in site.get("/").text
    assert site.get("/metrics").status_code == 200
    elsewhere = serve(**{**settings, "username": None, "password": None}, auth_proxy={"addresses": ["192.0.2.7"]})
    refused = elsewhere.get("/", headers=anna)
    assert (refused.status_code, "proxy" in refused.text) == (401, True)
    assert elsewhere.get("/api/v1/tasks", headers=anna).status_code == 401
    assert elsewhere.server.sign_ins_refused["header"] == 2
