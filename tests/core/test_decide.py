"""Decides which failures page."""

from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from celery_monitor.core.decide import Decider
from celery_monitor.core.model import STORM, Action, Incident, IncidentState, Reason, Severity
from celery_monitor.core.rules import Policy, Rule, dedup_key, window
from tests.builders import NOON, failed

HOUR = 3600.0
KEY = "shop.pay/2023-11-15T12Z"


SEVERITIES = [Rule(name=severity, match=[f"{severity}.*"], severity=severity) for severity in Severity]


def decider(**changes: Any) -> Decider:
    """A decider with the default policy. ``to``: the channels of every rule."""
    to = changes.pop("to", ("oncall",))
    policy = replace(Policy(fleet="shop"), **changes)
    rules = [replace(rule, to=to) for rule in policy.rules]
    return Decider(replace(policy, rules=rules, default=replace(policy.default, to=to)))


def sent(of: Decider) -> list[tuple[str, Action]]:
    """Outbox rows since the last call."""
    return [(row.key, row.action) for row in of.take()[1]]


def incidents(of: Decider) -> dict[str, Incident]:
    """Changed incidents since the last call, by key."""
    return {one.key: one for one in of.take()[0]}


@pytest.mark.parametrize(
    ("zone", "hour"),
    [
        ("UTC", "2023-11-15T12Z"),
        ("Asia/Kolkata", "2023-11-15T17+05:30"),
        ("Asia/Kathmandu", "2023-11-15T17+05:45"),
        ("America/New_York", "2023-11-15T07-05:00"),
        ("Europe/London", "2023-11-15T12+00:00"),
    ],
)
def test_hours(zone: str, hour: str) -> None:
    """The hour of the failure in the zone, with its offset; Z for UTC."""
    assert window(NOON, ZoneInfo(zone)) == hour


def test_long_keys() -> None:
    """Over 255 characters: the first 238, a tilde, 16 hex digits of the whole key's sha256."""
    assert dedup_key("{task}", {"task": "a" * 255}) == "a" * 255
    one, other = (dedup_key("{task}/x", {"task": "a" * 300 + end}) for end in "bc")
    assert len(one) == 255
    assert one[:239] == "a" * 238 + "~"
    assert one != other


def test_a_key_with_braces_in_a_name_is_not_a_template() -> None:
    """Braces in hostile task names are not expanded."""
    assert dedup_key("{task}/{hour}", {"task": "{hour}{x}", "hour": "H"}) == "{hour}{x}/H"


def test_doubled_braces_are_braces() -> None:
    """Doubled braces are literal, as documented; a name inside of them is not a placeholder."""
    assert dedup_key("{{x}}/{task}", {"task": "t"}) == "{x}/t"


def test_one_incident_per_task_and_hour() -> None:
    """The first failure opens it, later ones of the hour join it, and the next hour opens another one."""
    of = decider()
    verdicts = [of.decide(failed(at=NOON + minutes * 60), NOON + HOUR) for minutes in (0, 1, 59, 60, 61)]
    assert [verdict.reason for verdict in verdicts] == [
        Reason.OPENED,
        Reason.JOINED,
        Reason.JOINED,
        Reason.OPENED,
        Reason.JOINED,
    ]
    assert sent(of) == [(KEY, Action.TRIGGER), ("shop.pay/2023-11-15T13Z", Action.TRIGGER)]


def test_what_an_incident_holds() -> None:
    """Counts, first and last failure by the failures' own times in any order, the last message, five samples."""
    of = decider()
    for number, at in enumerate((30, 10, 50, 20, 40, 0, 5)):
        of.decide(failed(at=NOON + at, uuid=f"u{number}", message=f"at {at}", hostname=f"w{number % 2}"), NOON)
    one = incidents(of)[KEY]
    assert (one.count, one.first_at, one.last_at, one.message) == (7, NOON, NOON + 50, "at 50")
    assert one.samples == ("u0", "u1", "u2", "u3", "u4")
    assert one.last_uuid == "u2"
    assert dict(one.workers) == {"w0": 4, "w1": 3}
    assert one.state is IncidentState.OPEN


def test_what_is_counted_apart_is_bounded() -> None:
    """Beyond twenty names, the rest is counted as other."""
    of = decider()
    for number in range(100):
        of.decide(failed(hostname=f"w{number}"), NOON)
    workers = incidents(of)[KEY].workers
    assert len(workers) == 21
    assert workers["other"] == 80


def test_threshold() -> None:
    """Below the threshold nothing is sent; the incident counts from its first failure."""
    of = decider(rules=[Rule(match=["shop.*"], threshold=3)])
    assert [of.decide(failed(), NOON).reason for _ in range(4)] == [
        Reason.BELOW_THRESHOLD,
        Reason.BELOW_THRESHOLD,
        Reason.OPENED,
        Reason.JOINED,
    ]
    assert sent(of) == [(KEY, Action.TRIGGER)]


MATCHES = {
    "task": (Rule(match=["shop.*"]), True),
    "other task": (Rule(match=["blog.*"]), False),
    "whole name only": (Rule(match=["shop"]), False),
    "one of several": (Rule(match=["blog.*", "shop.pay"]), True),
    "excluded": (Rule(match=["shop.*"], exclude=["*.pay"]), False),
    "queue": (Rule(queues=["p?y"]), True),
    "other queue": (Rule(queues=["mail"]), False),
    "exception": (Rule(exceptions=["*Error"]), True),
    "all of them": (Rule(match=["shop.*"], queues=["pay"], exceptions=["KeyError"]), False),
    "everything": (Rule(), True),
}


@pytest.mark.parametrize(("rule", "matches"), MATCHES.values(), ids=MATCHES)
def test_rules(rule: Rule, matches: bool) -> None:  # noqa: FBT001  # a column of the table
    """Globs match task, queue and exception; all given ones must match."""
    of = decider(rules=[replace(rule, name="r", severity=Severity.CRITICAL)])
    of.decide(failed(), NOON)
    assert incidents(of)[KEY].severity is (Severity.CRITICAL if matches else Severity.ERROR)


def test_the_first_rule_decides() -> None:
    """The first matching rule applies."""
    of = decider(rules=[Rule(name="a", match=["shop.*"], page=False), Rule(name="b", match=["shop.*"])])
    assert of.decide(failed(), NOON).reason is Reason.SILENCED
    (one,) = incidents(of).values()
    assert (one.rule, one.state, one.reason) == ("a", IncidentState.SUPPRESSED, Reason.SILENCED)
    assert sent(of) == []


def test_a_silenced_exception_hides_no_other() -> None:
    """Each failure is evaluated by its own rule, regardless of the first failure of the hour."""
    rules = [Rule(name="quiet", exceptions=["Timeout"], page=False), Rule(name="rest", severity=Severity.CRITICAL)]
    of = decider(rules=rules)
    kinds = ("Timeout", "Timeout", "ValueError", "Timeout")
    reasons = [of.decide(failed(exception=kind), NOON).reason for kind in kinds]
    assert reasons == [Reason.SILENCED, Reason.SILENCED, Reason.OPENED, Reason.JOINED]
    assert sent(of) == [(KEY, Action.TRIGGER)]
    of.decide(failed(), NOON)
    one = incidents(of)[KEY]
    assert (one.rule, one.severity, one.count) == ("rest", Severity.CRITICAL, 5)


def test_an_incident_goes_to_the_service_of_the_failure_that_opens_it() -> None:
    """It waits for the threshold of that failure's rule, not that of a rule for other exceptions."""
    rules = [Rule(name="net", exceptions=["Timeout"], threshold=100, route="net"), Rule(name="rest", route="rest")]
    of = decider(rules=rules)
    assert of.decide(failed(exception="Timeout"), NOON).reason is Reason.BELOW_THRESHOLD
    assert of.decide(failed(), NOON).reason is Reason.OPENED
    assert [row.route for row in of.take()[1]] == ["rest"]


def test_silenced_failures_are_not_part_of_the_way_to_a_threshold() -> None:
    """Silenced failures do not count towards a threshold, before or after a restart."""
    rules = [Rule(name="quiet", exceptions=["Timeout"], page=False), Rule(name="rest", threshold=3)]
    of = decider(rules=rules)
    for kind in ("Timeout", "ValueError", "Timeout", "Timeout", "ValueError"):
        of.decide(failed(exception=kind), NOON)
    again = restarted(of, rules=rules)
    reasons = [again.decide(failed(exception=kind), NOON).reason for kind in ("Timeout", "ValueError")]
    assert reasons == [Reason.SILENCED, Reason.OPENED]
    assert incidents(again)[KEY].count == 7


def test_too_old() -> None:
    """Failures that are older than max_age when they are read never page."""
    of = decider(max_age=7200.0)
    assert of.decide(failed(at=NOON), NOON + 7201).reason is Reason.TOO_OLD
    assert sent(of) == []
    assert of.decide(failed(at=NOON), NOON + 7199).reason is Reason.OPENED


def test_read_after_midnight() -> None:
    """The key has the failure's own hour, regardless of when it is read."""
    of = decider()
    assert of.decide(failed(at=NOON + 11.99 * HOUR), NOON + 13 * HOUR).incident == "shop.pay/2023-11-15T23Z"


def test_an_incident_keeps_its_window_until_nothing_can_join_it() -> None:
    """Then it expires once and leaves memory."""
    of = decider()
    of.decide(failed(at=NOON), NOON)
    of.take()
    of.tick(NOON + HOUR + 7200)
    assert incidents(of) == {}
    of.tick(NOON + HOUR + 7200 + 1)
    assert incidents(of)[KEY].state is IncidentState.EXPIRED
    assert of.open_count == 0


def test_updates_are_rare() -> None:
    """An open incident with further failures is updated at most every update_interval."""
    of = decider(update_interval=600.0)
    rows = []
    for second in range(0, 1800, 10):
        of.decide(failed(at=NOON + second), NOON + second)
        of.tick(NOON + second)
        rows += sent(of)
    assert rows == [(KEY, Action.TRIGGER)] * 3
    for second in range(1800, 3600, 10):
        of.tick(NOON + second)
        rows += sent(of)
    assert len(rows) == 4  # the last failures, and then nothing more


def test_resolved_by_a_success() -> None:
    """It resolves after a success and resolve_after without failures; a later failure reopens it."""
    of = decider(resolve_on_success=True, resolve_after=600.0)
    of.decide(failed(at=NOON), NOON)
    of.succeeded("shop.pay", NOON - 1)
    of.tick(NOON + 700)
    assert sent(of) == [(KEY, Action.TRIGGER)]
    of.succeeded("shop.pay", NOON + 100)
    of.tick(NOON + 599)
    assert sent(of) == []
    of.tick(NOON + 601)
    assert sent(of) == [(KEY, Action.RESOLVE)]
    assert "shop.pay" not in of.awaited
    assert of.decide(failed(at=NOON + 900), NOON + 900).reason is Reason.REOPENED
    assert sent(of) == [(KEY, Action.TRIGGER)]


@pytest.mark.parametrize("again", [False, True], ids=["", "after a restart"])
def test_no_incident_is_resolved_while_its_task_fails_in_another_hour(*, again: bool) -> None:
    """After the hour has changed, some runs succeed and others fail: neither incident of the task resolves."""
    policy = {"resolve_on_success": True, "resolve_after": 60.0}
    of = decider(**policy)
    turn = NOON + HOUR
    of.decide(failed(at=turn - 80), turn - 80)
    of.succeeded("shop.pay", turn - 70)
    of.decide(failed(at=turn + 3), turn + 3)
    if again:
        of = restarted(of, **policy)
    of.succeeded("shop.pay", turn + 4)
    of.tick(turn + 17)
    of.tick(turn + 62)
    assert Action.RESOLVE not in {action for _, action in sent(of)}
    of.tick(turn + 64)
    assert sent(of) == [(KEY, Action.RESOLVE), ("shop.pay/2023-11-15T13Z", Action.RESOLVE)]


def test_failures_that_do_not_page_are_no_quiet() -> None:
    """Failures below the threshold or too old also prevent the resolution."""
    of = decider(resolve_on_success=True, resolve_after=60.0, rules=[Rule(threshold=2)])
    turn = NOON + HOUR
    for at in (turn - 90, turn - 80, turn + 3):
        of.decide(failed(at=at), at)
    of.succeeded("shop.pay", turn - 70)
    of.tick(turn + 10)
    assert sent(of) == [(KEY, Action.TRIGGER)]
    of.tick(turn + 64)  # quiet by now, and the newest failure has had no success
    assert sent(of) == []
    of.succeeded("shop.pay", turn + 65)
    of.tick(turn + 66)
    assert sent(of) == [(KEY, Action.RESOLVE)]


def test_an_incident_of_several_tasks_ends_when_each_is_well() -> None:
    """If the key does not contain the task, every task has to succeed."""
    of = decider(resolve_on_success=True, resolve_after=60.0, dedup_key="{queue}/{hour}")
    for task in ("a", "b"):
        of.decide(failed(task=task), NOON)
    of.succeeded("a", NOON + 1)
    of.tick(NOON + 70)
    of.succeeded("b", NOON + 71)
    assert len(sent(of)) == 1
    of.tick(NOON + 72)
    assert [action for _, action in sent(of)] == [Action.RESOLVE]


def test_a_storm_is_not_over_while_it_goes_on_in_the_next_hour() -> None:
    """Neither storm resolves before both have had no failures for long enough."""
    of = decider(storm_tasks=1, storm_window=600.0, resolve_on_success=True, resolve_after=60.0)
    turn = NOON + HOUR
    for at in (turn - 50, turn + 1):
        for task in ("a", "b", "c"):
            of.decide(failed(task=task, at=at), at)
    of.take()
    of.tick(turn + 30)
    assert sent(of) == []
    of.tick(turn + 62)
    assert [key for key, action in sent(of) if action is Action.RESOLVE and key.startswith(STORM)] == [
        "storm/2023-11-15T12Z/*",
        "storm/2023-11-15T13Z/*",
    ]


def test_never_resolved_by_default() -> None:
    """By default, only people resolve incidents."""
    of = decider()
    of.decide(failed(), NOON)
    assert not of.awaited
    of.succeeded("shop.pay", NOON + 1)
    of.tick(NOON + 3000)
    assert sent(of) == [(KEY, Action.TRIGGER)]


def test_storm() -> None:
    """Tasks above the number share one incident; those sent before keep their own."""
    of = decider(storm_tasks=20)
    verdicts = [of.decide(failed(task=f"t{number}", at=NOON + number), NOON + number) for number in range(200)]
    rows = sent(of)
    assert len(rows) == 21
    assert rows[-1] == ("storm/2023-11-15T12Z/*", Action.TRIGGER)
    assert [verdict.reason for verdict in verdicts[20:22]] == [Reason.STORM_OPENED, Reason.STORM_JOINED]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_task_called_storm_is_not_one(*, restarted: bool) -> None:
    """A task named storm has its own incident beside a storm of the same hour, which resolves with its own success."""
    policy = {"storm_tasks": 2, "resolve_on_success": True, "resolve_after": 60.0}
    of = decider(**policy)
    for task in ("storm", "a", "b", "c"):
        of.decide(failed(task=task), NOON)
    incidents, rows = of.take()
    keys = ["storm/2023-11-15T12Z", "a/2023-11-15T12Z", "storm/2023-11-15T12Z/*"]
    assert [row.key for row in rows] == keys
    assert {one.key: one.is_storm for one in incidents if one.task == STORM} == {keys[0]: False, keys[2]: True}
    if restarted:
        of = decider(**policy)
        of.restore(incidents, NOON)
    of.tick(NOON + 61)
    assert sent(of) == [(keys[2], Action.RESOLVE)]
    of.succeeded("storm", NOON + 62)
    of.tick(NOON + 63)
    assert sent(of) == [(keys[0], Action.RESOLVE)]


def test_a_task_called_storm_may_be_part_of_one() -> None:
    """Its own incident is then suppressed, and is not treated as a storm after a restart."""
    of = decider(storm_tasks=1)
    for task in ("a", "storm", "b"):
        of.decide(failed(task=task), NOON)
    incidents, rows = of.take()
    assert [row.key for row in rows] == ["a/2023-11-15T12Z", "storm/2023-11-15T12Z/*"]
    assert {one.key: (one.is_storm, one.count) for one in incidents if one.task == STORM} == {
        "storm/2023-11-15T12Z": (False, 1),
        "storm/2023-11-15T12Z/*": (True, 3),
    }


def test_after_a_storm_a_task_that_still_fails_pages() -> None:
    """The storm's incident replaces the task's only while the storm lasts."""
    of = decider(storm_tasks=2, storm_window=300.0)
    for number in range(5):
        of.decide(failed(task=f"t{number}"), NOON)
    of.take()
    verdict = of.decide(failed(task="t4", at=NOON + 400), NOON + 400)
    assert verdict.reason is Reason.OPENED
    assert sent(of) == [("t4/2023-11-15T12Z", Action.TRIGGER)]


def test_a_storm_never_hides_what_is_more_severe_than_what_made_it() -> None:
    """However many less severe tasks fail, each severity has its own storm of that severity."""
    of = decider(storm_tasks=2, rules=SEVERITIES)
    for severity in ("info", "warning", "error", "critical"):
        reasons = [of.decide(failed(task=f"{severity}.{number}"), NOON).reason for number in range(4)]
        assert reasons == [Reason.OPENED, Reason.OPENED, Reason.STORM_OPENED, Reason.STORM_JOINED]
    storms = {key: one for key, one in incidents(of).items() if one.is_storm}
    assert {key: (one.task, one.severity, one.count) for key, one in storms.items()} == {
        "storm/2023-11-15T12Z/info/*": (STORM, Severity.INFO, 4),
        "storm/2023-11-15T12Z/warning/*": (STORM, Severity.WARNING, 4),
        "storm/2023-11-15T12Z/*": (STORM, Severity.ERROR, 4),
        "storm/2023-11-15T12Z/critical/*": (STORM, Severity.CRITICAL, 4),
    }


def test_what_is_less_severe_than_a_storm_joins_one() -> None:
    """If everything fails, the number of pages does not grow with the number of severities."""
    of = decider(storm_tasks=2, rules=SEVERITIES)
    tasks = ("critical.1", "critical.2", "error.1", "warning.1", "info.1", "critical.3")
    reasons = [of.decide(failed(task=task), NOON).reason for task in tasks]
    assert reasons == [Reason.OPENED, Reason.OPENED, *[Reason.STORM_OPENED] * 4]


@pytest.mark.parametrize("again", [False, True], ids=["", "after a restart"])
def test_a_critical_task_pages_in_a_storm_of_noise(*, again: bool) -> None:
    """It pages although 21 less severe tasks have failed, some before a restart."""
    of = decider(storm_tasks=20, rules=SEVERITIES)
    for number in range(21):
        of.decide(failed(task=f"noise.{number}"), NOON + number)
    if again:
        of = restarted(of, storm_tasks=20, rules=SEVERITIES)
    of.take()
    assert of.decide(failed(task="critical.charge", at=NOON + 30), NOON + 30).reason is Reason.OPENED
    assert sent(of) == [("critical.charge/2023-11-15T12Z", Action.TRIGGER)]


def test_a_storm_tells_at_once_of_all_that_made_it() -> None:
    """Its first text includes the failures of the tasks that paged before it, as do later ones."""
    of = decider(storm_tasks=20)
    for number in range(20):
        for _ in range(3):
            of.decide(failed(task=f"t{number}", exception="KeyError"), NOON)
    of.decide(failed(task="last", exception="OSError"), NOON + 1)
    storm = of.take()[0][-1]
    assert (storm.count, len(storm.tasks), storm.first_at) == (61, 21, NOON)
    assert (dict(storm.exceptions), storm.tasks["t7"], storm.tasks["last"]) == ({"KeyError": 60, "OSError": 1}, 3, 1)
    of.decide(failed(task="t7", at=NOON + 2), NOON + 2)
    assert of.take()[0][-1].count == 62


def test_a_storm_that_outlasts_its_hour_tells_of_all_its_tasks() -> None:
    """The storm of the new hour starts with the failures within the window, not with a single failure."""
    of = decider(storm_tasks=20, storm_window=300.0)
    for second in range(3480, 3600, 60):
        for number in range(30):
            of.decide(failed(task=f"t{number}", at=NOON + second), NOON + second)
    of.take()
    assert of.decide(failed(task="t29", at=NOON + HOUR), NOON + HOUR).reason is Reason.STORM_OPENED
    (storm,) = [one for one in of.take()[0] if one.is_storm]
    assert (storm.key, storm.count, len(storm.tasks)) == ("storm/2023-11-15T13Z/*", 61, 30)


def test_a_second_storm_of_an_hour_tells_of_what_made_it() -> None:
    """After the first storm was resolved, its failures are not counted again."""
    of = decider(storm_tasks=2, storm_window=60.0, resolve_on_success=True, resolve_after=60.0)
    for task in "abc":
        of.decide(failed(task=task), NOON)
    of.tick(NOON + 61)
    assert incidents(of)["storm/2023-11-15T12Z/*"].state is IncidentState.RESOLVED
    for task in "defg":
        of.decide(failed(task=task, at=NOON + 1000), NOON + 1000)
    storm = incidents(of)["storm/2023-11-15T12Z/*"]
    assert (storm.state, storm.count, sorted(storm.tasks)) == (IncidentState.OPEN, 7, list("abcdefg"))


def test_storms_of_fleets_that_share_a_routing_key() -> None:
    """A dedup key that contains the fleet keeps their storms separate."""
    of = decider(storm_tasks=1, dedup_key="{fleet}/{task}/{hour}")
    for task in "ab":
        of.decide(failed(task=task), NOON)
    assert sent(of) == [("shop/a/2023-11-15T12Z", Action.TRIGGER), ("storm/shop/2023-11-15T12Z/*", Action.TRIGGER)]


def test_storms_of_another_service_are_their_own() -> None:
    """A rule with its own routing key has its own storm, so that its team is paged."""
    rules = [Rule(name="pay", match=["pay.*"], route="pay")]
    of = decider(storm_tasks=1, rules=rules)
    for task in ("a", "b", "pay.a", "pay.b"):
        of.decide(failed(task=task), NOON)
    rows = {(row.key, row.route) for row in of.take()[1]}
    assert {("storm/2023-11-15T12Z/*", ""), ("storm/pay/2023-11-15T12Z/*", "pay")} <= rows


def test_clocks_that_are_ahead_make_no_storm_that_lasts() -> None:
    """Failures of a worker whose clock is hours ahead count at the time of reading, so their storm ends soon."""
    of = decider(storm_tasks=5)
    for number in range(10):
        of.decide(failed(task=f"t{number}", at=NOON + 12 * HOUR), NOON)
    assert of.decide(failed(at=NOON + 400), NOON + 400).reason is Reason.OPENED


def test_each_hour_has_its_own_storm_however_long_its_rule_is_called() -> None:
    """The hour is part of the key even if the rule's name is long."""
    of = decider(storm_tasks=1, rules=[Rule(name="r" * 255, route="r" * 255)])
    for at in (NOON, NOON + HOUR):
        for task in ("a", "b"):
            of.decide(failed(task=task, at=at), at)
    keys = {row.key for row in of.take()[1] if row.key.startswith(STORM)}
    assert len(keys) == 2
    assert all(len(key) <= 255 for key in keys)


def test_without_a_channel_nothing_is_sent() -> None:
    """The incident is stored as usual."""
    of = decider(to=())
    assert of.decide(failed(), NOON).reason is Reason.OPENED
    changed, rows = of.take()
    assert (changed[0].state, rows) == (IncidentState.OPEN, [])


def test_a_row_for_each_channel() -> None:
    """Openings, updates and resolutions have a row for each channel of the rule."""
    of = decider(to=("oncall", "chat"), resolve_on_success=True, resolve_after=60.0)
    of.decide(failed(), NOON)
    assert [row.channel for row, _ in of.unsent()] == ["oncall", "chat"]
    assert {(row.channel, row.action) for row in of.take()[1]} == {
        ("oncall", Action.TRIGGER),
        ("chat", Action.TRIGGER),
    }
    of.succeeded("shop.pay", NOON + 1)
    of.tick(NOON + 100)
    assert [(row.channel, row.action) for row in of.take()[1]] == [
        ("oncall", Action.RESOLVE),
        ("chat", Action.RESOLVE),
    ]


def restarted(of: Decider, **changes: object) -> Decider:
    """Another decider with the stored state of this one."""
    again = decider(**changes)
    again.restore(incidents(of).values(), NOON + 60)
    return again


CHANNELS = {name: frozenset({""}) for name in ("oncall", "chat", "team")} | {"billing": frozenset({"pay"})}
"""All channels that are configured; billing sends only the incidents of one rule."""


def with_rule(*to: str, name: str = "pay", default: tuple[str, ...] = ("team",), **changes: Any) -> Decider:
    """A decider with one rule for these channels."""
    rule = Rule(name=name, match=["shop.*"], to=to, route=",".join(to), runbook_url="https://wiki.example/pay")
    values: dict[str, Any] = {"resolve_on_success": True, "resolve_after": 60.0, "channels": CHANNELS, **changes}
    return Decider(Policy(rules=[rule], default=Rule(to=default), **values))


CHANGED_RULES = {
    "other channels": (with_rule("chat"), {"oncall"}),
    "one channel more": (with_rule("oncall", "chat"), {"oncall"}),
    "no channel": (with_rule(), {"oncall"}),
    "the rule is gone": (with_rule("chat", name="other"), {"oncall"}),
    "the channel is gone": (with_rule("chat", channels={"chat": frozenset({""})}), {"chat"}),
    "rule and channel are gone": (with_rule("chat", name="other", channels={}), {"team"}),
    "it no longer sends this route": (with_rule("chat", channels={"oncall": frozenset({"pay"})}), {"chat"}),
}


@pytest.mark.parametrize(("again", "channels"), CHANGED_RULES.values(), ids=CHANGED_RULES)
def test_an_open_incident_resolves_where_it_opened(again: Decider, channels: set[str]) -> None:
    """A rule that has changed since does not keep its receivers from being told; renamed channels are told too."""
    of = with_rule("oncall")
    of.decide(failed(), NOON)
    again.restore(incidents(of).values(), NOON + 60)
    for _ in range(2):
        again.decide(failed(at=NOON + 61), NOON + 61)
    again.tick(NOON + 700)
    assert {(row.channel, row.action) for row in again.take()[1]} == {(name, Action.TRIGGER) for name in channels}
    again.succeeded("shop.pay", NOON + 701)
    again.tick(NOON + 800)
    changed, rows = again.take()
    assert {(row.channel, row.action) for row in rows} == {(name, Action.RESOLVE) for name in channels}
    assert [one.state for one in changed] == [IncidentState.RESOLVED]


def test_every_channel_that_was_told_of_an_incident_is_told_of_its_end() -> None:
    """Also if the first channel is missing from the configuration for a while."""
    of = with_rule("oncall")
    of.decide(failed(), NOON)
    for channels in ({"chat": frozenset({""})}, CHANNELS):
        again = with_rule("chat", channels=channels)
        again.restore(incidents(of).values(), NOON + 60)
        of = again
        of.decide(failed(at=NOON + 61), NOON + 61)
        of.tick(NOON + 700)
    of.succeeded("shop.pay", NOON + 701)
    of.tick(NOON + 800)
    ends = {row.channel for row in of.take()[1] if row.action is Action.RESOLVE}
    assert ends == {"oncall", "chat"}


def test_an_open_incident_keeps_its_rule_when_the_channels_change() -> None:
    """Its name, from which Alertmanager's labels are made, and its runbook."""
    of, again = with_rule("oncall"), with_rule("chat")
    of.decide(failed(), NOON)
    again.restore(incidents(of).values(), NOON + 60)
    again.decide(failed(at=NOON + 61), NOON + 61)
    one = incidents(again)[KEY]
    assert (one.rule, one.route, one.runbook_url) == ("pay", "oncall", "https://wiki.example/pay")


def test_an_incident_that_resolved_opens_where_its_rule_leads_now() -> None:
    """It is new to the channels that were added, and over for those that were removed."""
    of = with_rule("oncall")
    of.decide(failed(), NOON)
    of.succeeded("shop.pay", NOON + 1)
    of.tick(NOON + 100)
    again = with_rule("chat")
    again.restore(incidents(of).values(), NOON + 100)
    assert again.decide(failed(at=NOON + 101), NOON + 101).reason is Reason.REOPENED
    assert [(row.channel, row.action) for row in again.take()[1]] == [("chat", Action.TRIGGER)]


def test_a_restart_opens_nothing_twice() -> None:
    """Failures join open incidents, and their counts continue."""
    of = decider()
    of.decide(failed(), NOON)
    again = restarted(of)
    assert again.decide(failed(at=NOON + 70), NOON + 70).reason is Reason.JOINED
    assert incidents(again)[KEY].count == 2


def test_a_restart_still_tells_of_failures_that_no_row_told_of() -> None:
    """A pending update is sent update_interval after the restart; an update without news is not."""
    of = decider(update_interval=600.0)
    of.decide(failed(), NOON)
    of.take()
    for _ in range(9):
        of.decide(failed(), NOON + 1)
    again = restarted(of, update_interval=600.0)
    again.tick(NOON + 60 + 599)
    assert sent(again) == []
    again.tick(NOON + 60 + 600)
    rows = again.take()
    assert [(row.key, row.action) for row in rows[1]] == [(KEY, Action.TRIGGER)]
    assert [(one.count, one.sent_count) for one in rows[0]] == [(10, 10)]
    last = decider(update_interval=600.0)
    last.restore(rows[0], NOON + 700)
    last.tick(NOON + 1400)
    assert sent(last) == []


def test_what_came_with_the_first_failure_needs_no_update() -> None:
    """The row is committed with all failures of its flush and includes them."""
    of = decider(update_interval=600.0)
    for number in range(50):
        of.decide(failed(uuid=f"u{number}"), NOON)
    assert sent(of) == [(KEY, Action.TRIGGER)]
    of.tick(NOON + 700)
    assert sent(of) == []


def test_a_success_before_a_restart_resolves_after_it() -> None:
    """The success is stored with the incident."""
    rules = {"resolve_on_success": True, "resolve_after": 600.0}
    of = decider(**rules)
    of.decide(failed(), NOON)
    of.take()
    of.succeeded("shop.pay", NOON + 10)
    again = restarted(of, **rules)
    again.tick(NOON + 601)
    assert sent(again) == [(KEY, Action.RESOLVE)]


def test_a_restart_keeps_the_way_to_the_threshold() -> None:
    """Failures below the threshold survive a restart."""
    rules = [Rule(name="r", threshold=3)]
    of = decider(rules=rules)
    of.decide(failed(), NOON)
    of.decide(failed(), NOON)
    assert restarted(of, rules=rules).decide(failed(), NOON).reason is Reason.OPENED


def test_a_restart_in_a_storm_opens_no_more_than_the_storm() -> None:
    """The failing tasks are restored with their incidents."""
    of = decider(storm_tasks=5)
    for number in range(50):
        of.decide(failed(task=f"t{number}"), NOON)
    again = restarted(of, storm_tasks=5)
    for number in range(100):
        again.decide(failed(task=f"t{number}", at=NOON + 61), NOON + 61)
    assert sent(again) == []


def test_a_restart_does_not_prolong_an_incident() -> None:
    """An incident whose key has no hour ends a day after its first failure, restarted or not."""
    one_day = {"dedup_key": "{task}", "max_age": HOUR}
    of = decider(**one_day)
    of.decide(failed(), NOON)
    of.decide(failed(at=NOON + 20 * HOUR), NOON + 20 * HOUR)
    again = restarted(of, **one_day)
    again.tick(NOON + 25 * HOUR)
    assert again.open_count == 1
    again.tick(NOON + 25 * HOUR + 1)
    assert again.open_count == 0


def test_what_did_not_page_before_a_restart_makes_no_storm_after_it() -> None:
    """Failures that did not page do not count towards a storm, as without a restart."""
    rules = [Rule(name="slow", match=["slow.*"], threshold=100)]
    of = decider(storm_tasks=5, rules=rules)
    for number in range(50):
        of.decide(failed(task=f"slow.{number}"), NOON)
    assert restarted(of, storm_tasks=5, rules=rules).decide(failed(), NOON + 61).reason is Reason.OPENED


def test_frozen_incidents_do_not_change() -> None:
    """An incident taken for a flush does not include later changes."""
    of = decider()
    of.decide(failed(), NOON)
    one = incidents(of)[KEY]
    of.decide(failed(), NOON)
    assert (one.count, dict(one.workers)) == (1, {"w1@box": 1})
