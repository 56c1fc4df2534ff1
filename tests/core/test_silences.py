"""Silences and mute windows: what they suppress, and what pages when they end."""

from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from celery_monitor.core import silences
from celery_monitor.core.decide import Decider
from celery_monitor.core.incident import Episode, EpisodeEnd
from celery_monitor.core.model import MAX_SILENCE, Action, Condition, Incident, IncidentState, Reason, Silence
from celery_monitor.core.rules import Policy, Rule, matcher
from celery_monitor.core.silences import MuteWindow, Silences, silence_of
from celery_monitor.runtime.schedule import last_due
from tests.builders import NOON, failed

HOUR = 3600.0
KEY = "shop.pay/2023-11-15T12Z"
DEPLOY = Silence("a1", ("shop.*",), "deploy 4711", NOON, NOON + HOUR)
BERLIN = ZoneInfo("Europe/Berlin")


class Case:
    """A decider with its silences, and the rows that it sent."""

    def __init__(self, *silences: Silence, restored: list[Incident] | None = None, **policy: object) -> None:
        self.silences = Silences()
        self.silences.replace(silences)
        known = replace(Policy(default=Rule(to=("oncall",))), **policy)  # type: ignore[arg-type]
        self.of = Decider(known, silences=self.silences)
        self.of.restore(restored or [], NOON)
        self.incidents: dict[str, Incident] = {}

    def fail(self, at: float, *, now: float | None = None, task: str = "shop.pay", queue: str = "celery") -> Reason:
        """One failure; returns why it did or did not page."""
        return self.of.decide(failed(task, queue=queue, at=at), at if now is None else now).reason

    def tick(self, now: float, read_until: float | None = None) -> list[Reason]:
        """The outcomes of incidents whose silence has ended."""
        return [verdict.reason for verdict in self.of.tick(now, read_until)]

    def sent(self) -> list[tuple[str, Action]]:
        """The rows since the last call."""
        changed, rows = self.of.take()
        self.incidents |= {one.key: one for one in changed}
        return [(row.key, row.action) for row in rows]


def test_a_silenced_failure_is_counted_and_does_not_page() -> None:
    """It joins its incident, which is stored and shown as muted."""
    case = Case(DEPLOY)
    assert [case.fail(NOON + 60), case.fail(NOON + 61)] == [Reason.MUTED, Reason.MUTED]
    assert case.sent() == []
    one = case.incidents[KEY]
    assert (one.state, one.reason, one.count) == (IncidentState.SUPPRESSED, Reason.MUTED, 2)


def test_it_pages_once_when_the_silence_ends_and_the_task_has_not_succeeded() -> None:
    """It pages at the end with all failures of the silence; a later failure joins."""
    case = Case(DEPLOY)
    case.fail(NOON + 60)
    assert (case.tick(NOON + HOUR - 1), case.sent()) == ([], [])
    assert case.tick(NOON + HOUR) == [Reason.OPENED]
    assert case.sent() == [(KEY, Action.TRIGGER)]
    assert case.incidents[KEY].state is IncidentState.OPEN
    assert (case.tick(NOON + HOUR + 1), case.sent()) == ([], [])
    assert case.fail(NOON + 70, now=NOON + HOUR + 2) is Reason.JOINED


def test_a_failure_just_after_the_end_opens_the_incident_itself() -> None:
    """It does so before any tick, and the tick does not page again."""
    case = Case(DEPLOY)
    case.fail(NOON + HOUR - 10)
    case.of.decide(failed(at=NOON + HOUR - 9), NOON + HOUR + 1)
    assert case.tick(NOON + HOUR + 1) == [Reason.OPENED]
    assert case.sent() == [(KEY, Action.TRIGGER)]
    case = Case(replace_end(DEPLOY, NOON + 1800))
    case.fail(NOON + 1700)
    assert case.fail(NOON + 1801) is Reason.OPENED
    assert case.tick(NOON + 1802) == []
    assert case.sent() == [(KEY, Action.TRIGGER)]


def test_a_task_that_has_recovered_does_not_page() -> None:
    """It does not page after a success that follows the last failure, whether or not incidents resolve."""
    for resolve in (False, True):
        case = Case(DEPLOY, resolve_on_success=resolve)
        case.fail(NOON + 60)
        assert "shop.pay" in case.of.awaited
        case.of.succeeded("shop.pay", NOON + 90)
        assert case.tick(NOON + HOUR) == [Reason.SILENCED]
        assert case.sent() == []
        assert case.incidents[KEY].reason is Reason.SILENCED
        assert not case.of.awaited


def test_a_success_before_the_last_failure_is_no_recovery() -> None:
    """The events' own times decide, regardless of the order of reading."""
    case = Case(DEPLOY)
    case.fail(NOON + 60)
    case.of.succeeded("shop.pay", NOON + 30)
    case.of.succeeded("shop.pay", NOON + 70)
    case.fail(NOON + 80)
    assert case.tick(NOON + HOUR) == [Reason.OPENED]


def test_hours_of_one_task_page_once() -> None:
    """A day's silence over a task that fails every hour ends with one page."""
    case = Case(replace_end(DEPLOY, NOON + 24 * HOUR))
    for hour in range(24):
        assert case.fail(NOON + hour * HOUR) is Reason.MUTED
        case.tick(NOON + hour * HOUR + 1)
    assert case.tick(NOON + 24 * HOUR).count(Reason.OPENED) == 1
    assert case.sent() == [("shop.pay/2023-11-16T11Z", Action.TRIGGER)]


def test_many_tasks_end_in_a_storm() -> None:
    """As always, more tasks than alerts.storm.tasks share one incident."""
    case = Case(DEPLOY, storm_tasks=3)
    for number in range(10):
        case.fail(NOON + 60, task=f"shop.t{number}")
    case.tick(NOON + HOUR)
    rows = case.sent()
    assert len(rows) == 4
    assert sum(key.startswith("storm/") for key, _ in rows) == 1


def test_silenced_failures_make_no_storm_and_join_none() -> None:
    """A silenced deployment must not page as a storm."""
    case = Case(DEPLOY, storm_tasks=3)
    assert {case.fail(NOON + 60, task=f"shop.t{number}") for number in range(50)} == {Reason.MUTED}
    assert case.fail(NOON + 61, task="other.task") is Reason.OPENED


@pytest.mark.parametrize("restart", [False, True])
def test_more_names_than_an_incident_keeps(*, restart: bool) -> None:
    """The tasks and queues that it counts as "other" do not end its silence."""
    policy: dict[str, Any] = {"dedup_key": "all/{hour}"}
    silence = Silence("a1", ("shop.*",), "deploy 4711", NOON, NOON + HOUR, ("q*",))
    case = Case(silence, **policy)
    for number in range(50):
        assert case.fail(NOON + 60, task=f"shop.t{number}", queue=f"q{number}") is Reason.MUTED
    assert case.sent() == []
    if restart:
        case = Case(silence, restored=list(case.incidents.values()), **policy)
    assert (case.tick(NOON + HOUR - 1), case.sent()) == ([], [])
    assert case.tick(NOON + HOUR) == [Reason.OPENED]


def test_a_large_storm_is_not_refreshed_while_it_is_silenced() -> None:
    """It names 100 tasks and counts the others together."""
    case = Case(storm_tasks=3)
    for number in range(150):
        case.fail(NOON + number / 10, task=f"shop.t{number}")
    case.sent()
    case.fail(NOON + 60, task="shop.t149")
    case.silences.replace([DEPLOY])
    case.tick(NOON + 900)
    assert case.sent() == []
    case.tick(NOON + HOUR)
    assert [key for key, _ in case.sent()] == ["storm/2023-11-15T12Z/*"]


def test_below_the_threshold_nothing_waits() -> None:
    """Silenced failures count towards the threshold, and page with the failure that reaches it."""
    case = Case(DEPLOY, default=Rule(to=("oncall",), threshold=3))
    assert [case.fail(NOON + at) for at in (1, 2)] == [Reason.BELOW_THRESHOLD] * 2
    assert case.fail(NOON + 3) is Reason.MUTED
    assert case.tick(NOON + HOUR) == [Reason.OPENED]


def test_a_rule_that_does_not_page_is_not_made_to_by_a_silence() -> None:
    """With page: false, the end of a silence does not page."""
    case = Case(DEPLOY, default=Rule(to=("oncall",), page=False))
    assert case.fail(NOON + 1) is Reason.SILENCED
    assert case.tick(NOON + HOUR) == []
    assert case.sent() == []


def test_an_open_incident_is_not_refreshed_while_it_is_silenced_and_may_resolve() -> None:
    """Updates are suppressed, the resolution is not."""
    case = Case(resolve_on_success=True)
    case.fail(NOON)
    assert case.sent() == [(KEY, Action.TRIGGER)]
    case.silences.replace([DEPLOY])
    assert case.fail(NOON + 60) is Reason.JOINED
    case.tick(NOON + 900)
    assert case.sent() == []
    case.tick(NOON + HOUR)
    assert case.sent() == [(KEY, Action.TRIGGER)]
    case.silences.replace([replace_end(DEPLOY, NOON + 5 * HOUR)])
    case.of.succeeded("shop.pay", NOON + HOUR + 5)
    case.tick(NOON + 2 * HOUR)
    assert case.sent() == [(KEY, Action.RESOLVE)]


def test_a_failure_of_the_silence_that_is_read_after_it() -> None:
    """After a downtime, it waits until the stream has been read, so that a success is known."""
    late = NOON + HOUR + 300
    case = Case(DEPLOY)
    assert case.fail(NOON + 60, now=late) is Reason.MUTED
    assert case.tick(late + 1, read_until=NOON + 61) == []
    case.of.succeeded("shop.pay", NOON + 120)
    assert case.tick(late + 2, read_until=late) == [Reason.SILENCED]
    case.fail(NOON + 180, now=late + 3)
    assert case.tick(late + 4, read_until=late) == [Reason.OPENED]


def test_a_stream_that_stays_behind_does_not_keep_it_for_ever() -> None:
    """Five minutes after the end it pages based on the known events."""
    case = Case(DEPLOY)
    case.fail(NOON + 60)
    assert case.tick(NOON + HOUR + 299, read_until=NOON + 61) == []
    assert case.tick(NOON + HOUR + 300, read_until=NOON + 61) == [Reason.OPENED]


def test_ending_a_silence_early_pages_at_once() -> None:
    """Ending a silence early pages immediately."""
    case = Case(DEPLOY)
    case.fail(NOON + 60)
    case.silences.replace([])
    assert case.tick(NOON + 61) == [Reason.OPENED]


@pytest.mark.parametrize("restarted_at", [NOON + 120, NOON + 20 * HOUR, NOON + 29 * HOUR])
def test_what_waits_survives_a_restart(restarted_at: float) -> None:
    """Another process continues from the stored state, even after a silence of more than a day."""
    long = replace_end(DEPLOY, NOON + 30 * HOUR)
    first = Case(long)
    first.fail(NOON + 60)
    first.tick(restarted_at)
    first.sent()
    second = Case(long, restored=list(first.incidents.values()))
    assert second.tick(restarted_at) == []
    assert "shop.pay" in second.of.awaited
    assert second.tick(NOON + 30 * HOUR) == [Reason.OPENED]
    assert second.sent() == [(KEY, Action.TRIGGER)]


def minutes(first: float, last: float, name: str = "a1") -> Silence:
    """A silence between two minutes after noon."""
    return Silence(name, ("shop.*",), "deploy 4711", NOON + 60 * first, NOON + 60 * last)


COVERED: dict[str, tuple[list[Silence], float]] = {
    # the silences, and the minute after which nothing covers the task
    "overlapping": ([minutes(0, 60), minutes(30, 120, "b2")], 120),
    "one within the other": ([minutes(0, 120), minutes(30, 60, "b2")], 120),
    "one after the other": ([minutes(0, 60), minutes(60, 90, "b2"), minutes(90, 91, "c3")], 91),
    "another task's": ([minutes(0, 60), Silence("b2", ("blog.*",), "r", NOON, NOON + 9 * HOUR)], 60),
    "with a gap, in which it pages": ([minutes(0, 60), minutes(61, 90, "b2")], 60),
}


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(("silences", "until"), COVERED.values(), ids=COVERED)
def test_several_silences_of_a_task(silences: list[Silence], until: float, *, restart: bool) -> None:
    """It pages once, when no silence covers it any more, even if the monitor is down when some of them end."""
    case, stored = Case(*silences), dict[str, Incident]()
    case.fail(NOON + 60)
    for minute in range(2, 200):
        now = NOON + 60 * minute
        if restart and minute % 37 == 0:
            case.sent()
            stored |= case.incidents
            current = [one for one in silences if one.ends_at > now]  # as the store gives them back
            case = Case(*current, restored=list(stored.values()))
        assert case.tick(now) == ([Reason.OPENED] if minute == until else []), minute


CHANGED_RULES = {
    "other channels": (Rule("pay", match=["shop.*"], to=("chat",), route="chat"), [("chat", Action.TRIGGER)]),
    "removed": (Rule("other", match=["blog.*"], to=("chat",), route="chat"), [("oncall", Action.TRIGGER)]),
    "does not page any more": (Rule("pay", match=["shop.*"], to=("chat",), route="chat", page=False), []),
}


@pytest.mark.parametrize(("rule", "rows"), CHANGED_RULES.values(), ids=CHANGED_RULES)
def test_the_rule_changes_during_a_silence(rule: Rule, rows: list[tuple[str, Action]]) -> None:
    """At the end of the silence it pages the channels that the configuration leads to now."""
    first = Case(DEPLOY, rules=[Rule("pay", match=["shop.*"], to=("pager",), route="pager")])
    first.fail(NOON + 60)
    first.sent()
    second = Case(DEPLOY, restored=list(first.incidents.values()), rules=[rule])
    second.tick(NOON + HOUR)
    assert [(row.channel, row.action) for row in second.of.take()[1]] == rows


def test_a_silence_that_is_extended() -> None:
    """A replacement with a later end extends it; with an earlier end, it pages at that end."""
    case = Case(minutes(0, 60))
    case.fail(NOON + 60)
    case.silences.replace([minutes(0, 60), minutes(59, 180, "b2")])
    assert case.tick(NOON + 60 * 61) == []
    case.silences.replace([minutes(59, 70, "b2")])
    assert case.tick(NOON + 60 * 69) == []
    assert case.tick(NOON + 60 * 70) == [Reason.OPENED]


@pytest.mark.parametrize("over", [False, True])
def test_the_silence_of_an_episode_ends_while_the_monitor_is_down(*, over: bool) -> None:
    """An episode that continues then pages once; one that has ended never notifies."""
    rule = Rule("slow", on=Condition.RUNTIME, to=("oncall",))
    first = Case(DEPLOY, rules=[rule])
    slow = Episode(Condition.RUNTIME, "shop.pay", rule, NOON, NOON + 60, "shop.pay runs for 1 min", task="shop.pay")
    list(first.of.episodes.judge([slow], NOON + 60))
    first.sent()
    second = Case(restored=list(first.incidents.values()), rules=[rule])
    now = NOON + 2 * HOUR
    assert [one.subject for one in second.of.episodes.live(Condition.RUNTIME)] == ["shop.pay"]
    found = (
        [EpisodeEnd(Condition.RUNTIME, "shop.pay", "slow", now)] if over else [msgspec.structs.replace(slow, at=now)]
    )
    for moment in (now, now + 1):
        second.tick(moment)
        list(second.of.episodes.judge(found, moment))
    assert [action for _, action in second.sent()] == ([] if over else [Action.TRIGGER])


def test_a_silence_ends_in_a_mute_window() -> None:
    """The window continues to suppress, and pages when it ends, even on the day that is an hour shorter."""
    for day in ("2026-03-28", "2026-03-29", "2026-10-25"):
        begins = at(f"{day}T01:30")
        silences = Silences([window("30 1 * * *", 2 * HOUR)], [Silence("a1", ("*",), "r", begins - 60, begins + 60)])
        of = Decider(replace(Policy(), default=Rule(to=("oncall",))), silences=silences)
        assert of.decide(failed(at=begins - 30), begins - 30).reason is Reason.MUTED
        ends = begins + 2 * HOUR
        assert [[one.reason for one in of.tick(now)] for now in (begins + 61, ends - 1, ends)] == [
            [], [], [Reason.OPENED],
        ]  # fmt: skip


def test_queues() -> None:
    """A silence of one queue does not affect the task's other queues."""
    case = Case(Silence("a1", ("*",), "slow disk", NOON, NOON + HOUR, queues=("bulk",)))
    assert case.fail(NOON + 1, queue="bulk") is Reason.MUTED
    assert case.fail(NOON + 2, queue="celery") is Reason.OPENED
    assert case.tick(NOON + HOUR) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"match": []}, "match: give a glob of task names"),
        ({"match": [""]}, "match: must be"),
        ({"match": ["a\x1b[31m"]}, "match: must be"),
        ({"match": ["x"] * 51}, "match: must be"),
        ({"queues": ["q" * 256]}, "queues: must be"),
        ({"lasting": MAX_SILENCE + 1}, "for: must be between 1s and 30d"),
        ({"lasting": 0.0}, "for: must be between 1s and 30d"),
        ({"lasting": -5.0}, "for: must be between 1s and 30d"),
        ({"lasting": float("inf")}, "for: must be between 1s and 30d"),
        ({"lasting": float("nan")}, "for: must be between 1s and 30d"),
        ({"reason": " \n "}, "reason: give a reason of 1 to 500 characters"),
        ({"reason": "x" * 501}, "reason: give a reason of 1 to 500 characters"),
        ({"reason": "a\x00b"}, "reason: give a reason of 1 to 500 characters"),
    ],
)
def test_no_silence_without_an_end_and_a_reason(change: dict[str, object], expected: str) -> None:
    """Each mistake is reported."""
    asked = {"silence_id": "a", "match": ["shop.*"], "lasting": 60.0, "reason": "deploy", "now": NOON} | change
    with pytest.raises(ValueError, match=expected):
        silence_of(**asked)  # type: ignore[arg-type]


def test_an_incident_that_waits_may_be_forgotten_for_lack_of_room() -> None:
    """Nothing of it remains that could fail later."""
    case = Case(DEPLOY)
    of = Decider(Policy(default=Rule(to=("oncall",))), silences=case.silences, max_incidents=3)
    for number in range(20):
        of.decide(failed(f"shop.t{number}", at=NOON + number), NOON + number)
        of.tick(NOON + number)
        of.take()
    assert len(of) <= 3
    assert len(of.awaited) == len(of)
    of.succeeded("shop.t0", NOON + 30)
    assert len(of.tick(NOON + HOUR)) == len(of)


def test_an_episode_of_another_condition_waits_for_the_end_of_the_silence() -> None:
    """It opens at the next evaluation; an episode that has ended by then never notifies."""
    rule = Rule("slow", on=Condition.RUNTIME, to=("oncall",))
    for over in (False, True):
        case = Case(DEPLOY, rules=[rule])
        slow = Episode(Condition.RUNTIME, "shop.pay", rule, NOON, NOON + 60, "shop.pay runs for 1 min", task="shop.pay")
        episodes = case.of.episodes
        assert [notice.reason for notice in episodes.judge([slow], NOON + 60)] == [Reason.MUTED]
        assert list(episodes.judge([slow], NOON + 120)) == []
        assert case.sent() == []
        if over:
            list(episodes.judge([EpisodeEnd(Condition.RUNTIME, "shop.pay", "slow", NOON + 130)], NOON + 130))
        else:
            assert [notice.reason for notice in episodes.judge([slow], NOON + HOUR)] == [Reason.OPENED]
        case.tick(NOON + HOUR)
        assert len(case.sent()) == (not over)


def window(cron: str, lasting: float) -> MuteWindow:
    """A mute window for every task, in Berlin."""
    return MuteWindow(("*",), "maintenance", lasting, partial(last_due, cron, BERLIN))


def at(text: str) -> float:
    """A local time of Berlin; ``+`` is the second of two."""
    return datetime.fromisoformat(text.rstrip("+")).replace(tzinfo=BERLIN, fold=text.endswith("+")).timestamp()


@pytest.mark.parametrize(
    ("time", "muted"),
    [
        ("2026-03-28T01:29:59", False),
        ("2026-03-28T01:30", True),
        ("2026-03-28T03:29:59", True),
        ("2026-03-28T03:30", False),
        ("2026-03-29T03:59", True),  # 01:30 + 2 h: the hour from 2 to 3 is left out
        ("2026-03-29T04:29:59", True),
        ("2026-03-29T04:30", False),
        ("2026-10-25T02:30", True),
        ("2026-10-25T02:29:59+", True),  # 01:30 + 2 h: the hour from 2 to 3 comes twice
        ("2026-10-25T02:30+", False),
        ("2026-10-26T01:30", True),
    ],
)
def test_a_mute_window_lasts_as_long_on_the_days_on_which_clocks_change(time: str, muted: bool) -> None:  # noqa: FBT001
    """It begins by the local clock, and its length is elapsed time."""
    silences = Silences([window("30 1 * * *", 2 * HOUR)])
    assert silences.cover("shop.pay", "celery", at(time)) is muted
    assert silences.muting(at(time)) == muted


HOSTILE = [
    "*a" * 120 + "b",
    "*?" * 127,
    "[" * 255,
    "[a-" * 80,
    "(a+)+$" * 40,
    "\\" * 255,
    "[z-a]" * 50,
    "é" * 255,
    "[]-a]*" * 40,
]


def test_hostile_globs_match_nothing_else() -> None:
    """For any glob, a failure of a task that it does not match pages."""
    case = Case(Silence("all", tuple(glob[:255] for glob in HOSTILE), "r", NOON, NOON + HOUR))
    assert case.fail(NOON + 1) is Reason.OPENED


def test_globs_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each task: with hundreds of silences, that would delay the stream by seconds."""
    compiled = []

    def counted(globs: tuple[str, ...]) -> object:
        compiled.append(globs)
        return matcher(globs)

    monkeypatch.setattr(silences, "matcher", counted)
    case = Case(*(Silence(f"{number}", (f"team{number}.*",), "r", NOON, NOON + HOUR) for number in range(500)))
    for number in range(50):
        case.fail(NOON + 1, task=f"shop.task{number}")
    assert len(compiled) <= 2 * 500
    case.silences.replace([DEPLOY, *case.silences.active(NOON)])
    assert len(compiled) <= 2 * 501
    assert case.fail(NOON + 2, task="shop.task51") is Reason.MUTED


def test_a_mute_window_holds_back_and_pages_at_its_end() -> None:
    """It works like a silence."""
    silences = Silences([MuteWindow(("shop.*",), "backup", 600.0, lambda now: now - now % HOUR)])
    of = Decider(replace(Policy(), default=Rule(to=("oncall",))), silences=silences)
    assert of.decide(failed(at=NOON + 30), NOON + 30).reason is Reason.MUTED
    assert of.decide(failed("other.task", at=NOON + 30), NOON + 30).reason is Reason.OPENED
    assert [one.reason for one in of.tick(NOON + 599)] == []
    assert [one.reason for one in of.tick(NOON + 600)] == [Reason.OPENED]


def replace_end(silence: Silence, ends_at: float) -> Silence:
    """The same silence with another end."""
    return Silence(silence.id, silence.match, silence.reason, silence.starts_at, ends_at, silence.queues)
