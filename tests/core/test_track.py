"""Tracking of tasks."""

import random
import sys
import tracemalloc
from functools import partial
from uuid import uuid4

import pytest

from celery_monitor.core import entries
from celery_monitor.core.model import FAILED, RECEIVED, STARTED, SUCCEEDED, FleetTask, Stage, TaskRef
from celery_monitor.core.names import MAX_NAME_LENGTH
from celery_monitor.core.recent_tasks import RecentTasks
from celery_monitor.core.track import Tracker
from celery_monitor.core.transitions import KINDS
from tests.builders import NOON, event


def tracker(**changes: object) -> Tracker:
    """A tracker with a large limit."""
    values = {"max_tasks": 1000, "max_age": 86_400.0, "linger": 60.0, **changes}
    made = Tracker(**values)  # type: ignore[arg-type]  # the values above
    made.tick(NOON)
    return made


def feed(to: Tracker, *kinds: str, uuid: str = "u1", name: str | None = "a.b") -> list[bool]:
    """Apply events a second apart; returns whether each counts. sent and received contain the name."""
    counted = []
    for second, kind in enumerate(kinds):
        named = kind in {"sent", "received"}
        message = event(kind, uuid, NOON + second, name=name if named else None, queue="q" if kind == "sent" else None)
        counted.append(to.advance(message, KINDS[f"task-{kind}"]) is not None)
    return counted


ORDERS = [
    ("sent received started failed", Stage.FAILED),
    ("received started failed", Stage.FAILED),
    ("received sent started failed", Stage.FAILED),
    ("started failed received", Stage.RECEIVED),
    ("failed", Stage.FAILED),
    ("sent received started retried", Stage.RETRYING),
    ("received started received retried", Stage.RECEIVED),
    ("received started sent received retried started retried received started failed", Stage.FAILED),
    ("received started retried sent received", Stage.RECEIVED),
    ("sent revoked", Stage.REVOKED),
    ("received started revoked revoked", Stage.REVOKED),
    ("received started failed rejected", Stage.FAILED),
    ("received started rejected", Stage.REJECTED),
    ("received started cancelled", Stage.STARTED),
    ("received started cancelled failed", Stage.FAILED),
    ("received cancelled", Stage.REVOKED),
    ("received started failed sent", Stage.FAILED),
]


@pytest.mark.parametrize(("kinds", "stage"), ORDERS, ids=[kinds for kinds, _ in ORDERS])
def test_stages(kinds: str, stage: Stage) -> None:
    """For any order of events, each counts, and the task has the stage of the table."""
    to = tracker()
    assert all(feed(to, *kinds.split()))
    assert to.tasks["u1"].stage == stage


def test_every_pair_of_stage_and_event_has_a_result() -> None:
    """Events are accepted in any order."""
    for seed in range(300):
        order = random.Random(seed).choices([kind.removeprefix("task-") for kind in KINDS], k=30)
        feed(tracker(), *order)


def test_a_success_is_forgotten_at_once() -> None:
    """No event can follow it if its task-sent was seen, or if its fleet sends none."""
    to = tracker()
    feed(to, "sent", "received", "started", "succeeded")
    feed(to, "received", "started", "succeeded", uuid="u2", name="never.sent")
    assert not to.tasks


def test_a_success_before_its_task_sent_lingers() -> None:
    """Otherwise the late task-sent would be tracked for days as a waiting task."""
    to = tracker()
    feed(to, "sent", "received", "started", "succeeded", uuid="other")
    feed(to, "received", "started", "succeeded", uuid="late")
    feed(to, "received", "started", "succeeded", uuid="never")
    assert list(to.tasks) == ["late", "never"]
    feed(to, "sent", uuid="late")
    assert list(to.tasks) == ["never"]
    to.tick(NOON + 61)
    assert not to.tasks


@pytest.mark.parametrize("kind", ["failed", "succeeded"])
def test_a_twin_is_not_counted(kind: str) -> None:
    """Celery 5.7 sends the failure of a hard limit twice: the duplicate is recognised."""
    to = tracker()
    feed(to, "sent", uuid="other")
    assert feed(to, "received", "started", kind, kind)[-2:] == [True, False]


def test_a_failure_of_another_attempt_is_counted() -> None:
    """The same uuid fails again after it was received again."""
    to = tracker()
    assert all(feed(to, "received", "started", "failed", "received", "started", "failed"))


def test_a_twin_after_a_restart_is_not_counted() -> None:
    """Lingering ended tasks are stored and restored with their stage."""
    before = tracker()
    feed(before, "received", "started", "failed")
    saved, _ = before.take(1)
    after = tracker()
    after.restore(saved)
    assert feed(after, "failed") == [False]
    after.tick(NOON + 61)
    assert not after.tasks


def test_names_survive_a_restart() -> None:
    """A failure after the restart has the name from before."""
    before = tracker()
    feed(before, "received", "started")
    saved, _ = before.take(1)
    after = tracker()
    after.restore(saved)
    step = after.advance(event("failed"), FAILED)
    assert step is not None
    assert step[0].name == "a.b"


def test_what_began_and_ended_within_a_flush_is_never_saved() -> None:
    """Most tasks cost the store nothing."""
    to = tracker()
    feed(to, "sent", "received", "started", "succeeded")
    assert to.take(1) == ([], [])


def test_saved_entries_are_deleted_at_their_end() -> None:
    """They are written again when they change."""
    to = tracker()
    feed(to, "sent", "received")
    saved, gone = to.take(1)
    assert [uuid for uuid, _ in saved] == ["u1"]
    assert gone == []
    feed(to, "started")
    assert [(uuid, ref.stage, ref.saved) for uuid, ref in to.take(2)[0]] == [("u1", Stage.STARTED, 1)]
    feed(to, "succeeded")
    assert to.take(3) == ([], [("u1", 1)])


def test_what_was_taken_does_not_change_any_more() -> None:
    """A flush that is written late must not contain later changes."""
    to = tracker()
    feed(to, "received")
    ((_, ref),) = to.take(1)[0]
    feed(to, "started", "failed")
    assert ref.stage == Stage.RECEIVED


def test_waits() -> None:
    """The time from sending (or the ETA) to the start; None if it is unknown."""
    to = tracker()
    to.advance(event("sent", "plain", NOON, name="a"), 0)
    to.advance(event("sent", "later", NOON, name="a", eta="2023-11-15T12:00:30+00:00"), 0)
    to.advance(event("received", "eta", NOON, name="a", eta="2023-11-15T12:00:30"), RECEIVED)
    found = [to.advance(event("started", uuid, NOON + 32), STARTED) for uuid in ("plain", "later", "eta", "new")]
    assert [step[1] if step else None for step in found] == [32.0, 2.0, 2.0, None]


def test_the_wait_of_a_retry_is_its_own() -> None:
    """It counts from the second task-sent, even if that arrives before task-retried."""
    to = tracker()
    feed(to, "sent", "received", "started")
    to.advance(event("sent", at=NOON + 10, name="a.b", eta="2023-11-15T12:00:20+00:00"), 0)
    to.advance(event("received", at=NOON + 11, name="a.b"), RECEIVED)
    to.advance(event("retried", at=NOON + 12), 5)
    step = to.advance(event("started", at=NOON + 21), STARTED)
    assert step is not None
    assert step[1] == 1.0


def test_a_late_task_sent_starts_no_wait() -> None:
    """It belongs to the attempt that has already started."""
    to = tracker()
    to.advance(event("received", at=NOON + 1, name="a"), RECEIVED)
    to.advance(event("started", at=NOON + 2), STARTED)
    to.advance(event("sent", at=NOON, name="a"), 0)
    assert to.tasks["u1"].due_at == 0.0


@pytest.mark.parametrize("eta", ["soon", "", "2023-99-99", "9999-12-31T23:59:59-23:00"])
def test_a_bad_eta_is_no_eta(eta: str) -> None:
    """It is hostile input like everything else."""
    to = tracker()
    to.advance(event("sent", name="a", eta=eta), 0)
    step = to.advance(event("started", at=NOON + 1), STARTED)
    assert step is not None
    assert step[1] is not None


def test_runtime_is_measured_where_the_event_has_none() -> None:
    """Celery 5.7 may send ``runtime: null``."""
    to = tracker()
    feed(to, "received", "started")
    step = to.advance(event("succeeded", at=NOON + 5, runtime=None), SUCCEEDED)
    assert step is not None
    assert step[1] == 4.0


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_what_lingers_goes_when_its_time_is_over_whatever_the_clock_does(step: float) -> None:
    """If the clock is set by an hour, ended tasks do not pile up and duplicates are not counted."""
    to, now = tracker(), NOON
    for second in range(300):
        now += 1.0 + (step if second == 100 else 0.0)
        assert feed(to, "failed", "failed", uuid=f"u{second}") == [True, False]
        to.tick(now, quiet=max(0.0, step - 5.0) if second == 100 else 0.0)
        assert len(to.tasks) <= 60
    assert len(to.tasks) == 59


def test_bounded() -> None:
    """Above max_tasks, the oldest tasks are dropped and counted."""
    to = tracker(max_tasks=100)
    for number in range(150):
        feed(to, "received", uuid=f"u{number}")
    to.tick(NOON + 1)
    assert len(to.tasks) <= 100
    assert "u149" in to.tasks
    assert to.evicted == 150 - len(to.tasks)


def test_expires() -> None:
    """Tasks without events for max_age are dropped; others stay."""
    to = tracker(max_age=3600.0)
    feed(to, "received", uuid="old")
    to.tick(NOON + 3000)
    feed(to, "received", uuid="young")
    to.tick(NOON + 3700)
    assert list(to.tasks) == ["young"]


def test_one_that_goes_on_for_ever_does_not_keep_the_others() -> None:
    """A task that retries every minute is the oldest entry; newer ones without an end still expire."""
    to = tracker(max_age=3600.0)
    feed(to, "received", uuid="endless")
    feed(to, "received", uuid="leaked")
    for minute in range(120):
        to.tick(NOON + minute * 60)
        feed(to, "retried", uuid="endless")
    assert list(to.tasks) == ["endless"]


def test_the_oldest_go_first_also_after_a_restart() -> None:
    """Regardless of the store's order."""
    before = tracker()
    for number in range(100):
        before.tick(NOON + number * 60)
        feed(before, "received", uuid=f"{99 - number:03}")
    saved, _ = before.take(1)
    after = tracker(max_tasks=50)
    after.restore(sorted(saved))
    after.tick(NOON + 6000)
    assert "000" in after.tasks
    assert "099" not in after.tasks


def test_what_is_over_is_not_kept_for_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours without a flush use no memory for tasks that start and end meanwhile."""
    monkeypatch.setattr(entries, "RecentTasks", partial(RecentTasks, 1000))
    to, held = tracker(), []
    tracemalloc.start()
    for number in range(10_000):
        feed(to, "received", "started", "succeeded", uuid=f"u{number:09}")
        if number in {2_500, 9_999}:  # the names of the newest ones are known for some minutes
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert not to.tasks
    assert held[1] - held[0] < 100_000


def test_what_the_fleet_says_names_what_began_before() -> None:
    """It never overwrites data of the stream."""
    to = tracker()
    feed(to, "sent", uuid="known", name="by.event")
    feed(to, "started", uuid="nameless")
    to.learn([FleetTask(uuid, "by.fleet", "q2", NOON) for uuid in ("known", "nameless", "unseen")])
    assert {uuid: (ref.name, ref.queue) for uuid, ref in to.tasks.items()} == {
        "known": ("by.event", "q"),
        "nameless": ("by.fleet", "q2"),
        "unseen": ("by.fleet", "q2"),
    }


def test_what_the_fleet_says_is_saved() -> None:
    """Even for a task whose name was known and whose queue was not."""
    to = tracker()
    feed(to, "received")
    to.take(1)
    to.learn([FleetTask("u1", "by.fleet", "q2", NOON)])
    assert [(ref.name, ref.queue) for _, ref in to.take(2)[0]] == [("a.b", "q2")]


def test_names_are_shared_and_cleaned() -> None:
    """All entries of a task share one string, which is shortened and printable."""
    to = tracker()
    for uuid in ("u1", "u2"):
        feed(to, "received", uuid=uuid, name=f"a.{'b' * len(uuid)}")
    assert to.tasks["u1"].name is to.tasks["u2"].name
    assert to.name("a\nb\x00c") == "a\ufffdb\ufffdc"
    assert len(to.name("x" * 5000)) == MAX_NAME_LENGTH


def test_long_names_are_not_kept_whole() -> None:
    """Thousands of names of a megabyte use a few hundred bytes each, and different names stay different."""
    to = tracker()
    tracemalloc.start()
    for number in range(20):
        to.name(f"{number}" + "x" * 1_000_000)
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert allocated < 1_000_000
    assert to.name("y" * 5000) is to.name("y" * 5000)
    assert to.name("y" * 5000) != to.name("y" * 6000)


def test_arguments_are_bounded() -> None:
    """In bytes: the arguments of the oldest tasks are dropped and counted."""
    to = tracker(capture_arguments=True, max_argument_bytes=100_000)
    for number in range(100):
        to.advance(event("received", f"u{number}", name="a", args="(1,)" * 2000, kwargs="\U0001f600" * 5000), RECEIVED)
        assert to.arguments_bytes <= 100_000
    assert (len(to.arguments), to.arguments_cut) == (4, 96)
    assert "u99" in to.arguments
    for number in range(100):
        to.advance(event("succeeded", f"u{number}", runtime=1.0, queue="q"), SUCCEEDED)
    to.tick(NOON + 1000)
    to.tick(NOON + 2000)
    assert (to.arguments_bytes, to.arguments) == (0, {})


def test_long_ids_are_cut_and_stay_apart() -> None:
    """255 characters may be a kilobyte; a worker's answer still matches the task."""
    to = tracker()
    ids = [f"{end}".rjust(255, "\U0001f600") for end in ("1", "2")]
    for uuid in ids:
        to.advance(event("started", uuid), STARTED)
    assert all(key.__sizeof__() < 400 for key in to.tasks)
    to.learn([FleetTask(ids[1], "b.a", "q", NOON)])
    assert [ref.name for ref in to.tasks.values()] == [None, "b.a"]


def test_memory_runs_short() -> None:
    """Tasks with unique long names are forgotten first; without such tasks, the oldest."""
    to = tracker(max_tasks=10_000)
    for number in range(100):
        to.advance(event("received", f"u{number}", name="a.b"), RECEIVED)
    for number in range(100):
        to.advance(event("received", f"{number:03}" * 60, name=f"{number}" + "x" * 250), RECEIVED)
    to.shed_load()
    assert list(to.tasks) == [f"u{number}" for number in range(100)]
    to.shed_load()
    assert list(to.tasks) == [f"u{number}" for number in range(10, 100)]
    assert to.evicted == 110


def test_arguments_are_kept_only_when_asked_for() -> None:
    """They are dropped with their task."""
    capturing = tracker(capture_arguments=True)
    for to in (capturing, tracker()):
        to.advance(event("received", name="a", args="(1,)", kwargs="{}"), RECEIVED)
    assert capturing.arguments == {"u1": ("(1,)", "{}")}
    assert not to.arguments
    capturing.advance(event("succeeded"), SUCCEEDED)
    assert not capturing.arguments


def test_a_reference_is_small() -> None:
    """A million entries fit in 400 MB, with ID, table slot and the times of three events."""
    tasks = {str(number): None for number in range(1_000_000 // 2)}
    place = sys.getsizeof(tasks) / len(tasks)
    assert TaskRef.__basicsize__ + sys.getsizeof(str(uuid4())) + place + 3 * sys.getsizeof(0.5) <= 400
