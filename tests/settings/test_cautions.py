"""What is valid and hardly meant."""

from typing import Any

import pytest

from celery_monitor.settings import load
from celery_monitor.settings.cautions import warnings_of

Rule = dict[str, Any]


def cautions(*rules: Rule, **email: Any) -> dict[str, str]:
    """The warnings by path, of these rules and this mail server."""
    given: list[Rule] = [{"name": str(number), **rule} for number, rule in enumerate(rules)]
    overrides: dict[str, object] = {"alerts.rules": given} | {f"email.{key}": value for key, value in email.items()}
    return {warning.path: warning.message for warning in warnings_of(load(overrides=overrides, environ={}))}


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
    """Where an earlier rule matches all that a later one matches, the later one is told, with the name of the other."""
    found = cautions(earlier, later)
    assert list(found) == ["alerts.rules[1]"]
    assert "never decides: 0 (alerts.rules[0]) matches all" in found["alerts.rules[1]"]


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
    """Where something may be left for the later rule, nothing is said."""
    assert cautions(earlier, later) == {}


def test_each_rule_is_told_once() -> None:
    """Of two rules in the way, the first is named."""
    found = cautions({}, {}, {"match": ["a"]})
    assert list(found) == ["alerts.rules[1]", "alerts.rules[2]"]
    assert "0 (alerts.rules[0])" in found["alerts.rules[2]"]


def test_a_password_in_clear_text() -> None:
    """security: none with a password is told; without one, or encrypted, it is not."""
    assert list(cautions(security="none", username="u", password="p")) == ["email.security"]
    assert cautions(security="none") == {}
    assert cautions(security="tls", username="u", password="p") == {}
