"""The running tasks, and a task by its ID."""

import html
import itertools
import json
import re
from collections.abc import Sequence
from urllib.parse import quote, unquote

import pytest
from msgspec import structs

from celery_monitor.adapters.store import SqlStore
from celery_monitor.adapters.web.runs import PER_PAGE
from celery_monitor.adapters.web.workers import COLUMNS
from celery_monitor.core import paging
from celery_monitor.core.model import Changes, Delivery, Restored, TaskRef, TaskRun
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.core.runs import ENDED_UNSEEN
from celery_monitor.core.text import name_of_part
from celery_monitor.runtime.task_view import StoredTaskView
from tests.adapters.web.conftest import Served
from tests.adapters.web.fleet import NOW, Fleet, ran, worker
from tests.fakes import ManualClock

LISTS: list[tuple[str, list[str]]] = [
    ("", ["run-2", "run-1", "wait-1", "later-1"]),
    ("?state=running", ["run-2", "run-1"]),
    ("?state=waiting", ["wait-1"]),
    ("?state=scheduled", ["later-1"]),
    ("?state=lost", []),
    ("?task=shop.mail", ["run-2", "wait-1", "later-1"]),
    ("?task=mail", []),
    ("?worker=celery%40box&queue=billing", ["run-2", "run-1"]),
    ("?limit=1", ["run-1"]),
]


@pytest.mark.parametrize(("query", "uuids"), LISTS)
def test_the_list(usual_site: Served, query: str, uuids: list[str]) -> None:
    """The active tasks, with each filter of the API."""
    answer = usual_site.get(f"/api/v1/runs{query}").json()
    found = [one["uuid"] for one in answer["items"]]
    assert sorted(found) == sorted(uuids)
    if "state" in query:
        assert found == uuids


def test_pages_of_the_list(site: Served) -> None:
    """The cursor leads through all of it; an invalid one is reported."""
    found: list[str] = []
    address = "/api/v1/runs?limit=3"
    while address:
        answer = site.get(address).json()
        found += [one["uuid"] for one in answer["items"]]
        address = f"/api/v1/runs?limit=3&cursor={answer['next']}" if answer["next"] else ""
    assert sorted(found) == ["later-1", "run-1", "run-2", "wait-1"]
    for wrong in ("eA", "MTAwMDAwMDAwMDAwMDAw"):
        assert "cursor" in site.get(f"/api/v1/runs?cursor={wrong}").json()["error"]
    assert "state" in site.get("/api/v1/runs?state=odd").json()["error"]


def test_a_run_in_json(site: Served) -> None:
    """A running task: location, start, workflow, and arguments."""
    answer = site.get("/api/v1/runs/run-1").json()
    (run,) = answer["runs"]
    assert (run["state"], run["hostname"], run["queue"]) == ("running", "celery@box", "billing")
    assert (run["waited_seconds"], run["seconds"], run["args"]) == (2.0, None, "('order-4711',)")
    assert answer["ancestors"] == [{"uuid": "root-1", "task": "shop.mail", "state": "succeeded"}]
    (child,) = answer["children"]
    assert (child["uuid"], child["state"], child["seconds"], child["root"]) == ("done-1", "succeeded", 0.25, "root-1")
    failed = site.get("/api/v1/runs/id-1").json()
    assert [one["exception"] for one in failed["failures"]] == ["ValueError"]
    assert failed["runs"][0]["state"] == "failed"
    assert site.get("/api/v1/runs/never").status_code == 404


def test_the_page(site: Served) -> None:
    """Running tasks with a count for each state; waiting ones are one click away."""
    text = site.get("/runs").text
    assert text.index("runs/run-2") < text.index("runs/run-1")
    assert "order-4711" in text
    assert "Running 2" in text
    assert "Waiting 1" in text
    assert "All 4" in text
    assert "wait-1" not in text
    assert "runs/wait-1" in site.get("/runs?state=waiting").text
    assert "runs/run-2" in site.get("/runs?q=MAI&worker=celery%40box").text
    assert "No matching task is running" in site.get("/runs?q=nothing").text
    assert "fewer pages" in site.get("/runs?page=9").text
    titles = {"": "Running", "waiting": "Waiting", "lost": "Lost", "all": "Unfinished", "odd": "Running"}
    for state, title in titles.items():
        answer = site.get(f"/runs?state={state}&page=x&utm_source=mail")
        assert (answer.status_code, f"<h1>{title} tasks <small>now" in answer.text) == (200, True), state
    assert "No task is lost." in site.get("/runs?state=lost").text


def test_a_task_by_its_id(site: Served, fleet: Fleet) -> None:
    """A running task keeps its address until and after its end."""
    text = site.get("/runs/run-1").text
    assert "data-refresh" in text
    assert ">running<" in text
    assert 'href="../runs/root-1"' in text
    assert 'href="../runs/done-1"' in text
    end = {"type": "task-succeeded", "uuid": "run-1", "hostname": "celery@box", "timestamp": NOW - 1, "runtime": 87.0}
    fleet.monitor.receive([Delivery(json.dumps(end).encode())], NOW)
    text = site.get("/runs/run-1").text
    assert ">succeeded<" in text
    assert "ran for 1 min 27 s" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "data-refresh" not in text


def test_what_has_ended_is_in_the_store(site: Served, fleet: Fleet, store: SqlStore) -> None:
    """It is found there when memory has dropped it, and shown once while both have it."""
    changes = fleet.monitor.take(NOW)
    assert changes is not None
    store.commit(Changes(now=NOW, sequence=2, ended=changes.ended))
    assert len(site.get("/api/v1/runs/done-1").json()["runs"]) == 1
    fleet.monitor = Monitor(Limits(), Restored(), NOW)
    (run,) = site.get("/api/v1/runs/done-1").json()["runs"]
    assert (run["state"], run["parent"], run["sent_at"]) == ("succeeded", "run-1", "2026-11-23T14:04:29.250Z")
    ancestors = site.get("/api/v1/runs/done-1").json()["ancestors"]
    assert [(one["uuid"], one["state"]) for one in ancestors] == [("root-1", "succeeded"), ("run-1", None)]


def test_a_standby(site: Served, fleet: Fleet, store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows what the leader has committed, and says so."""
    tracked = [
        ("run-9", TaskRef(name="shop.mail", stage=2, started_at=NOW - 9, host="celery@box")),
        ("ignored-9", TaskRef(name="shop.mail", stage=2, started_at=NOW - 9, host="celery@box", due_at=-ENDED_UNSEEN)),
        ("returned-9", TaskRef(name="shop.mail", stage=1, host="celery@box", due_at=-ENDED_UNSEEN)),
    ]
    ended = [TaskRun(uuid="done-9", name="shop.mail", queue="q", hostname="celery@box", stage=5, ended_at=NOW)]
    store.commit(Changes(now=NOW, sequence=2, tracked=tracked, ended=ended))
    monkeypatch.setattr(Fleet, "tasks", StoredTaskView(fleet.reader, ManualClock(time=NOW)))
    text = site.get("/runs").text
    assert "as of the leader&#39;s last commit" in text or "as of the leader's last commit" in text
    assert "runs/run-9" in text
    assert ">running<" in site.get("/runs/run-9").text
    assert ">succeeded<" in site.get("/runs/done-9").text
    assert "runs/ignored-9" not in text
    text = site.get("/runs/ignored-9").text
    assert ">unseen end<" in text
    assert "no event reported how or when it ended" in text
    assert site.get("/api/v1/runs/ignored-9").json()["runs"][0]["state"] == "unseen_end"
    assert "returned it to its queue before it started" in site.get("/runs/returned-9").text


def test_what_has_ended(site: Served, fleet: Fleet, store: SqlStore) -> None:
    """A list of the newest runs, newest first; filters and orders are in the address and in each link."""
    assert "No ended tasks are stored" in site.get("/runs?state=ended").text
    changes = fleet.monitor.take(NOW)
    assert changes is not None
    store.commit(Changes(now=NOW, sequence=2, ended=changes.ended))
    text = site.get("/runs?state=ended").text
    assert "runs/id-1" in text
    assert text.index("runs/id-1") < text.index("runs/done-1")
    text = site.get("/runs?state=succeeded&q=MAIL&sort=runtime&worker=celery%40box").text
    assert text.index("runs/root-1") < text.index("runs/done-1")
    assert "runs/id-1" not in text
    assert "sort=-runtime" in text
    assert "q=MAIL&amp;state=failed&amp;worker=celery%40box&amp;sort=runtime" in text
    assert "No stored task matches" in site.get("/runs?state=revoked").text
    assert "fewer pages" in site.get("/runs?state=ended&page=9").text
    for hostile in ("q=%00&worker=%00&queue=%ff", "q=" + "*%5Ba-" * 1500, "q=%3Cscript%3E&sort=-%00", "page=99999"):
        answer = site.get(f"/runs?state=ended&{hostile}")
        assert answer.status_code == 200
        assert "<script>" not in answer.text


def test_pages_of_what_has_ended_hold_still(site: Served, store: SqlStore) -> None:
    """Following its links shows each task once, however many end meanwhile; only the first page shows new ones."""
    sequence = itertools.count(2)

    def end(uuids: Sequence[str]) -> None:
        runs = [
            TaskRun(uuid=uuid, name="shop.mail", queue="q", hostname="celery@box", stage=5, ended_at=NOW)
            for uuid in uuids
        ]
        store.commit(Changes(now=NOW, sequence=next(sequence), ended=runs))

    def link(rel: str, text: str) -> str:
        return "/runs" + html.unescape(re.findall(rf'rel="{rel}" href="([^"]+)"', text)[0])

    uuids = [f"run-{number:03}" for number in range(2 * PER_PAGE + 10)]
    end(uuids)
    for sort in ("", "&sort=-ended", "&sort=hostname"):
        before = site.get(f"/api/v1/runs?state=ended&limit={PER_PAGE * 5}").json()["items"]
        pages = [site.get(f"/runs?state=ended{sort}").text]
        while 'rel="next"' in pages[-1]:
            end([f"late{sort}-{len(pages)}-{number}" for number in range(7)])
            pages.append(site.get(link("next", pages[-1])).text)
        listed = [re.findall(r'href="\./runs/([^"?]+)"', text) for text in pages]
        assert sorted(map(unquote, itertools.chain(*listed))) == sorted(one["uuid"] for one in before)
        assert ["data-refresh" in text for text in pages] == [True, False, False]
        assert ["Show the newest" in text for text in pages] == [False, True, True]
        assert re.findall(r'href="\./runs/([^"?]+)"', site.get(link("prev", pages[-1])).text) == listed[1]
    assert "late" in site.get("/runs?state=ended").text
    assert "newest=" not in site.get("/runs?state=failed").text
    for hostile in ("-1", "1e9", "%00", "9" * 19, "9" * 5_000, "%D9%A3", ""):
        assert site.get(f"/runs?state=ended&newest={hostile}").status_code == 200


def test_what_has_ended_as_json(site: Served, fleet: Fleet, store: SqlStore) -> None:
    """The pages are those of the time of the first request, however many tasks end meanwhile."""
    changes = fleet.monitor.take(NOW)
    assert changes is not None
    store.commit(Changes(now=NOW, sequence=2, ended=changes.ended))
    whole = site.get("/api/v1/runs?state=ended").json()
    ids = [one["uuid"] for one in whole["items"]]
    assert len(ids) > 2
    assert whole["next"] is None
    path, paged, answer = "/api/v1/runs?state=ended&limit=1", list[str](), whole
    for number in range(len(ids)):
        late = TaskRun(uuid=f"late-{number}", name="shop.mail", queue="q", hostname="celery@box", stage=5, ended_at=NOW)
        answer = site.get(path).json()
        paged += [one["uuid"] for one in answer["items"]]
        path = f"/api/v1/runs?state=ended&limit=1&cursor={answer['next']}"
        store.commit(Changes(now=NOW, sequence=3 + number, ended=[late]))
    assert paged == ids
    assert answer["next"] is None
    found = site.get("/api/v1/runs?state=succeeded&task=shop.mail&worker=celery%40box&queue=q").json()["items"]
    assert [one["uuid"] for one in found] == [f"late-{number}" for number in reversed(range(len(ids)))]
    assert {one["state"] for one in site.get("/api/v1/runs?state=failed").json()["items"]} == {"failed"}
    assert site.get("/api/v1/runs?state=ended&task=mail").json()["items"] == []
    for wrong in ("state=over", "state=ended&cursor=x", "state=ended&cursor=" + paging.cursor((1,)), "state=ended&q=a"):
        assert site.get(f"/api/v1/runs?{wrong}").status_code == 400


def test_nothing_is_known(site: Served) -> None:
    """The answer gives possible reasons."""
    answer = site.get("/runs/never")
    assert answer.status_code == 404
    for reason in ("tracking.max_ended_tasks", "another celery-monitor", "task_send_sent_event", "mistyped"):
        assert reason in answer.text
    assert site.get("/runs/" + "%00" * 20 + "<script>").status_code == 404


def test_the_search_finds_ids(site: Served) -> None:
    """A known ID leads to its task, and a possible ID to the possible reasons."""
    for uuid in ("run-1", "done-1", "id-2", "6f8b1c1e-0b0e-4a5e-8a36-0d4b7f1c2a11"):
        answer = site.get(f"/tasks?q={uuid}")
        assert (answer.status_code, answer.headers["location"]) == (303, f"runs/{uuid}")
    assert site.get("/tasks?q=mail").status_code == 200
    assert site.get("/tasks?q=never").status_code == 200


@pytest.mark.parametrize("odd", ["{}", " {} ", "'{}'", "`{}`\n", "Task shop.mail[{}] received", "{} succeeded in 0.2s"])
def test_an_id_as_it_was_copied(site: Served, fleet: Fleet, odd: str) -> None:
    """An ID is found with surrounding text, and a UUID in upper case; the address then has the stored ID."""
    uuid = "6f8b1c1e-0b0e-4a5e-8a36-0d4b7f1c2a11"
    fleet.monitor.receive([Delivery(json.dumps(one).encode()) for one in ran(uuid, "shop.mail", -5)], NOW)
    for typed in {odd.format(uuid), odd.format(uuid.upper())} - {uuid}:
        answer = site.get("/tasks", params={"q": typed})
        assert (answer.status_code, answer.headers["location"]) == (303, f"runs/{uuid}")
        answer = site.get(f"/runs/{quote(typed, safe='')}")
        assert (answer.status_code, answer.headers["location"]) == (303, f"../runs/{uuid}")
    assert site.get(f"/runs/{uuid}").status_code == 200


@pytest.mark.parametrize("uuid", ["a/b", "<script>alert(1)</script>", "..", "ünï ☃"])
def test_odd_ids(site: Served, fleet: Fleet, uuid: str) -> None:
    """For any ID of an application, the list links to its page, and it is never markup."""
    odd = ran(uuid, "<em>odd</em>", -5, parent_id="<i>", root_id="<u>")
    fleet.monitor.receive([Delivery(json.dumps(one).encode()) for one in odd], NOW)
    text = site.get("/runs").text
    links = [part.partition('"')[0] for part in text.split('href="./runs/')[1:]]
    (link,) = (link for link in links if name_of_part(unquote(link)) == uuid)
    assert "<em>" not in text
    text = site.get(f"/runs/{link}").text
    assert "<i>" not in text
    assert "&lt;em&gt;odd" in text


def test_workers_are_sorted(site: Served, fleet: Fleet) -> None:
    """By each column in both directions; by default, those that are down come first."""
    fleet.workers = [worker("celery@a"), worker("celery@b", up=False), structs.replace(worker("celery@c"), active=9)]

    def shown(sort: str) -> str:
        text = site.get(f"/workers?sort={sort}").text
        return "".join(sorted("abc", key=lambda name: text.index(f"workers/celery%40{name}")))

    asked = {"": "bac", "odd": "bac", "hostname": "abc", "-hostname": "cba", "running": "cab", "-running": "abc"}
    asked |= {"state": "bac", "-state": "acb"}
    assert {sort: shown(sort) for sort in asked} == asked
    for column in COLUMNS:
        assert sorted(shown(column.name)) == ["a", "b", "c"]


def test_a_worker(site: Served, fleet: Fleet) -> None:
    """Its queues, size, state, and running tasks; also for a worker that has reported nothing."""
    text = site.get("/workers/celery%40box").text.replace("\N{NO-BREAK SPACE}", " ")
    for expected in ("prefork, 8", "prefetch limit 32", "0.50", "1 h 0 min", "90 MiB", "runs/run-2", "queues/celery"):
        assert expected in text
    answer = site.get("/api/v1/workers/celery%40box").json()
    assert (answer["pool"], answer["queues"]) == ("prefork", ["billing", "celery"])
    assert answer["load_average"] == [0.5, 0.75, 1.0]
    assert answer["tasks"] == {"running": 2, "waiting": 0, "scheduled": 0, "retrying": 0, "lost": 0}
    gone = site.get("/api/v1/workers/celery%40gone").json()
    assert (gone["pool"], gone["queues"], gone["up"]) == (None, [], False)
    assert "No task is running on this worker" in site.get("/workers/celery%40gone").text
    assert "<dd>2<small>of 8 processes; 1 in its last heartbeat</small>" in text
    fleet.monitor = Monitor(Limits(), Restored(), NOW)
    text = re.sub(r"<[^>]*>", "", site.get("/workers/celery%40box").text)
    assert "No running task of this worker is known. Its last heartbeat, 2 s ago, counted 1: it has ended" in text
    fleet.workers = [structs.replace(worker(), active=0)]
    assert "No task is running on this worker" in site.get("/workers/celery%40box").text
    for path in ("/workers/never", "/api/v1/workers/never", "/workers/"):
        assert site.get(path, follow_redirects=False).status_code in {404, 307}
    assert "billing, celery" in re.sub(r"<[^>]*>", "", site.get("/workers").text)
