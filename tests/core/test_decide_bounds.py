"""The number of incidents in memory is bounded, and pages are still sent."""

from collections import Counter
from dataclasses import replace
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from celery_monitor.core.decide import Decider
from celery_monitor.core.model import Action, IncidentState, Reason, Severity
from celery_monitor.core.rules import Policy, Rule
from celery_monitor.core.storm import StormDetector
from tests.builders import NOON, failed

MAX_OPEN = 40


def decider(*rules: Rule, storm_tasks: int = 5, **policy: object) -> tuple[Decider, Counter[str]]:
    """A decider that sends, with a limit of few incidents."""
    overflows = Counter[str]()
    sending = [replace(rule, to=("oncall",)) for rule in rules]
    default = Rule(to=("oncall",))
    made = Policy(rules=sending, default=default, storm_tasks=storm_tasks, **policy)  # type: ignore[arg-type]
    return Decider(made, max_incidents=MAX_OPEN, overflows=overflows), overflows


def test_part_of_a_storm_is_forgotten_for_what_comes() -> None:
    """However many tasks fail, memory is bounded; each forgotten incident is stored, and each page is sent."""
    of, overflows = decider()
    written = set[str]()
    for number in range(1000):
        verdict = of.decide(failed(f"x{number}", uuid=f"u{number}"), NOON)
        assert verdict.reason in {Reason.OPENED, Reason.STORM_OPENED, Reason.STORM_JOINED}
        assert len(of) <= MAX_OPEN + 1
        if not number % 30:
            written |= {one.key for one in of.take()[0]}
    written |= {one.key for one in of.take()[0]}
    assert len(written) == 1001
    assert overflows["incidents"] > 900


def test_where_all_are_open_a_page_comes_in_a_storm() -> None:
    """If all incidents are open, a failure joins a storm of its own severity."""
    critical = Rule(name="billing", match=["billing.*"], severity=Severity.CRITICAL)
    of, overflows = decider(critical, storm_tasks=10_000)
    for number in range(MAX_OPEN):
        assert of.decide(failed(f"x{number}"), NOON).reason is Reason.OPENED
    of.take()
    verdict = of.decide(failed("billing.charge"), NOON)
    assert verdict.reason is Reason.STORM_OPENED
    changed, outbox = of.take()
    (storm,) = [one for one in changed if one.key == verdict.incident]
    assert (storm.state, storm.severity, storm.tasks) == (IncidentState.OPEN, Severity.CRITICAL, {"billing.charge": 1})
    assert [(row.key, row.action) for row in outbox] == [(verdict.incident, Action.TRIGGER)]
    assert of.decide(failed("x1"), NOON).reason is Reason.JOINED
    assert overflows["incidents"] == 1
    of.tick(NOON + 4 * 3600)
    of.take()
    assert of.decide(failed("billing.charge", NOON + 4 * 3600), NOON + 4 * 3600).reason is Reason.OPENED


def test_a_rule_that_does_not_page_does_not_page_for_want_of_room() -> None:
    """Beyond the limit, its failures are only counted."""
    of, overflows = decider(Rule(name="quiet", match=["quiet"], page=False), storm_tasks=10_000)
    for number in range(MAX_OPEN):
        of.decide(failed(f"x{number}"), NOON)
    verdict = of.decide(failed("quiet"), NOON)
    assert (verdict.reason, verdict.incident, overflows["incidents"]) == (Reason.SILENCED, None, 1)


@pytest.mark.parametrize("resolve", [False, True])
def test_a_store_that_is_away(*, resolve: bool) -> None:
    """While the store is unavailable for two days, ended incidents and pending rows stay bounded."""
    of, _ = decider(storm_tasks=10_000, resolve_on_success=resolve)
    for hour in range(48):
        at = NOON + hour * 3600
        for number in range(30):
            verdict = of.decide(failed(f"x{number}", at), at)
            assert verdict.incident is not None
            of.succeeded(f"x{number}", at + 1)
        for minute in range(1, 60):
            of.tick(at + minute * 60)
        assert len(of) + len(of._registry.closed) <= 2 * MAX_OPEN + hour + 1  # a storm an hour
        assert len(of._registry.outbox) <= 2 * (len(of) + len(of._registry.closed))
    changed, outbox = of.take()
    known = {one.key for one in changed}
    assert {row.key for row in outbox} <= known


def test_the_tasks_of_a_storm_are_bounded() -> None:
    """Beyond a limit they are not named; it remains a storm."""
    storms = StormDetector(tasks=20, window=300.0)
    for number in range(5000):
        recent = storms.recent(NOON, 1, exception="E", hostname="h", queue="q", uuid="u")
        assert storms.note("", Severity.ERROR, f"x{number}", recent) == (number >= 20)
    assert len(storms.tasks("", Severity.ERROR)) == 1020


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Severity)),
            st.sampled_from("abcd"),
            st.floats(NOON, NOON + 900.0),
            st.integers(1, 3),
        ),
        max_size=30,
    )
)
def test_a_repeated_failure_is_added_in_place_only_where_that_changes_nothing_else(
    failures: list[tuple[Severity, str, float, int]],
) -> None:
    """A more severe rule keeps its own record of the task, and all counts equal those without the shortcut."""
    quick, slow = (StormDetector(tasks=2, window=300.0) for _ in range(2))
    with mock.patch.object(slow, "_repeated", return_value=False):
        for number, (severity, task, at, count) in enumerate(failures):
            recent = quick.recent(at, count, exception="E", hostname="h", queue="q", uuid=str(number))
            assert quick.note("", severity, task, structs.replace(recent)) == slow.note("", severity, task, recent)
            for each in Severity:
                assert quick.tasks("", each) == slow.tasks("", each)
