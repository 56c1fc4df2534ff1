"""The history of ended tasks, and the running tasks."""

from collections.abc import Mapping
from typing import Any

import pytest

from celery_monitor.core import ended, lookup
from celery_monitor.core.lookup import RunFilter, RunState
from celery_monitor.core.model import Delivery, Restored, Stage, TaskRun
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.core.runs import ENDED_UNSEEN
from tests.builders import NOON, body, life, raw

END = {"started_at": NOON + 2, "ended_at": NOON + 3, "sent_at": NOON, "received_at": NOON + 1}


def monitor(**limits: Any) -> Monitor:
    """A new monitor."""
    made = Monitor(Limits(name_wait=0.0, **limits), Restored(), NOON)
    made.connected(acknowledges=True)
    return made


def receive(to: Monitor, *bodies: bytes) -> None:
    """Apply messages ten seconds after the first event."""
    to.receive([Delivery(one) for one in bodies], NOON + 10)


def taken(of: Monitor) -> list[TaskRun]:
    """The ended runs that a flush writes."""
    changes = of.take(NOON + 10, force=True)
    assert changes is not None
    return list(changes.ended)


ENDS: dict[str, tuple[list[bytes], Mapping[str, object]]] = {
    "succeeded": (life("u1", runtime=0.5), {**END, "stage": Stage.SUCCEEDED, "runtime": 0.5}),
    "failed": (life("u1", end="failed", exception="E()"), {**END, "stage": Stage.FAILED}),
    "failed twice by a time limit": (
        [*life("u1", end="failed", exception="E()"), body(raw("failed", "u1", NOON + 3.01, exception="E()"))],
        {**END, "stage": Stage.FAILED},
    ),
    "revoked before it began": (
        [body(raw("sent", name="shop.pay", queue="pay")), body(raw("revoked", at=NOON + 3)), body(raw("revoked"))],
        {"stage": Stage.REVOKED, "sent_at": NOON, "ended_at": NOON + 3, "hostname": "w1@box"},
    ),
    "rejected": (life("u1", end="rejected"), {**END, "stage": Stage.REJECTED}),
    "sent read last": (
        [*life("u1", runtime=0.5)[1:], body(raw("sent", "u1", NOON, name="shop.pay", queue="pay"))],
        {**END, "stage": Stage.SUCCEEDED, "runtime": 0.5},
    ),
    "a retry in a chain": (
        [
            body(raw("received", name="shop.pay", root_id="r", parent_id="p", retries=0)),
            body(raw("started", at=NOON + 1)),
            body(raw("retried", at=NOON + 2, exception="E()")),
            body(raw("received", at=NOON + 3, name="shop.pay", root_id="r", parent_id="p", retries=1,
                     eta="2023-11-15T12:00:04+00:00")),
            body(raw("started", at=NOON + 5)),
            body(raw("succeeded", at=NOON + 6, runtime=1.0)),
        ],
        {"stage": Stage.SUCCEEDED, "received_at": NOON + 3, "started_at": NOON + 5, "ended_at": NOON + 6,
         "eta": NOON + 4, "retries": 1, "root": "r", "parent": "p", "runtime": 1.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_an_end(case: str) -> None:
    """Each end is in the history once, with the data of its events, and is found before and after the flush."""
    bodies, wanted = ENDS[case]
    of = monitor()
    receive(of, *bodies)
    before = of.lookup.find("u1")
    (run,) = taken(of)
    assert run.uuid == "u1"
    assert run.name == "shop.pay"
    assert {name: getattr(run, name) for name in wanted} == wanted
    assert before == of.lookup.find("u1") == [run]
    assert taken(of) == []


@pytest.mark.parametrize("end", [{"end": "retried"}, {"end": "rejected", "requeue": True}])
def test_no_end(end: dict[str, Any]) -> None:
    """A run that continues has not ended."""
    of = monitor()
    receive(of, *life("u1", **end))
    assert taken(of) == []
    assert [run.stage for run in of.lookup.find("u1")] in ([Stage.RETRYING], [Stage.REQUEUED])


def test_each_worker_has_its_run() -> None:
    """A task ID that two workers run ends twice.

    If the ID is reused later, that is another run, and the first is unchanged.
    """
    of = monitor()
    receive(of, *life("u1", runtime=0.5))
    receive(
        of,
        body(raw("received", at=NOON + 4, name="shop.pay") | {"hostname": "w2@box"}),
        body(raw("succeeded", at=NOON + 5, runtime=0.1) | {"hostname": "w2@box"}),
    )
    first, second = taken(of)
    assert (first.hostname, first.ended_at, second.hostname, second.ended_at) == (
        "w1@box",
        NOON + 3,
        "w2@box",
        NOON + 5,
    )
    assert of.lookup.find("u1") == [second, first]
    receive(of, body(raw("received", at=NOON + 6, name="shop.pay")))
    assert [run.stage for run in of.lookup.find("u1")] == [Stage.RECEIVED, Stage.SUCCEEDED, Stage.SUCCEEDED]


@pytest.mark.parametrize("hostname", ["w1@box", "w1@bo\nx", "w1@" + "x" * 300, "w1@\u202ebox"])
def test_an_event_that_is_read_after_the_end(hostname: str) -> None:
    """The task does not wait again, however odd the name of its worker is."""
    of = monitor()
    at_worker = {"hostname": hostname}
    late = body(raw("received", at=NOON + 1, name="shop.pay") | at_worker)
    receive(of, late, body(raw("started", at=NOON + 2) | at_worker), body(raw("succeeded", at=NOON + 3) | at_worker))
    receive(of, late)
    assert [run.stage for run in of.lookup.find("u1")] == [Stage.SUCCEEDED]


def test_the_history_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is bounded in each flush and in memory; 0 keeps nothing."""
    monkeypatch.setattr(ended, "PER_FLUSH", 3)
    of, none = monitor(max_ended_tasks=5), monitor(max_ended_tasks=0)
    for number in range(0, 12, 4):
        for to in (of, none):
            receive(to, *[one for each in range(4) for one in life(f"u{number + each}")])
        assert [run.uuid for run in taken(of)] == [f"u{number + each}" for each in (1, 2, 3)]
        assert taken(none) == []
    found = [number for number in range(12) if of.lookup.find(f"u{number}")]
    assert found == [6, 7, 9, 10, 11]


def under_way() -> Monitor:
    """Tasks of each kind."""
    of = monitor(capture_arguments=True)
    receive(
        of,
        body(raw("sent", "waits", NOON - 60, name="shop.mail", queue="mail", args="('a@b.example',)")),
        body(raw("sent", "later", NOON - 50, name="shop.mail", queue="mail", eta="2023-11-15T13:00:00Z", root_id="r")),
        *life("young", "shop.pay", NOON)[:3],
        *life("old", "shop.pay", NOON - 900)[:3],
        *life("again", "shop.pay", NOON, "retried", exception="E()"),
        *life("over", "shop.pay", NOON),
        body(raw("received", "child", NOON, name="shop.mail", parent_id="old", root_id="old")),
    )
    return of


def everything(of: Monitor) -> lookup.Tasks:
    """All active tasks, as a reader gets them."""
    return of.lookup.entries(of.lookup.uuids())


FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["waits", "later", "young", "old", "again", "child"]),
    ({"state": RunState.RUNNING}, ["old", "young"]),
    ({"state": RunState.WAITING}, ["waits", "child"]),
    ({"state": RunState.SCHEDULED}, ["later"]),
    ({"state": RunState.RETRYING}, ["again"]),
    ({"state": RunState.LOST}, []),
    ({"matches_name": lambda name: "mail" in name}, ["waits", "later", "child"]),
    ({"queue": "pay"}, ["young", "old", "again"]),
    ({"queue": "mail"}, ["waits", "later", "child"]),
    ({"hostname": "w1@box", "state": RunState.WAITING}, ["child"]),
    ({"offset": 1, "limit": 2}, ["later", "young"]),
]


@pytest.mark.parametrize(("wanted", "uuids"), FILTERS, ids=map(str, range(len(FILTERS))))
def test_what_runs(wanted: dict[str, Any], uuids: list[str]) -> None:
    """Running tasks are sorted by start, others by arrival; each state is counted regardless of the filter."""
    of = under_way()
    page = lookup.select_runs(everything(of), RunFilter(**wanted), NOON + 10, of.lookup.likely_queue)
    assert [run.uuid for run in page.runs] == uuids
    assert page.total >= len(uuids)
    if not wanted or set(wanted) == {"state"}:
        assert page.counts == {
            RunState.RUNNING: 2, RunState.WAITING: 2, RunState.SCHEDULED: 1, RunState.RETRYING: 1,
        }  # fmt: skip


def test_lost_and_shared() -> None:
    """A lost run does not count as running; each run of an ID that several workers run is listed."""
    of = under_way()
    entry = of._parts.tracker.tasks["old"]
    of._parts.tracker.lose("old", entry, NOON + 5)
    receive(of, *[body({**raw("started", "young", NOON + 4), "hostname": "w2@box"})])
    found = lookup.select_runs(everything(of), RunFilter(state=RunState.RUNNING), NOON + 10)
    assert [(run.uuid, run.hostname) for run in found.runs] == [("young", "w1@box"), ("young", "w2@box")]
    (lost,) = lookup.select_runs(everything(of), RunFilter(state=RunState.LOST), NOON + 10).runs
    assert (lost.uuid, lost.lost_at) == ("old", NOON + 5)


def test_what_goes_meanwhile() -> None:
    """A task that ends between the two steps of a query is omitted."""
    of = under_way()
    uuids = of.lookup.uuids()
    receive(of, body(raw("succeeded", "old", NOON + 3, runtime=1.0)))
    assert "old" in uuids
    assert "old" not in of.lookup.entries(uuids)[0]


def test_what_has_ended_without_an_event() -> None:
    """A task that raised Ignore is neither running nor lost; its ID is found."""
    of = under_way()
    of._parts.tracker.lose("old", of._parts.tracker.tasks["old"], ENDED_UNSEEN)
    page = lookup.select_runs(everything(of), RunFilter(), NOON + 10)
    assert (page.counts[RunState.RUNNING], page.counts.get(RunState.LOST)) == (1, None)
    assert "old" not in {run.uuid for run in page.runs}
    (found,) = of.lookup.find("old")
    assert (found.name, found.lost_at, lookup.state_of_run(found, NOON)) == ("shop.pay", 0.0, RunState.UNSEEN)


def test_what_is_known_of_a_task() -> None:
    """Arguments if they are captured, the likely queue if unknown, and the tasks that it has sent."""
    of = under_way()
    (waits,) = of.lookup.find("waits")
    assert (waits.args, waits.sent_at, waits.queue, waits.hostname) == ("('a@b.example',)", NOON - 60, "mail", "")
    (child,) = of.lookup.find("child")
    assert (child.queue, child.parent, child.root) == ("mail", "old", "old")
    assert [run.uuid for run in lookup.children(everything(of), "old")] == ["child"]
    receive(of, body(raw("succeeded", "child", NOON + 3, runtime=1.0)))
    assert lookup.children(everything(of), "old") == []
    assert [run.uuid for run in of.lookup.ended_children("old")] == ["child"]
    assert of.lookup.find("never") == []
