"""The settings of the sign-in: every mistake is reported with a remedy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from celery_monitor.errors import ConfigError
from celery_monitor.settings import load
from celery_monitor.settings.lint import warnings_of

ISSUER = "https://login.example.com/realms/ops"
SECRET = {"issuer": ISSUER, "client_id": "monitor", "client_secret": "s" * 32}
Web = Mapping[str, Any]
GOOD: Web = {
    "external_url": "https://monitor.example.com",
    "trusted_proxies": ["10.0.0.1"],
    "viewers": ["*"],
    "oidc": SECRET,
}
PROXY: Web = {"auth_proxy": {"addresses": ["10.0.0.1"]}, "viewers": ["*"]}


def problems(web: Web) -> list[str]:
    """The problems of ``web``."""
    try:
        load(overrides={"web": web}, environ={})
    except ConfigError as exc:
        return [str(problem) for problem in exc.problems]
    return []


@pytest.mark.parametrize(
    ("web", "field", "expected"),
    [
        ({**GOOD, "external_url": None}, "web.external_url", "<external_url>/sign-in/callback"),
        ({**GOOD, "viewers": []}, "web.viewers", "name the groups"),
        ({**GOOD, "oidc": {"client_id": "x"}}, "web.oidc.issuer", "must be set with"),
        ({**GOOD, "oidc": {"client_secret": "x"}}, "web.oidc.issuer", "must be set with"),
        ({**GOOD, "oidc": {"issuer": ISSUER, "client_secret": "x" * 32}}, "web.oidc.client_id", "must be set"),
        ({**GOOD, "oidc": {"issuer": ISSUER, "client_id": "x"}}, "web.session_key", "openssl rand"),
        ({**GOOD, "oidc": SECRET | {"client_secret": "s" * 31}}, "web.session_key", "could be guessed"),
        ({**GOOD, "session_key": "short"}, "web.session_key", "at least 32 characters"),
        ({**GOOD, "session_lifetime": "31d"}, "web.session_lifetime", "must be from 5m to 30d"),
        ({**GOOD, "oidc": SECRET | {"scopes": ["email"]}}, "web.oidc.scopes", "must contain openid"),
        ({**GOOD, "oidc": SECRET | {"issuer": f"{ISSUER}/.well-known/openid-configuration"}}, "web.oidc.issuer",
         "without /.well-known/"),
        ({**GOOD, "oidc": SECRET | {"issuer": f"{ISSUER}?x=1"}}, "web.oidc.issuer", "query"),
        ({**GOOD, "oidc": SECRET | {"issuer": "login.example.com"}}, "web.oidc.issuer", "must be a URL"),
        ({**GOOD, "oidc": SECRET | {"client_secret_file": "/nothing"}}, "web.oidc.client_secret_file", "cannot read"),
        ({**PROXY, "viewers": []}, "web.viewers", "name the groups"),
        ({"auth_proxy": {"addresses": ["0.0.0.0/0"]}}, "web.auth_proxy.addresses[0]", "would let everybody sign in"),
        ({"auth_proxy": {"addresses": ["::/0"]}}, "web.auth_proxy.addresses[0]", "would let everybody sign in"),
        ({"auth_proxy": {"addresses": ["proxy"]}}, "web.auth_proxy.addresses[0]", "must be an IP address or a network"),
        ({"auth_proxy": {"user_header": "Cookie"}}, "web.auth_proxy.user_header", "another meaning"),
        ({"auth_proxy": {"user_header": "X Y"}}, "web.auth_proxy.user_header", "pattern"),
        ({"auth_proxy": {"groups_header": "x-forwarded-user"}}, "web.auth_proxy.groups_header", "the same header"),
    ],
)  # fmt: skip
def test_a_mistake(web: Web, field: str, expected: str) -> None:
    """It is reported with its field and the remedy."""
    (found,) = problems(web)
    assert found.startswith(f"{field}: ")
    assert expected in found


def test_what_is_right() -> None:
    """A provider, a proxy, both, and neither are valid."""
    for web in (GOOD, PROXY, {**GOOD, **PROXY}, {}):
        assert problems(web) == []


def test_all_mistakes_at_once() -> None:
    """They are reported together."""
    found = problems({"oidc": {"issuer": ISSUER}})
    assert [one.partition(":")[0] for one in found] == [
        "web.oidc.client_id", "web.external_url", "web.session_key", "web.viewers",
    ]  # fmt: skip


def test_without_authlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to install it, and occurs only if a provider is configured."""
    monkeypatch.setattr("celery_monitor.settings.sign_in.find_spec", lambda _: None)
    (found,) = problems(GOOD)
    assert "pip install 'celery-monitor[oidc]'" in found
    assert problems(PROXY) == []


def test_secrets_from_files(tmp_path: Path) -> None:
    """They are read again when they change; a short key in a file is reported with its path."""
    key, secret = tmp_path / "key", tmp_path / "secret"
    key.write_text("short\n")
    secret.write_text("one\n")
    web = {
        **GOOD,
        "session_key_file": str(key),
        "oidc": {"issuer": ISSUER, "client_id": "x", "client_secret_file": str(secret)},
    }
    (found,) = problems(web)
    assert str(key) in found
    key.write_text("k" * 32)
    settings = load(overrides={"web": web}, environ={}).web
    assert settings.session_key_source().get() == "k" * 32
    source = settings.oidc.secret_source()
    assert source.get() == "one"
    assert "could be guessed" in problems({**web, "session_key_file": None})[0]
    secret.write_text("another\n")
    assert source.get() == "another"
    assert "k" * 32 not in repr(settings)
    assert "another" not in repr(source)


@pytest.mark.parametrize(
    ("web", "field"),
    [
        ({"viewers": ["a"]}, "web.viewers"),
        ({"operators": ["a"]}, "web.operators"),
        ({**GOOD, "external_url": "http://monitor.example.com"}, "web.external_url"),
        ({**GOOD, "oidc": SECRET | {"issuer": "http://login.example.com"}}, "web.oidc.issuer"),
        ({**GOOD, "trusted_proxies": []}, "web.trusted_proxies"),
        ({"external_url": "https://m.example.com", "username": "a", "password": "b"}, "web.trusted_proxies"),
    ],
)
def test_what_is_hardly_meant(web: Web, field: str) -> None:
    """Groups without a sign-in, unencrypted passwords, and a proxy whose clients cannot be distinguished."""
    settings = load(overrides={"web": web}, environ={})
    assert [one.path for one in warnings_of(settings)] == [field]
    local = {
        **GOOD,
        "external_url": "http://localhost:9808",
        "oidc": SECRET | {"issuer": "http://127.0.0.1:8080"},
    }
    assert warnings_of(load(overrides={"web": local}, environ={})) == []
