"""The schema of a fleet in PostgreSQL."""

import pytest

from celery_monitor.errors import ConfigError
from celery_monitor.settings import load
from celery_monitor.settings.store import schema_of


@pytest.mark.parametrize(
    ("fleet", "schema"),
    [
        ("celery", "celery_monitor_celery"),
        ("shop2", "celery_monitor_shop2"),
        ("Shop", "celery_monitor_shop_27a8f5e7"),
        ("shop-eu", "celery_monitor_shop_eu_01abf57e"),
        ("shop_eu", "celery_monitor_shop_eu"),
        ("商店", "celery_monitor___bc2cda2b"),
        ('"; DROP SCHEMA public', "celery_monitor__drop_schema_public_7a2e6d3e"),
        ("x" * 255, f"celery_monitor_{'x' * 31}_a67e38b5"),
    ],
)
def test_default(fleet: str, schema: str) -> None:
    """A valid identifier for PostgreSQL, different for each fleet."""
    assert schema_of(fleet) == schema


def test_without_psycopg(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to install it, and occurs only if the store is in PostgreSQL."""
    monkeypatch.setattr("celery_monitor.settings.store.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"^store\.url: .*pip install 'celery-monitor\[postgresql\]'"):
        load(overrides={"store.url": "postgres://u@h/d"}, environ={})
    load(environ={})


def test_no_two_fleets_have_the_same() -> None:
    """However similar their names are."""
    fleets = ["a-b", "a_b", "a b", "A_b", "a.b", "a__b", "ab", "x" * 41, "x" * 42, "x" * 255, "é", "è", "a_b_"]
    found = {schema_of(fleet) for fleet in fleets}
    assert len(found) == len(fleets)
    assert all(len(one) <= 63 for one in found)


@pytest.mark.parametrize("name", ["Shop", "1st", "a-b", "pg_shop", 'a"b', "x" * 64, "a b", "é"])
def test_a_name_that_is_no_identifier(name: str) -> None:
    """It is refused with the rule for names."""
    with pytest.raises(ConfigError, match=r"store\.schema: must be a PostgreSQL identifier"):
        load(None, {"store.schema": name})
