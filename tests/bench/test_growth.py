"""docs/sizing.md agrees with the measurements."""

from pathlib import Path

import pytest

from bench import growth


@pytest.fixture(autouse=True)
def _at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])


def test_the_rules_of_thumb_are_within_a_quarter_of_the_curves() -> None:
    """Each rule is, and every curve exists."""
    curves = growth.written()
    assert curves.keys() == growth.CURVES.keys()
    assert growth.wrong_rules(curves) == []


def test_a_rule_that_is_off_is_named() -> None:
    """With the documented and the measured value."""
    curves = {"workers": growth.Curve("Workers", ("workers", "memory (MB)"), [(1, 100.0), (1001, 120.0)])}
    (wrong,) = growth.wrong_rules(curves)
    assert "MB of memory for 'every 100 workers'; measured: 2" in wrong
