"""Warnings about valid but probably unintended settings."""

from typing import Any

import pytest

from celery_monitor.settings import load
from celery_monitor.settings.lint import warnings_of

Rule = dict[str, Any]


@pytest.mark.parametrize(
    ("url", "use_ssl", "cautioned"),
    [
        ("rediss://h/0", None, False),
        ("rediss://h/0", True, False),
        ("rediss://h/0", {"ssl_cert_reqs": "CERT_REQUIRED"}, False),
        ("redis://h/0", None, False),
        ("redis://h/0?ssl_cert_reqs=none", None, False),
        ("rediss://h/0?ssl_cert_reqs=none", None, True),
        ("rediss://h/0?ssl_check_hostname=false", None, True),
        ("rediss://h/0", {"ssl_cert_reqs": "none"}, True),
        ("rediss://h/0", {"ssl_cert_reqs": None}, False),
        ("amqps://h//", {"cert_reqs": "ssl.CERT_NONE"}, True),
        ("amqps://h//", {"cert_reqs": 0}, True),
        ("amqps://h//;amqps://i//", {"cert_reqs": "optional"}, True),
        ("amqps://h//", {"ca_certs": "/ca.pem"}, False),
    ],
)
def test_a_broker_that_is_not_verified(url: str, use_ssl: Any, *, cautioned: bool) -> None:
    """Only explicitly disabled verification gives a warning."""
    found = warnings_of(load(overrides={"broker.url": url, "broker.use_ssl": use_ssl}, environ={}))
    assert [one.path for one in found] == ["broker.use_ssl"] * cautioned


@pytest.mark.parametrize(
    ("url", "use_ssl", "options", "warned"),
    [
        ("sentinel://:pw@a:26379;sentinel://b:26379", True, {"master_name": "m"}, True),
        ("sentinel://a:26379", {"ssl_ca_certs": "/ca.pem"}, {"sentinel_kwargs": {"password": "pw"}}, True),
        ("sentinel://a:26379", True, {"sentinel_kwargs": None}, True),
        ("sentinel://a:26379", True, {"sentinel_kwargs": {"ssl": True}}, False),
        ("sentinel://a:26379", None, {"sentinel_kwargs": {"password": "pw"}}, False),
        ("rediss://a:6379/0", True, {}, False),
    ],
)
def test_sentinels_in_clear_text(url: str, use_ssl: Any, options: dict[str, Any], *, warned: bool) -> None:
    """If TLS is configured only for the master, a warning says so."""
    overrides = {"broker.url": url, "broker.use_ssl": use_ssl, "broker.transport_options": options}
    found = warnings_of(load(overrides=overrides, environ={}))
    assert [one.path for one in found] == ["broker.transport_options"] * warned


def cautions(*rules: Rule, **email: Any) -> dict[str, str]:
    """The warnings by path for these rules and this mail server."""
    given: list[Rule] = [{"name": str(number), **rule} for number, rule in enumerate(rules)]
    overrides: dict[str, object] = {"alerts.rules": given} | {f"email.{key}": value for key, value in email.items()}
    return {warning.path: warning.message for warning in warnings_of(load(overrides=overrides, environ={}))}


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({}, "alerts.dedup_key"),
        ({"fleet": "shop"}, "alerts.dedup_key"),
        ({"alerts.dedup_key": "{fleet}/{task}/{hour}"}, "fleet"),
        ({"alerts.dedup_key": "{fleet}/{task}/{hour}", "fleet": "shop"}, None),
        ({"alerts.dedup_key": "{{fleet}}/{task}/{hour}"}, None),
        ({"alerts.dedup_key": "shop/{task}/{hour}"}, None),
        ({"alerts.dedup_key": "{{}}/{task}-{hour}"}, "alerts.dedup_key"),
        ({"alerts.dedup_key": "{hour}:{fleet}:{task}", "fleet": "shop"}, None),
        ({"pagerduty.resolve": "never"}, None),
        ({"pagerduty.routing_key": None}, None),
    ],
)
def test_incidents_that_another_fleet_may_resolve(given: dict[str, object], path: str | None) -> None:
    """If incidents resolve on success and the keys do not contain the fleet."""
    overrides = {"pagerduty.routing_key": "k" * 32, "pagerduty.resolve": "on_success"} | given
    found = warnings_of(load(overrides=overrides, environ={}))
    assert [warning.path for warning in found] == ([] if path is None else [path])


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({}, {"match": ["shop.*"]}),
        ({"match": ["*"]}, {}),
        ({"match": ["shop.*"]}, {"match": ["shop.billing.*", "shop.a?c"]}),
        ({"match": ["shop.*"]}, {"match": ["shop.*"], "queues": ["pay"]}),
        ({"queues": ["pay", "mail"]}, {"queues": ["pay"], "exceptions": ["KeyError"]}),
        ({"exceptions": ["*Error"]}, {"exceptions": ["KeyError"], "match": ["a"]}),
        ({"exclude": ["x.*"]}, {"match": ["a"], "exclude": ["x.*", "y"]}),
        ({"exclude": ["x.y"]}, {"exclude": ["x.*"]}),
        ({"threshold": 100}, {"page": False}),
    ],
)
def test_a_rule_that_never_decides(earlier: Rule, later: Rule) -> None:
    """If an earlier rule matches everything that a later one matches, the warning names both."""
    found = cautions(earlier, later)
    assert list(found) == ["alerts.rules[1]"]
    assert "is never used: 0 (alerts.rules[0]) matches everything" in found["alerts.rules[1]"]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"match": ["shop.billing.*"]}, {}),
        ({"match": ["shop.?"]}, {"match": ["shop.*"]}),
        ({"match": ["*]b"]}, {"match": ["[a]b"]}),
        ({"match": ["shop.*"], "queues": ["pay"]}, {"match": ["shop.*"]}),
        ({"exclude": ["x.*"]}, {"match": ["x.y"]}),
        ({"exclude": ["x.*"]}, {"exclude": ["x.y"]}),
        ({"exceptions": ["KeyError"]}, {"exceptions": ["*Error"]}),
    ],
)
def test_a_rule_that_may_decide(earlier: Rule, later: Rule) -> None:
    """If the later rule may match something else, there is no warning."""
    assert cautions(earlier, later) == {}


def test_each_rule_is_told_once() -> None:
    """If two rules shadow one, the first is named."""
    found = cautions({}, {}, {"match": ["a"]})
    assert list(found) == ["alerts.rules[1]", "alerts.rules[2]"]
    assert "0 (alerts.rules[0])" in found["alerts.rules[2]"]


def test_a_password_in_clear_text() -> None:
    """security: none gives a warning with a password, and none without one."""
    assert list(cautions(security="none", username="u", password="p")) == ["email.security"]
    assert cautions(security="none") == {}
    assert cautions(security="tls", username="u", password="p") == {}


def test_a_store_that_ends_with_the_daemon() -> None:
    """SQLite's in-memory database is valid for trials, with a warning."""
    (warning,) = warnings_of(load(overrides={"store.url": "sqlite:///:memory:"}, environ={}))
    assert warning.path == "store.url"
    assert "lost when the daemon ends" in warning.message


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ({"store.url": "postgresql://u@h/d", "store.max_bytes": "1GiB"}, {"store.max_bytes"}),
        ({"store.url": "postgresql://u@h/d"}, set()),
        ({"store.url": "sqlite:///a.db", "store.max_bytes": "1GiB"}, set()),
        ({"store.schema": "a", "store.lease_ttl": "2s"}, {"store.schema", "store.lease_ttl"}),
        ({"store.url": "postgresql://u@h/d", "store.schema": "a", "store.lease_ttl": "2s"}, set()),
    ],
)
def test_what_the_other_database_is_for(store: dict[str, object], expected: set[str]) -> None:
    """A warning for store.max_bytes with PostgreSQL, and for store.schema with SQLite."""
    assert {warning.path for warning in warnings_of(load(overrides=store, environ={}))} == expected


def test_silent_for_longer_than_workers_are_known() -> None:
    """The rule applies earlier than configured: with the default of 10 minutes, values above 9 minutes."""
    found = cautions({"on": "lost", "silent_for": "9m"}, {"on": "lost", "queues": ["x"], "silent_for": "10m"})
    assert "raise metrics.worker_purge" in found.pop("alerts.rules[1].silent_for")
    assert "alerts.rules[0].silent_for" not in found


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"every": "1m", "grace": "2m"}, True),
        ({"every": "1m"}, True),
        ({"every": "5m"}, False),
        ({"every": "5m", "grace": "5m"}, False),
        ({"every": "5m", "grace": "301s"}, True),
        ({"cron": "0 * * * *"}, False),
    ],
)
def test_a_grace_in_which_starts_are_missed(schedule: dict[str, object], *, expected: bool) -> None:
    """The incident opens later than expected for this value of ``every``."""
    overrides: dict[str, object] = {"schedules": [{"task": "shop.sync", **schedule}]}
    found = {one.path: one.message for one in warnings_of(load(overrides=overrides, environ={}))}
    assert list(found) == ["schedules[0].grace"] * expected
    assert all("longer than every" in message for message in found.values())


def test_rules_for_different_conditions_do_not_shadow_each_other() -> None:
    """The first match is determined within one condition."""
    assert cautions({}, {"on": "lost"}, {"on": "runtime", "longer_than": "5m"}) == {}
    assert list(cautions({"on": "lost"}, {"on": "lost", "match": ["x"]})) == ["alerts.rules[1]"]
