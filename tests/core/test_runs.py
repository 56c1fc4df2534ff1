"""The identity of a run: (task ID, worker). One test case for each row of the table in core/track.py."""

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_monitor.core.model import COUNTS, Event, FleetTask, TaskRef
from celery_monitor.core.runs import MAX_RUNS, all_runs
from celery_monitor.core.track import LEFT_OPEN, Tracker
from celery_monitor.core.transitions import KINDS
from tests.builders import NOON

LIMIT = "billiard.exceptions.TimeLimitExceeded: TimeLimitExceeded(1,)\n"

Step = str
"""``worker kind [name]``: what a worker sends of the one task ID; a kind with ``!`` is of a hard time limit."""


def tracker(restored: Iterable[tuple[str, TaskRef]] = ()) -> Tracker:
    """A tracker with a large limit."""
    made = Tracker(max_tasks=10_000, max_age=7 * 86_400.0, linger=60.0)
    made.restore(restored)
    made.tick(NOON)
    return made


def event_of(step: Step, at: float, uuid: str = "u1") -> Event:
    """The event of a step."""
    worker, kind, *name = step.split()
    traceback = LIMIT if kind.endswith("!") else "ValueError: no\n"
    return Event(
        type=f"task-{kind.strip('!')}",
        timestamp=at,
        uuid=uuid,
        hostname=f"celery@{worker}",
        name=name[0] if name else None,
        queue="q" if kind == "sent" else None,
        traceback=traceback if kind.startswith("failed") else None,
        requeue=kind == "rejected" or None,
    )


def count(to: Tracker, steps: Iterable[Step], apart: float = 1.0, start: float = NOON) -> Counter[str]:
    """The counted events, as ``name kind``."""
    counted: Counter[str] = Counter()
    for number, step in enumerate(steps):
        event = event_of(step, start + number * apart)
        found = to.advance(event, KINDS[event.type])
        if found is not None:
            counted[f"{found[0].name} {event.type.removeprefix('task-')}"] += 1
    return counted


def run(worker: str, end: str = "succeeded", name: str = "a") -> list[Step]:
    """All events of a run."""
    return [f"{worker} received {name}", f"{worker} started", *(f"{worker} {one}" for one in end.split())]


def runs_of(*ends: str, name: str = "a") -> Counter[str]:
    """The counts of this many runs."""
    counts = Counter({f"{name} received": len(ends), f"{name} started": len(ends)})
    counts.update(f"{name} {end}" for end in ends)
    return counts


SENT = Counter({"a sent": 1})
SHARED = {
    "Broadcast, one after the other": (
        ["c sent a", *run("w1"), *run("w2"), *run("w3")],
        SENT + runs_of("succeeded", "succeeded", "succeeded"),
    ),
    "Broadcast, all at once": (
        ["c sent a", "w1 received a", "w2 received a", "w1 started", "w2 started", "w1 succeeded", "w2 succeeded"],
        SENT + runs_of("succeeded", "succeeded"),
    ),
    "Broadcast, all fail": (
        ["w1 received a", "w2 received a", "w1 started", "w2 started", "w2 failed", "w1 failed"],
        runs_of("failed", "failed"),
    ),
    "Broadcast, hard limit on both, twins apart": (
        ["w1 received a", "w2 received a", "w1 started", "w2 started", "w1 failed!", "w2 failed!", "w1 failed!",
         "w2 failed!"],
        runs_of("failed", "failed"),
    ),
    "visibility timeout, while the first runs": (
        ["w1 received a", "w1 started", "w2 received a", "w1 succeeded", "w2 started", "w2 failed"],
        runs_of("succeeded", "failed"),
    ),
    "visibility timeout, the same worker": (
        ["w1 received a", "w1 started", "w1 received a", "w1 succeeded", "w1 started", "w1 succeeded"],
        runs_of("succeeded", "succeeded"),
    ),
    "visibility timeout, the same worker, both at once": (
        ["w1 received a", "w1 started", "w1 received a", "w1 started", "w1 failed", "w1 failed"],
        runs_of("failed", "failed"),
    ),
    "received again after it succeeded": ([*run("w1"), *run("w2", "failed")], runs_of("succeeded", "failed")),
    "the received of the second run is lost": (
        [*run("w1"), "w2 started", "w2 failed"],
        runs_of("succeeded", "failed") - Counter({"a received": 1}),
    ),
    "the worker is lost, acks_late": (["w1 received a", "w1 started", *run("w2")], runs_of("succeeded", "retried")
                                      - Counter({"a retried": 1})),
    "the child is lost, rejected": (
        ["w1 received a", "w1 started", "w1 rejected", *run("w2")], runs_of("rejected", "succeeded"),
    ),
    "hard limit, rejected, received again before the twin": (
        ["w1 received a", "w1 started", "w1 failed!", "w1 rejected", "w1 received a", "w1 failed!", "w1 started",
         "w1 failed!"],
        runs_of("failed", "failed") + Counter({"a rejected": 1}),
    ),
    "hard limit, started again before the twin": (
        ["w1 received a", "w1 started", "w1 failed!", "w1 received a", "w1 started"],
        runs_of("failed", "failed") - Counter({"a failed": 1}),
    ),
    "retry on another worker": ([*run("w1", "retried"), *run("w2")], runs_of("retried", "succeeded")),
    "retry received before task-retried": (
        ["w1 received a", "w1 started", "w2 received a", "w1 retried", "w2 started", "w2 failed", "w2 rejected"],
        runs_of("retried", "failed") + Counter({"a rejected": 1}),
    ),
    "retry started before task-retried, same worker": (
        ["w1 received a", "w1 started", "w1 received a", "w1 started", "w1 retried", "w1 succeeded"],
        runs_of("retried", "succeeded"),
    ),
    "replaced, another worker": (
        ["c sent a", "w1 received a", "w1 started", "w1 sent b", *run("w2", "failed", "b")],
        Counter({"a sent": 1, "a received": 1, "a started": 1}) + runs_of("failed", name="b")
        + Counter({"b sent": 1}),
    ),
    "replaced, the same worker, hard limit": (
        ["w1 received a", "w1 started", *run("w1", "failed! failed!", "b")],
        Counter({"a received": 1, "a started": 1}) + runs_of("failed", name="b"),
    ),
    "the id is used again, another task": (
        [*run("w1", "failed"), *run("w1", "failed", "b")], runs_of("failed") + runs_of("failed", name="b"),
    ),
    "another worker names a running task otherwise": (
        ["w1 received a", "w1 started", "evil received b", "w1 failed"],
        Counter({"a received": 1, "a started": 1, "a failed": 1, "b received": 1}),
    ),
    "its own worker's name names it otherwise": (
        ["w1 received a", "w1 started", "w1 received b", "w1 failed"],
        Counter({"a received": 1, "a started": 1, "a failed": 1, "b received": 1}),
    ),
    "a failure of another worker comes first": (
        ["w1 received a", "w1 started", "evil failed", "w1 failed"],
        Counter({"a received": 1, "a started": 1, "a failed": 2}),
    ),
    "twin of the hard limit": (["w1 received a", "w1 started", "w1 failed!", "w1 failed!"], runs_of("failed")),
    "revoked twice": (["c sent a", "w1 revoked", "w2 revoked"], Counter({"a sent": 1, "a revoked": 2})),
}  # fmt: skip


@pytest.mark.parametrize("case", SHARED)
def test_each_run_is_counted_under_its_name(case: str) -> None:
    """Whichever workers run an ID, and however often, each run has its name and one end."""
    steps, expected = SHARED[case]
    assert count(tracker(), steps) == expected


@pytest.mark.parametrize("case", sorted(SHARED.keys() - {"the received of the second run is lost"}))
def test_each_run_is_known_after_a_restart(case: str) -> None:
    """A restart between any two events does not change the counts. Ended runs are remembered in memory only."""
    steps, expected = SHARED[case]
    to, counted = tracker(), Counter[str]()
    rows: dict[str, TaskRef] = {}
    for number, step in enumerate(steps):
        counted += count(to, [step], start=NOON + number)
        saved, gone = to.take(number + 1)
        for uuid, since in gone:
            assert rows.pop(uuid).saved == since
        rows |= dict(saved)
        for ref in rows.values():
            ref.saved = ref.saved or number + 1
        to = tracker(rows.items())
    assert counted == expected


def test_a_forged_old_failure_does_not_hide_the_real_one() -> None:
    """Even under the worker's own name: duplicates are at most a minute apart by its clock."""
    to = tracker()
    counted = count(to, ["w1 received a", "w1 started"])
    counted += count(to, ["w1 failed"], start=NOON - 7200)
    counted += count(to, ["w1 failed", "w1 failed"], start=NOON + 10)
    assert counted == runs_of("failed") + Counter({"a failed": 1})


def test_a_retry_elsewhere_is_the_same_run() -> None:
    """Nothing remains on the first worker, even if its task-retried arrives late."""
    for steps in (
        [*run("w1", "retried"), *run("w2")],
        ["w1 received a", "w1 started", "w2 received a", "w1 retried", "w2 started", "w2 succeeded"],
        ["w1 received a", "w1 started", "w2 received a", "w2 started", "w2 failed", "w1 retried"],
    ):
        to = tracker()
        count(to, ["c sent a", *steps])
        to.tick(NOON + 61)
        assert not to.tasks


def test_a_late_task_sent_brings_nothing_back() -> None:
    """A task-sent that arrives last is counted, and does not bring back a finished task."""
    to = tracker()
    assert count(to, [*run("w1"), "c sent a"]) == SENT + runs_of("succeeded")
    assert not to.tasks
    assert count(to, ["c sent a"], start=NOON + 3600) == SENT
    assert len(to.tasks) == 1


def test_open_runs_are_given_up_hours_after_another_one_ended() -> None:
    """A lost worker sends no end; a long run beside it is tracked until then."""
    to = tracker()
    count(to, ["w1 received a", "w1 started", *run("w2")])
    for passed, left in ((LEFT_OPEN - 60.0, 1), (LEFT_OPEN + 60.0, 0)):
        to.tick(NOON + passed)
        assert len(to.tasks) == left


def test_runs_of_one_id_are_bounded() -> None:
    """With thousands of real or invented workers, each run is counted, and the first ones are forgotten."""
    to = tracker()
    steps = [step for number in range(1000) for step in (f"w{number} received a", f"w{number} started")]
    assert count(to, steps, apart=0.0) == Counter({"a received": 1000, "a started": 1000})
    assert len(all_runs(to.tasks["u1"])) == MAX_RUNS + 1
    assert count(to, ["w1 failed"]) == Counter({"a failed": 1})


def test_the_twin_of_a_failure_is_known_among_many_runs() -> None:
    """If there are too many runs, others are dropped first."""
    to = tracker()
    count(to, ["w0 received a", "w1 received a", "w1 started", "w1 failed!"])
    count(to, [f"other{number} received a" for number in range(3 * MAX_RUNS)], apart=0.01)
    assert count(to, ["w1 failed!"], start=NOON + 5) == Counter()


def test_memory_of_what_many_workers_run_is_bounded() -> None:
    """For any number of invented IDs and workers, and whenever a run of each ended."""
    to = Tracker(max_tasks=500, max_age=7 * 86_400.0, linger=60.0)
    to.tick(NOON)
    for number in range(300):
        for step in ("w1 received a", "w2 received a", "w1 succeeded", "w3 received a", "w2 failed", "w2 received a"):
            event = event_of(step, NOON + number, f"u{number}")
            to.advance(event, KINDS[event.type])
        to.tick(NOON + number)
    assert len(to._left_open) <= len(to.tasks) <= 170


def test_runs_count_towards_the_bound() -> None:
    """An ID with many runs counts as much as many IDs."""
    to = Tracker(max_tasks=100, max_age=86_400.0, linger=60.0)
    to.tick(NOON)
    for uuid in ("u1", "u2"):
        for number in range(60):
            event = event_of(f"w{number} received a", NOON, uuid)
            to.advance(event, KINDS[event.type])
    to.tick(NOON)
    assert list(to.tasks) == ["u2"]


def test_what_the_fleet_says_names_every_run() -> None:
    """A task that ended since the query does not come back."""
    to = tracker()
    count(to, ["w1 started", "w2 started"])
    assert set(to.learn([FleetTask("u1", "a", "q", None)])) == {"u1"}
    assert count(to, ["w1 succeeded", "w2 succeeded"]) == Counter({"a succeeded": 2})
    assert to.learn([FleetTask("u1", "a", "q", None)]) == []
    assert not to.tasks


WORKERS = ("w1", "w2", "w3")
ENDS = ("succeeded", "failed", "failed! failed!", "revoked", "rejected")


@st.composite
def interleaved(draw: st.DrawFn) -> tuple[list[tuple[str, Step]], Counter[str]]:
    """Draws runs of two IDs by three workers, with each worker's events in order, and the expected counts."""
    sequences: list[list[tuple[str, Step]]] = []
    expected: Counter[str] = Counter()
    for worker in WORKERS:
        for uuid in ("u1", "u2"):
            ends = draw(st.lists(st.sampled_from(ENDS), max_size=2))
            sequences.append([(uuid, step) for end in ends for step in run(worker, end, name=f"task-of-{uuid}")])
            for end in ends:
                expected += runs_of(end.split()[0].strip("!"), name=f"task-of-{uuid}")
    order = draw(st.permutations([index for index, steps in enumerate(sequences) for _ in steps]))
    left = [iter(steps) for steps in sequences]
    return [next(left[index]) for index in order], expected


@given(interleaved())
def test_any_interleaving_counts_the_same(case: tuple[list[tuple[str, Step]], Counter[str]]) -> None:
    """Only the order within a worker is certain: interleaving the workers' events changes no count and no name."""
    steps, expected = case
    to, counted = tracker(), Counter[str]()
    for number, (uuid, step) in enumerate(steps):
        event = event_of(step, NOON + number, uuid)
        found = to.advance(event, KINDS[event.type])
        if found is not None:
            counted[f"{found[0].name} {event.type.removeprefix('task-')}"] += 1
    assert counted == expected


@given(st.lists(st.tuples(st.sampled_from(["w1", "w2", ""]), st.sampled_from(COUNTS), st.sampled_from(["", "a", "b"]))))
def test_any_event_has_a_result(steps: list[tuple[str, str, str]]) -> None:
    """Every event, legal or not, is counted once, except for duplicates of an end, and nothing raises."""
    to = tracker()
    for number, (worker, kind, name) in enumerate(steps):
        hostname = f"celery@{worker}" if worker else ""
        event = Event(type=f"task-{kind}", timestamp=NOON + number, hostname=hostname, uuid="u1", name=name or None)
        found = to.advance(event, KINDS[event.type])
        assert found is not None or kind in {"failed", "succeeded"}
        assert (to._others + 1 if to.tasks else to._others) == sum(len(all_runs(ref)) for ref in to.tasks.values())
