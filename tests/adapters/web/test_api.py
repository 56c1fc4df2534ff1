"""``/api/v1`` over a real socket with a real store."""

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import httpx
import jsonschema
import msgspec
import pytest

from celery_monitor.adapters.store import SqlStore
from celery_monitor.adapters.web.openapi import INDEX, OPERATIONS
from celery_monitor.core.model import Action, Changes, ErrorDelta, OutboxItem, OutboxRequest, Silence
from celery_monitor.core.summary import summary_to_dict
from celery_monitor.errors import StoreUnavailableError
from tests.adapters.web.conftest import Serve, Served
from tests.adapters.web.fleet import BUCKET, NOW, Fleet, bucket, failure, group, incident, worker

Commit = Callable[[Changes], None]


def items(site: Served, path: str, **parameters: object) -> list[dict[str, Any]]:
    """All items of a list, page by page."""
    found, cursor = [], None
    while True:
        query = {key: str(value) for key, value in parameters.items()} | ({"cursor": cursor} if cursor else {})
        answer = site.get(path, params=query)
        assert answer.status_code == 200, answer.text
        document = answer.json()
        found += document["items"]
        cursor = document["next"]
        if cursor is None:
            return found


def test_tasks(site: Served) -> None:
    """A task has its name, its queue, all eight counts over the retention, and its last failure in RFC 3339."""
    first, second = items(site, "/api/v1/tasks")
    assert first == {
        "name": "shop.charge",
        "queue": "billing",
        "counts": {
            "sent": 0, "received": 0, "started": 5, "succeeded": 3,
            "failed": 2, "retried": 0, "rejected": 0, "revoked": 0,
        },
        "runtime": {"count": 3, "seconds": 1.5},
        "last_failure_at": "2026-11-23T14:04:39.250Z",
    }  # fmt: skip
    assert (second["name"], second["queue"], second["last_failure_at"]) == ("shop.mail", "celery", None)


def test_tasks_of_a_time(site: Served) -> None:
    """``since`` omits earlier counts, ``until`` later ones."""
    assert len(items(site, "/api/v1/tasks", since="1h")) == 2
    assert items(site, "/api/v1/tasks", since="2026-11-23T15:00:00Z") == []
    assert items(site, "/api/v1/tasks", until="2026-11-23T14:00:00Z") == []
    assert len(items(site, "/api/v1/tasks", until="2026-11-23T15:00:00Z", since="1d")) == 2


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_hold_everything_once(site: Served, commit: Commit, limit: int) -> None:
    """For any page size, every list returns each item exactly once and in order."""
    commit(
        Changes(
            now=NOW,
            sequence=2,
            buckets=[bucket(f"task.{number}", queue) for number in range(4) for queue in ("a", "b")],
            # Three have as many failures, at the same time.
            groups=[group("shop.mail", f"{number:016x}") for number in range(4)],
            errors=[ErrorDelta(BUCKET, f"{number:016x}", 1 + number // 3) for number in range(4)],
            failures=[failure(f"more-{number}", at=NOW - number // 2) for number in range(5)],
            # Two have the same time: a cursor by time alone would lose one or give it twice.
            incidents=[incident(f"key {number}", first_at=NOW - number // 2) for number in range(5)],
            outbox=[OutboxRequest("pagerduty", f"key {number}", Action.TRIGGER) for number in range(5)],
        )
    )
    for path, key, number in (
        ("/api/v1/tasks", lambda item: (item["name"], item["queue"]), 10),
        ("/api/v1/errors", lambda item: item["group"], 5),
        ("/api/v1/failures", lambda item: item["uuid"], 7),
        ("/api/v1/incidents", lambda item: item["key"], 6),
        ("/api/v1/outbox", lambda item: item["id"], 6),
        ("/api/v1/workers", lambda item: item["hostname"], 2),
        ("/api/v1/queues", lambda item: item["name"], 4),
    ):
        found = [key(item) for item in items(site, path, limit=limit)]
        assert found == [key(item) for item in site.get(path).json()["items"]]
        assert len(set(found)) == len(found) == number


def test_task(site: Served) -> None:
    """A task's page has the sum of its queues, each queue, and the error groups with a sample."""
    document = site.get("/api/v1/tasks/shop.charge").json()
    assert document["counts"]["failed"] == 2
    assert [row["queue"] for row in document["queues"]] == ["billing"]
    (error,) = document["errors"]
    assert (error["exception"], error["frame"], error["count"]) == ("ValueError", "shop.py:charge", 2)
    assert error["sample"] in {"id-1", "id-2"}


def test_a_task_with_any_name(site: Served, commit: Commit) -> None:
    """Slashes, spaces, percent signs and letters of any script in a task's name work."""
    name = "a/b c%2Fd?e#f é"
    commit(Changes(now=NOW, sequence=2, buckets=[bucket(name, "q")]))
    path = httpx.URL(site.url).copy_with(raw_path=b"/api/v1/tasks/" + _quoted(name)).raw_path.decode()
    assert site.get(path).json()["name"] == name


def _quoted(name: str) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in name.encode())


def test_tasks_by_exception(site: Served) -> None:
    """Tasks are filtered by the exceptions of their failures in the period."""
    assert [one["name"] for one in items(site, "/api/v1/tasks", exception="ValueError")] == ["shop.charge"]
    assert [one["name"] for one in items(site, "/api/v1/tasks", exception="ValueError", since="1h")] == ["shop.charge"]
    assert items(site, "/api/v1/tasks", exception="ValueError", until="1d") == []
    assert items(site, "/api/v1/tasks", exception="OSError") == []


def test_errors_of_all_tasks(site: Served, commit: Commit) -> None:
    """Error groups of the period and names, most failures first, each with its newest failure."""
    commit(
        Changes(
            now=NOW,
            sequence=2,
            groups=[group("shop.mail", "a" * 16, "shop.errors.MailError"), group("shop.mail", "b" * 16)],
            errors=[ErrorDelta(BUCKET, "a" * 16, 3), ErrorDelta(BUCKET - 3 * 86_400, "b" * 16, 9)],
            failures=[failure("mail-1", name="shop.mail", group="a" * 16)],
        )
    )

    def found(**asked: str) -> list[tuple[str, str, int, str | None]]:
        keys = "task", "exception", "count", "sample"
        return [tuple(one[key] for key in keys) for one in items(site, "/api/v1/errors", **asked)]

    mail = "shop.mail", "shop.errors.MailError", 3, "mail-1"
    charge = "shop.charge", "ValueError", 2, "id-2"
    assert found() == [mail, charge]
    assert found(since="7d") == [("shop.mail", "ValueError", 9, None), mail, charge]
    assert found(since="7d", until="1d") == [("shop.mail", "ValueError", 9, None)]
    assert found(task="shop.mail") == found(exception="MailError") == found(exception="shop.errors.MailError") == [mail]
    assert found(exception="Error") == found(task="mail") == []


def test_failures_by_filters(site: Served) -> None:
    """Failures are filtered by task, exception and time."""
    assert [one["uuid"] for one in items(site, "/api/v1/failures")] == ["id-2", "id-1"]
    assert [one["uuid"] for one in items(site, "/api/v1/failures", exception="ValueError")] == ["id-1"]
    assert items(site, "/api/v1/failures", task="other") == []
    assert [one["uuid"] for one in items(site, "/api/v1/failures", since="45s")] == ["id-2"]
    assert [one["uuid"] for one in items(site, "/api/v1/failures", until="45s")] == ["id-1"]
    assert [one["uuid"] for one in items(site, "/api/v1/failures", since="2026-11-23T15:04:30+01:00")] == ["id-2"]


def test_failure_in_full(site: Served) -> None:
    """A failure's page has its traceback, and arguments only if they were captured."""
    (found,) = items(site, "/api/v1/failures/id-1")
    assert found["traceback"].startswith("Traceback")
    assert found["args"] is None
    assert found["incident"] == "shop.charge/2026-11-23T14Z"


def test_incidents_by_filters(site: Served, commit: Commit) -> None:
    """Incidents are filtered by task, including one of a storm's, by exception and by time."""
    storm = incident("storm/1", task="storm", tasks={"shop.mail": 1}, exceptions={"OSError": 1}, first_at=NOW)
    commit(Changes(now=NOW, sequence=2, incidents=[storm]))
    assert [one["key"] for one in items(site, "/api/v1/incidents", task="shop.mail")] == ["storm/1"]
    assert [one["task"] for one in items(site, "/api/v1/incidents", exception="ValueError")] == ["shop.charge"]
    assert [one["task"] for one in items(site, "/api/v1/incidents", since="30s")] == ["storm"]
    assert [one["task"] for one in items(site, "/api/v1/incidents", key="storm/1")] == ["storm"]


def test_workers_need_no_store(serve: Serve, fleet: Fleet) -> None:
    """The current workers are shown, even while the store is unavailable."""
    fleet.trouble = StoreUnavailableError("the disk is full")
    site = serve()
    assert [(one["hostname"], one["up"]) for one in items(site, "/api/v1/workers")] == [
        ("celery@box", True),
        ("celery@gone", False),
    ]


def test_outbox(site: Served, store: SqlStore) -> None:
    """The outbox lists waiting and given-up notifications, or only the latter."""
    (waiting,) = items(site, "/api/v1/outbox")
    assert (waiting["channel"], waiting["state"], waiting["attempts"]) == ("pagerduty", "pending", 0)
    assert items(site, "/api/v1/outbox", dead="true") == []
    found: Sequence[OutboxItem] = store.outbox.items(dead=False, limit=1).rows
    store.outbox.dead(found[0], NOW, "status 400")
    (dead,) = items(site, "/api/v1/outbox", dead="true")
    assert (dead["state"], dead["error"]) == ("dead", "status 400")


def test_outbox_of_a_time(site: Served) -> None:
    """Waiting notifications are filtered by creation time."""
    assert len(items(site, "/api/v1/outbox", since="1m")) == 1
    assert items(site, "/api/v1/outbox", until="1m") == []


def test_report(site: Served, fleet: Fleet) -> None:
    """A day's report is the summary of the mail."""
    document = site.get("/api/v1/reports/2026-11-23").json()
    assert document["date"] == "2026-11-23"
    assert document["day"]["failed"] == 2
    assert site.get("/api/v1/reports/today").json()["date"] == "2026-11-23"
    assert site.get("/api/v1/reports/yesterday").json()["date"] == "2026-11-22"
    assert document == msgspec.json.decode(msgspec.json.encode(summary_to_dict(fleet.report(date(2026, 11, 23), NOW))))


def test_summary(site: Served) -> None:
    """The summary has the counts of the last day, the worst tasks, and the current state."""
    document = site.get("/api/v1/summary").json()
    assert document["since"] == "2026-11-22T14:05:09.250Z"
    assert document["counts"]["succeeded"] == 10
    assert document["tasks"] == {"seen": 2, "failing": 1}
    (worst,) = document["worst"]
    assert (worst["name"], worst["failure_rate"]) == ("shop.charge", 0.4)
    assert document["workers"] == {"up": 1, "down": 1}
    assert document["stream"]["unobserved_tasks"] == 2
    assert document["limits"] == [
        {"name": "series", "setting": "metrics.max_series", "limit": 10, "used": 7, "exceeded": 3},
        {"name": "exceptions", "setting": None, "limit": None, "used": None, "exceeded": 0},
    ]


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/"])
def test_the_index(site: Served, path: str) -> None:
    """The API's root lists the endpoints, and links to their description."""
    document = site.get(path).json()
    assert [one["href"] for one in document["resources"]] == [one for one in OPERATIONS if one != INDEX]
    assert site.get(document["description"]).json()["openapi"]


@pytest.mark.parametrize("path", OPERATIONS)
def test_answers_are_as_described(site: Served, store: SqlStore, path: str) -> None:
    """Each path of /openapi.json answers according to its schema, and every path is described."""
    document = site.get("/openapi.json").json()
    assert set(document["paths"]) == {*OPERATIONS, "/api/v1/silences/{id}"}
    store.silences.add(Silence("a1", ("shop.*",), "deploy", NOW - 5, NOW + 5))
    filled = path.format(
        name="billing" if "queues" in path else "shop.charge",
        uuid="id-1",
        hostname="celery%40box",
        date="today",
        key="shop.charge%2F2026-11-23T14Z",
    )
    schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    answer = site.get(filled).json()
    jsonschema.validate(answer, schema | {"components": document["components"]})
    if OPERATIONS[path][2]:
        assert answer["items"]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("tasks?limit=0", "limit"),
        ("tasks?limit=1001", "limit"),
        ("tasks?limit=1e2", "limit"),
        ("tasks?limit=-1", "limit"),
        ("tasks?limit=5&limit=6", "limit"),
        ("tasks?since=yesterday", "since"),
        ("tasks?since=2026-11-23T14:00:00", "since"),
        ("tasks?since=2026-13-23T14:00:00Z", "since"),
        ("tasks?cursor=%21", "cursor"),
        ("tasks?cursor=YQ", "cursor"),
        ("failures?cursor=YQ", "cursor"),
        ("failures?cursor=bmFuOm5hbg", "cursor"),
        ("failures?since=1h&until=2h", "since"),
        ("incidents?cursor=YQ", "cursor"),
        ("incidents?cursor=aW5mIGE", "cursor"),
        ("outbox?cursor=YQ", "cursor"),
        ("outbox?dead=maybe", "dead"),
        ("workers?task=a", "task"),
        ("queues?cursor=YQ", "cursor"),
        ("queues/billing?until=1h", "until"),
        ("summary?until=1h", "until"),
        ("reports/tomorrow", "date"),
        ("reports/2026-02-30", "date"),
        ("reports/0001-01-01", "date"),
        ("reports/9999-12-31", "date"),
        ("failures?task=" + "x" * 3000, "task"),
    ],
)
def test_a_wrong_parameter_is_named(usual_site: Served, path: str, named: str) -> None:
    """An invalid value is answered with status 400 and the parameter's name."""
    answer = usual_site.get(f"/api/v1/{path}")
    assert answer.status_code == 400
    assert named in answer.json()["error"]


@pytest.mark.parametrize(
    "path", ["/api/v1/tasks/none", "/api/v1/queues/none", "/api/v1/failures/none", "/api/v1/nothing", "/api"]
)
def test_what_is_not_there(usual_site: Served, path: str) -> None:
    """A missing resource is answered with status 404 and JSON."""
    answer = usual_site.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]


def test_nothing_can_be_written(site: Served) -> None:
    """Methods other than GET and HEAD are refused with status 405."""
    assert httpx.post(f"{site.url}/api/v1/tasks", json={}, timeout=60).status_code == 405
    assert httpx.delete(f"{site.url}/api/v1/failures/id-1", timeout=60).status_code == 405
    assert httpx.head(f"{site.url}/api/v1/tasks", timeout=60).content == b""


@pytest.mark.parametrize(
    "path",
    ["summary", "tasks", "tasks/a", "queues", "queues/a", "failures", "failures/a", "incidents", "reports/today"],
)
def test_store_away(serve: Serve, fleet: Fleet, path: str) -> None:
    """While the store is not readable, its lists answer 503 with the reason and Retry-After."""
    fleet.trouble = StoreUnavailableError("the disk is full")
    answer = serve().get(f"/api/v1/{path}")
    assert answer.status_code == 503
    assert answer.json() == {"error": "the disk is full"}
    assert answer.headers["retry-after"] == "5"


def test_workers_while_starting(site: Served, fleet: Fleet) -> None:
    """Before the store was read, data from memory says that the monitor is starting."""
    fleet.starting = True
    answer = site.get("/api/v1/workers")
    assert answer.status_code == 503
    assert "starting" in answer.json()["error"]


def test_workers_are_sorted(site: Served, fleet: Fleet) -> None:
    """Workers are sorted by hostname, whatever the order in memory."""
    fleet.workers = [worker("b@x"), worker("a@x")]
    assert [one["hostname"] for one in items(site, "/api/v1/workers")] == ["a@x", "b@x"]
