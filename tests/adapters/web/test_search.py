"""Search by typed names."""

import time

import pytest

from celery_monitor.adapters.web import search
from celery_monitor.adapters.web.search import find, suggestions

NAMES = ["shop.billing.charge", "shop.billing.refund", "shop.mail.Send", "weird[0-9]*", "shop.billing", "STRASSE"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("charge", ["shop.billing.charge"]),
        ("BILLING.", ["shop.billing.charge", "shop.billing.refund"]),
        ("shop.billing", ["shop.billing"]),
        ("mail.send", ["shop.mail.Send"]),
        (" refund ", ["shop.billing.refund"]),
        ("shop.*.?efund", ["shop.billing.refund"]),
        ("*charge", ["shop.billing.charge"]),
        ("billing*", []),
        ("[0-9]", ["weird[0-9]*"]),
        ("*[0-9]*", ["weird[0-9]*"]),
        ("straße", ["STRASSE"]),
        ("none", []),
        ("(", []),
        ("\\", []),
    ],
)
def test_names(text: str, found: list[str]) -> None:
    """A part finds all names that contain it, in any case.

    A whole name finds only itself; a pattern matches whole names.
    """
    assert find(text, NAMES) == found


def test_a_hostile_pattern_is_quick() -> None:
    """Many stars do not slow it down."""
    begun = time.process_time()
    find("*a" * 100 + "b", ["a" * 255] * 200)
    assert time.process_time() - begun < 20


def test_what_may_have_been_meant() -> None:
    """For a typo, the most similar names are suggested."""
    assert suggestions("shop.biling.chrage", NAMES)[0] == "shop.billing.charge"
    assert suggestions("chrage", NAMES) == ["shop.billing.charge"]
    assert suggestions("", NAMES) == []


def test_hostile_names_are_compared_for_a_bounded_time() -> None:
    """Few letters in long names are the worst case; typical names are all compared."""
    hostile = [f"{number:011b}".replace("0", "a").replace("1", "b") * 40 for number in range(2_000)]
    compared = search._first(hostile, search._COMPARED // len(hostile[0]))
    assert len(compared) * len(hostile[0]) ** 2 <= search._COMPARED
    assert 0 < len(compared) < 20
    usual = [f"shop.billing.charge_{number}" for number in range(2_000)]
    assert search._first(usual, search._COMPARED // 30) == usual
    assert find("*a" * 8_000, ["a"]) == []  # nor is it compiled
    assert suggestions("a" * 16_000, hostile) == []
