"""Incidents of the conditions other than failure."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from celery_monitor.core.decide import Decider
from celery_monitor.core.headline import duration, facts, headline
from celery_monitor.core.incident import Episode, EpisodeEnd, Verdict
from celery_monitor.core.model import MAX_DETAILS, Action, Condition, Incident, IncidentState, Reason, Silence
from celery_monitor.core.rules import MAX_KEY_LENGTH, Policy, Rule
from celery_monitor.core.silences import Silences
from tests.builders import NOON, failed

SLOW = Rule(name="slow", on=Condition.RUNTIME, to=["oncall"], route="oncall")
KEY = "runtime/shop.report/slow/2023-11-15T12:00:00.000Z"


def decider(*rules: Rule, most: int = 100, **changes: Any) -> Decider:
    """A decider with a channel for failures and one for the rules."""
    default = Rule(to=["oncall"])
    return Decider(Policy(fleet="shop", rules=rules or (SLOW,), default=default, **changes), max_incidents=most)


def episode(subject: str = "shop.report", since: float = NOON, **fields: Any) -> Episode:
    """A task that runs too long."""
    values: dict[str, Any] = {
        "at": since + 600,
        "summary": f"{subject} has run for 10 min",
        "task": subject,
        "rule": SLOW,
    }
    return Episode(Condition.RUNTIME, subject, since=since, **values | fields)


def over(of: Episode, at: float = NOON + 900, summary: str = "") -> EpisodeEnd:
    """The end of an episode."""
    return EpisodeEnd(of.condition, of.subject, of.rule.name, at, summary)


def restarted(of: Decider, *rules: Rule, now: float = NOON + 1000) -> Decider:
    """Another decider that continues from the written state, encoded as JSON like in the store."""
    written = msgspec.json.encode(of.take()[0])
    other = decider(*rules)
    other.restore(msgspec.json.decode(written, type=list[Incident]), now)
    return other


def sent(of: Decider) -> list[tuple[str, str, Action]]:
    """Outbox rows since the last call: (channel, key, action)."""
    return [(row.channel, row.key, row.action) for row in of.take()[1]]


def test_the_life_of_an_episode() -> None:
    """It opens once, is updated at most every update interval, and resolves once. A later one is new."""
    of = decider()
    episodes = of.episodes
    assert episodes.observe(episode(), NOON + 600) == Verdict(Reason.OPENED, KEY)
    for second in range(1, 1200):
        now = NOON + 600 + second
        current = episode(at=now, summary=f"shop.report has run for {second} s")
        assert episodes.observe(current, now) == Verdict(Reason.JOINED, KEY, changed=False)
        of.tick(now)
        if second in {1, 599}:
            assert sent(of) == ([("oncall", KEY, Action.TRIGGER)] if second == 1 else [])
    assert sent(of) == [("oncall", KEY, Action.TRIGGER)]
    assert of.open_count == 1
    assert episodes.end(over(episode(), summary="shop.report ended after 20 min"), NOON + 1800) == KEY
    assert episodes.end(over(episode()), NOON + 1800) is None
    changed, rows = of.take()
    assert [(one.state, one.message) for one in changed] == [(IncidentState.RESOLVED, "shop.report ended after 20 min")]
    assert [(row.key, row.action) for row in rows] == [(KEY, Action.RESOLVE)]
    verdict = episodes.observe(episode(since=NOON + 3600), NOON + 4000)
    assert verdict == Verdict(Reason.OPENED, KEY.replace("T12", "T13"))


def test_one_incident_over_a_restart() -> None:
    """Open incidents continue and are not sent again; a restart resolves nothing."""
    of = decider()
    of.episodes.observe(episode(details=[("task", "u1 on w1")], unwatched=30.0), NOON + 600)
    other = restarted(of)
    (one,) = other.episodes.live(Condition.RUNTIME)
    assert (one.key, one.details, one.unwatched) == (KEY, (("task", "u1 on w1"),), 30.0)
    # What was seen of its beginning may differ after the restart: it is still the same one.
    assert other.episodes.observe(episode(since=NOON + 5), NOON + 1000) == Verdict(Reason.JOINED, KEY, changed=False)
    other.tick(NOON + 1000)
    assert sent(other) == []
    assert other.episodes.end(over(episode()), NOON + 1100) == KEY
    assert sent(other) == [("oncall", KEY, Action.RESOLVE)]


def test_what_was_not_committed_gets_the_same_key() -> None:
    """After a kill before the commit, the same episode, found again later, has the key that was sent."""
    for now in (NOON + 600, NOON + 700):
        assert decider().episodes.observe(episode(at=now), now).incident == KEY


def test_a_rule_that_is_gone_resolves_its_incidents() -> None:
    """They resolve at the next start, because nothing evaluates them, and their channels are notified."""
    of = decider()
    of.episodes.observe(episode(), NOON + 600)
    other = restarted(of, Rule(name="other", on=Condition.RUNTIME, to=["oncall"], route="oncall"))
    changed, rows = other.take()
    assert [one.state for one in changed] == [IncidentState.RESOLVED]
    assert "its rule was removed" in changed[0].message
    assert [(row.key, row.action) for row in rows] == [(KEY, Action.RESOLVE)]
    assert other.episodes.live(Condition.RUNTIME) == []


def test_the_rule_of_an_episode_changes() -> None:
    """An open one resolves where it opened; a muted one opens where its rule leads now, at the end of its silence."""
    channels = {"oncall": frozenset({""}), "chat": frozenset({""})}
    rule = Rule(name="slow", on=Condition.RUNTIME, to=["chat"], route="chat")
    other = Rule(name="other", on=Condition.RUNTIME, to=["chat"], route="chat")
    for changed in (rule, other):
        of, again = decider(), decider(changed, channels=channels)
        of.episodes.observe(episode(), NOON)
        again.restore(of.take()[0], NOON + 10)
        again.episodes.end(over(episode()), NOON + 20)
        assert sent(again) == [("oncall", KEY, Action.RESOLVE)]
    silences = Silences()
    silences.replace([Silence("a1", ("shop.*",), "deploy", NOON, NOON + 600)])
    muted = Decider(Policy(fleet="shop", rules=[SLOW]), silences=silences)
    assert muted.episodes.observe(episode(), NOON).reason is Reason.MUTED
    again = decider(rule, channels=channels)
    again.restore(muted.take()[0], NOON + 600)
    assert again.episodes.observe(episode(rule=rule), NOON + 600).reason is Reason.OPENED
    assert sent(again) == [("chat", KEY, Action.TRIGGER)]


def test_a_rule_that_does_not_page() -> None:
    """Its episodes are stored and shown, and nobody is notified."""
    of = decider()
    quiet = Rule(name="slow", on=Condition.RUNTIME, to=["oncall"], page=False)
    verdict = of.episodes.observe(episode(rule=quiet), NOON)
    assert verdict.reason is Reason.SILENCED
    assert not of.episodes.observe(episode(rule=quiet), NOON).changed
    of.episodes.end(over(episode()), NOON + 10)
    changed, rows = of.take()
    assert [(one.state, one.reason) for one in changed] == [(IncidentState.EXPIRED, Reason.SILENCED)]
    assert rows == []


def test_the_same_episode_again_opens_its_incident_again() -> None:
    """An episode that was considered over too early reopens its incident."""
    of = decider()
    of.episodes.observe(episode(), NOON)
    of.episodes.end(over(episode()), NOON + 10)
    assert of.episodes.observe(episode(), NOON + 20) == Verdict(Reason.REOPENED, KEY)


def test_failures_and_episodes_do_not_meet() -> None:
    """A success of the task, its failures and their storm do not affect its other incidents, and vice versa."""
    of = decider(resolve_on_success=True, resolve_after=0.0, storm_tasks=1)
    of.episodes.observe(episode(), NOON)
    of.decide(failed("shop.report", NOON), NOON)
    of.succeeded("shop.report", NOON + 1)
    of.tick(NOON + 2)
    states = {one.condition: one.state for one in of.take()[0]}
    assert states == {Condition.RUNTIME: IncidentState.OPEN, Condition.FAILURE: IncidentState.RESOLVED}


def test_it_stays_open_as_long_as_it_lasts() -> None:
    """An episode may last for a month; a day after its end it leaves memory."""
    of = decider()
    of.episodes.observe(episode(), NOON)
    for day in range(30):
        of.tick(NOON + day * 86_400)
    assert (of.open_count, len(of)) == (1, 1)
    end = NOON + 30 * 86_400
    of.episodes.end(over(episode()), end)
    of.tick(end + 86_000)
    assert (of.open_count, len(of)) == (0, 1)
    of.tick(end + 86_401)
    assert len(of) == 0


def test_a_storm() -> None:
    """Subjects above the number share one incident, which resolves when the last of them has ended."""
    of = decider(storm_tasks=3)
    verdicts = [of.episodes.observe(episode(f"t{number}"), NOON + 600) for number in range(6)]
    reasons = [verdict.reason for verdict in verdicts]
    assert reasons == [Reason.OPENED] * 3 + [Reason.STORM_OPENED] + [Reason.STORM_JOINED] * 2
    (storm,) = {verdict.incident for verdict in verdicts[3:]}
    assert not of.episodes.observe(episode("t4"), NOON + 700).changed
    (one,) = [one for one in of.take()[0] if one.key == storm]
    assert headline(one) == "[shop] Many tasks run too long: 3, including t3, t4, t5"
    assert one.is_storm
    other = restarted_with_all(of)
    for number in range(3, 6):
        other.tick(NOON + 800)
        assert sent(other) == []
        other.episodes.end(over(episode(f"t{number}")), NOON + 800)
    other.tick(NOON + 801)
    assert sent(other) == [("oncall", storm, Action.RESOLVE)]


def restarted_with_all(of: Decider) -> Decider:
    """Like ``restarted``, with everything that was written before."""
    for entry in of._registry.entries.values():
        entry.dirty = True
    return restarted(of)


def test_without_room_the_storm_stands_for_it() -> None:
    """Memory is bounded for any input, and something pages."""
    of = decider(storm_tasks=10_000, most=20)
    verdicts = [of.episodes.observe(episode(f"t{number}"), NOON) for number in range(500)]
    assert len(of) == 21
    assert [verdict.reason for verdict in verdicts[19:22]] == [Reason.OPENED, Reason.STORM_OPENED, Reason.STORM_JOINED]
    assert of._registry.overflows["incidents"] == 480
    assert len(of.episodes._live) == 500
    for number in range(500):
        of.episodes.end(over(episode(f"t{number}")), NOON)
    of.tick(NOON + 1)
    assert of.open_count == 0


def test_one_that_was_forgotten_for_want_of_room_comes_back() -> None:
    """A suppressed incident is dropped for others; when its episode may page, it opens."""
    of = decider(most=20)
    quiet = Rule(name="slow", on=Condition.RUNTIME, to=["oncall"], page=False)
    of.episodes.observe(episode(rule=quiet), NOON)
    of.take()
    for number in range(20):
        of.decide(failed(f"t{number}"), NOON)
    assert KEY not in of._registry.entries
    of.take()
    of.tick(NOON + 4 * 3600)
    assert of.episodes.observe(episode(), NOON + 4 * 3600).reason is Reason.OPENED


HOSTILE = "x" * 5000 + "\ud800\n\x00"


@pytest.mark.parametrize(
    ("read", "most"),
    [
        (lambda one: one.key, MAX_KEY_LENGTH),
        (lambda one: one.message, 1_000),
        (lambda one: one.details[0][0], 100),
        (lambda one: one.details[0][1], 2_000),
        (lambda one: one.details, MAX_DETAILS),
        (lambda one: one.samples, 20),
        (lambda one: one.tasks, 21),
    ],
)
def test_bounds(read: Callable[[Incident], Any], most: int) -> None:
    """The data that an incident keeps of an episode is bounded."""
    of = decider()
    many = dict.fromkeys((f"t{number}" for number in range(100)), 1)
    fields: dict[str, Any] = {
        "summary": HOSTILE,
        "details": [(HOSTILE, HOSTILE)] * 100,
        "samples": [HOSTILE] * 100,
        "tasks": many,
    }
    of.episodes.observe(episode(HOSTILE, **fields), NOON)
    (one,) = of.take()[0]
    assert len(read(one)) == most
    assert all(label.isalnum() and value.isprintable() for label, value in facts(one))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.4, "0 s"), (45, "45 s"), (60, "1 min"), (723, "12 min 3 s"), (3600, "1 h"), (3_900, "1 h 5 min"),
     (86_400 * 3 + 7_200 + 59, "3 d 2 h"), (3_605, "1 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    """The two largest units, without those that are 0."""
    assert duration(seconds) == text


def test_labels_are_words() -> None:
    """Labels contain only word characters, because receivers such as Alertmanager use them as names."""
    of = decider()
    of.episodes.observe(episode(details=[("a.b{c}=\n", "x"), ("…", "y"), ("a/b/c", "z")]), NOON)
    (one,) = of.take()[0]
    assert facts(one) == [("a b c", "x; z"), ("Detail", "y")]


def test_what_was_not_watched_is_told() -> None:
    """The incident's details say for how long the monitor was down."""
    of = decider()
    of.episodes.observe(episode(unwatched=300.0), NOON)
    (one,) = of.take()[0]
    assert facts(one)[-1] == ("Not watched", "5 min of this time; what happened then is unknown")


def test_an_incident_from_before_is_one_of_failures() -> None:
    """A body written by an earlier version has no condition."""
    of = decider()
    of.decide(failed(), NOON)
    body = msgspec.json.decode(msgspec.json.encode(of.take()[0][0]))
    for name in ("condition", "subject", "details", "unwatched"):
        del body[name]
    assert msgspec.json.decode(msgspec.json.encode(body), type=Incident).condition is Condition.FAILURE
