"""``channels``, and the names by which rules refer to them."""

from pathlib import Path
from typing import Any

import pytest

from celery_monitor.adapters.channels import configured
from celery_monitor.errors import ConfigError
from celery_monitor.policy import policy_of, secrets_of
from celery_monitor.settings import Settings, load
from celery_monitor.settings.lint import warnings_of

KEY = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"
ONCALL = {"name": "oncall", "type": "pagerduty", "routing_key": KEY}


def settings(*channels: dict[str, Any], **overrides: Any) -> Settings:
    """Settings with these channels; ``alerts_to`` and ``rules`` as in alerts."""
    known = {"alerts.to": overrides.pop("to", []), "alerts.rules": overrides.pop("rules", [])}
    return load(None, {"channels": list(channels)} | known | overrides, {})


@pytest.mark.parametrize(
    ("channels", "problem"),
    [
        ([{"name": "a", "type": "telegraph"}], "channels[0].type: is not a channel type; known: pagerduty"),
        ([{"name": "a", "type": "email"}], "channels[0].to: is required"),
        ([{"name": "a", "type": "email", "to": []}], "channels[0].to: must list at least 1"),
        ([{"name": "a", "type": "email", "to": ["x"]}], "channels[0].to[0]: must be a mail address"),
        ([{"name": "a", "type": "email", "to": ["a@b.example"]}], "email.from: must be set: a in channels sends mail"),
        ([{"name": "a"}], "channels[0].type: is required; known: pagerduty"),
        (["a"], "channels[0]: must be a mapping"),
        ([ONCALL, ONCALL], "channels: every channel needs its own name; this one is used more than once: oncall"),
        (
            [ONCALL | {"name": "pagerduty"}],
            "channels: pagerduty is the channel that the section of that name configures",
        ),
        ([ONCALL | {"name": "On call"}], "channels[0].name: must be 1 to 63 lower-case letters"),
        ([ONCALL | {"routing_key": None}], "channels[0].routing_key: is required, here or by routing_key_file"),
        ([ONCALL | {"routing_key": "short"}], "channels[0].routing_key: must be the 32 characters"),
        ([ONCALL | {"routing_kee": KEY}], "channels[0].routing_kee: unknown key; did you mean `routing_key`?"),
        ([ONCALL | {"timeout": 5}], "channels[0].timeout: has no unit"),
        ([ONCALL | {"rate_limit": 0}], "channels[0].rate_limit: must be at least 1"),
    ],
)
def test_refused(channels: list[Any], problem: str) -> None:
    """The error gives the path and the valid form, and never a secret."""
    with pytest.raises(ConfigError) as caught:
        settings(*channels)
    assert str(caught.value).startswith(problem)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            {"rules": [{"name": "x", "to": ["oncal"]}]},
            "alerts.rules[0].to[0]: rule x: is not the name of a channel; did you mean oncall?",
        ),
        ({"to": ["nobody"]}, "alerts.to[0]: is not the name of a channel; known: pagerduty, oncall"),
        ({"to": ["email"]}, "alerts.to[0]: carries the daily report and no incidents"),
        ({"to": ["slack"]}, "alerts.to[0]: is not the name of a channel; known: pagerduty, oncall"),
        ({"rules": [{"name": "x", "to": ["oncall"], "routing_key": OTHER}]}, "alerts.rules[0].to: set either to or"),
    ],
)
def test_refused_names(overrides: dict[str, Any], problem: str) -> None:
    """An unknown channel in a rule is refused by name, with a suggestion."""
    with pytest.raises(ConfigError) as caught:
        settings(ONCALL, **overrides)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize("name", ["slack", "webhook", "alertmanager", "apprise"])
def test_a_channel_may_have_the_name_of_a_type(name: str) -> None:
    """A new type does not break existing configurations."""
    found = settings(ONCALL | {"name": name}, to=[name])
    assert [channel.name for channel in configured(found) if channel.configured] == [name]


def test_every_unknown_name_is_told() -> None:
    """All unknown names are reported at once."""
    with pytest.raises(ConfigError) as caught:
        settings(to=["a", "b"], rules=[{"name": "x", "to": ["c"]}])
    assert len(caught.value.problems) == 3


def test_routes() -> None:
    """Rules with the same channels share a route and thus storms; the section's channel alone is the default route."""
    rules = [
        {"name": "both", "match": ["a"], "to": ["oncall", "pagerduty", "oncall"]},
        {"name": "both again", "match": ["b"], "to": ["pagerduty", "oncall"]},
        {"name": "own", "match": ["c"], "routing_key": OTHER},
        {"name": "section", "match": ["d"], "to": ["pagerduty"]},
        {"name": "none", "match": ["e"]},
    ]
    policy = policy_of(settings(ONCALL, rules=rules, **{"pagerduty.routing_key": KEY}))
    assert [(rule.route, set(rule.to)) for rule in policy.rules] == [
        ("oncall,pagerduty", {"oncall", "pagerduty"}),
        ("oncall,pagerduty", {"oncall", "pagerduty"}),
        ("own", {"pagerduty"}),
        ("", {"pagerduty"}),
        ("", {"pagerduty"}),
    ]
    assert (policy.default.route, policy.default.to) == ("", ("pagerduty",))


def test_the_default_destination() -> None:
    """``alerts.to`` applies to failures whose rule has no ``to``; channels that are off are omitted."""
    policy = policy_of(settings(ONCALL, to=["oncall"], rules=[{"name": "x"}, {"name": "y", "to": ["pagerduty"]}]))
    assert (policy.default.route, policy.default.to) == ("oncall", ("oncall",))
    assert [(rule.route, rule.to) for rule in policy.rules] == [("oncall", ("oncall",)), ("", ())]


def test_a_channel_that_nothing_is_sent_to() -> None:
    """It is valid, with a warning."""
    (warning,) = warnings_of(settings(ONCALL))
    assert str(warning).startswith("channels[0]: nothing is sent to oncall")
    assert list(warnings_of(settings(ONCALL, to=["oncall"]))) == []


def test_what_is_configured(tmp_path: Path) -> None:
    """Each entry is a channel, and its current secret is hidden in the log."""
    key = tmp_path / "key"
    key.write_text(OTHER)
    file = {"name": "second", "type": "pagerduty", "routing_key_file": str(key), "region": "eu"}
    found = settings(ONCALL, file, to=["oncall", "second"])
    names = [channel.name for channel in configured(found) if channel.configured]
    assert names == ["oncall", "second"]
    assert {KEY, OTHER} <= set(secrets_of(found)())
    assert KEY not in repr(found)


def test_from_the_environment() -> None:
    """The list is JSON in a variable."""
    found = load(None, None, {"CELERY_MONITOR_CHANNELS": f'[{{"name":"a","type":"pagerduty","routing_key":"{KEY}"}}]'})
    assert [channel.name for channel in found.channels] == ["a"]
    with pytest.raises(ConfigError, match=r"CELERY_MONITOR_CHANNELS\[0\]\.type: is required"):
        load(None, None, {"CELERY_MONITOR_CHANNELS": '[{"name":"a"}]'})


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, (600.0, False, 1800.0)),
        (
            {"pagerduty.update_interval": "1m", "pagerduty.resolve": "on_success", "pagerduty.resolve_after": "2m"},
            (60.0, True, 120.0),
        ),
        (
            {"alerts.update_interval": "1m", "alerts.resolve": "on_success", "alerts.resolve_after": "0s"},
            (60.0, True, 0.0),
        ),
        ({"pagerduty.resolve": "on_success", "alerts.resolve": "never"}, (600.0, False, 1800.0)),
    ],
)
def test_what_holds_for_all_channels(given: dict[str, Any], policy: tuple[float, bool, float]) -> None:
    """The section of the first channel applies unless ``alerts`` has the setting."""
    found = policy_of(settings(**given))
    assert (found.update_interval, found.resolve_on_success, found.resolve_after) == policy
