"""The contract of a Reader for the page, the API and the report."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pytest
from msgspec import structs

from celery_monitor.adapters.store import SqlStore, flush, retention
from celery_monitor.core.lookup import RunPage
from celery_monitor.core.model import (
    BUCKET_SECONDS,
    BucketRow,
    Changes,
    Checkpoint,
    FailingRow,
    Failure,
    IncidentState,
    QueueLengthDelta,
    QueueLengthRow,
    SeriesKey,
    Stage,
    TaskRef,
    TaskRun,
)
from celery_monitor.core.paging import Page, cursor
from celery_monitor.errors import InvalidCursorError
from celery_monitor.ports import EndedFilter, FailureFilter, TaskRow
from tests.contracts.conftest import MAX_ENDED, RETENTION
from tests.contracts.values import NOW, START, bucket, changes, error, failure, group, incident, series, vector, worker

T = TypeVar("T")


def write(store: SqlStore, *flushes: dict[str, Any], first: int = 1) -> None:
    """Commit flushes with these parts."""
    for sequence, parts in enumerate(flushes, first):
        store.commit(changes(sequence, **parts))


def listed(store: SqlStore, **wanted: Any) -> list[str]:
    """The IDs of all failures, page by page."""
    return [one.uuid for one in every(lambda cursor: store.reader.failures(FailureFilter(cursor=cursor, **wanted)))]


def every(read: Callable[[str | None], Page[T]]) -> list[T]:
    """The rows of all pages."""
    page = read(None)
    found = [*page.rows]
    while page.next is not None:
        page = read(page.next)
        found += page.rows
    return found


def test_nothing_yet(sql: SqlStore) -> None:
    """Every query of an empty store returns a result."""
    reader = sql.reader
    assert reader.tasks(limit=10).rows == []
    assert reader.failures(FailureFilter()) == Page([])
    assert reader.failure("u1") == []
    assert reader.incidents(limit=10).rows == []
    assert reader.workers() == []
    assert reader.buckets(0, NOW) == []
    assert reader.groups(0, NOW) == []
    assert reader.counters(NOW) == {}
    assert reader.ended("u1") == []
    assert reader.sent_by("u1", 10) == []
    assert reader.ended_since() is None
    assert reader.ended_runs(EndedFilter(matches_name=lambda _: True)) == RunPage([], 0)
    assert reader.tracked(10) == []


def test_buckets_add_up(sql: SqlStore) -> None:
    """Deltas of the same bucket are added, within a flush and across flushes."""
    delta = bucket(sent=1, failed=2)
    write(sql, {"buckets": [delta, delta]}, {"buckets": [delta, bucket(queue="bulk", sent=1)]})
    assert sql.reader.buckets(START, START + 1) == [
        BucketRow(START, "shop.charge", "bulk", vector(sent=1), 0.5, 1),
        BucketRow(START, "shop.charge", "celery", vector(sent=3, failed=6), 1.5, 3),
    ]


def test_buckets_of_a_period(sql: SqlStore) -> None:
    """The buckets that start in the period; its end is exclusive."""
    starts = [START + i * BUCKET_SECONDS for i in range(4)]
    write(sql, {"buckets": [bucket(start) for start in starts]})
    assert [row.start for row in sql.reader.buckets(starts[1], starts[3])] == starts[1:3]


def test_what_fails_and_the_fleet_add_up_to_the_buckets(sql: SqlStore) -> None:
    """The sums of all tasks, and of failing ones, equal the buckets of the period over all queues."""
    first, second, end = START, START + BUCKET_SECONDS, START + 2 * BUCKET_SECONDS
    write(
        sql,
        {
            "buckets": [
                bucket(first, "shop.a", succeeded=3, failed=1),
                bucket(first, "shop.b", succeeded=5),
                bucket(second, "shop.a", "other", failed=2, retried=1),
                bucket(end, "shop.b", failed=7),
            ]
        },
        {"buckets": [bucket(first, "shop.a", succeeded=1)]},
    )
    reader = sql.reader
    failing = FailingRow("shop.a", 4, 3, 1, first, second)
    assert reader.failing(first, end) == [failing]
    assert reader.failing(first, end, clean=True) == [failing, FailingRow("shop.b", 5, 0, 0, 0, 0)]
    assert reader.failed(first, end) == {"shop.a": 3}
    assert reader.failed(second, end + 1) == {"shop.a": 2, "shop.b": 7}
    assert reader.failed(first + 0.5, end + 0.5) == {"shop.a": 2, "shop.b": 7}
    assert reader.failed(first - 0.5, end - 0.5) == {"shop.a": 3}
    assert reader.failed(-math.inf, 1e300) == {"shop.a": 3, "shop.b": 7}
    assert reader.failed(1e300, math.inf) == {}
    assert [(row.start, row.counts, row.runtime_count) for row in reader.history(first, end, step=BUCKET_SECONDS)] == [
        (first, vector(succeeded=9, failed=1), 3),
        (second, vector(failed=2, retried=1), 1),
    ]
    all_tasks = reader.tasks(since=float(first), until=float(end), limit=9).rows
    some = reader.tasks(since=float(first), until=float(end), limit=9, names=["shop.a"]).rows
    assert some == [row for row in all_tasks if row.name == "shop.a"] != []
    assert [row.name for row in reader.tasks(names=["shop.b", "none"], limit=9).rows] == ["shop.b"]


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("sort", ["at", "name", "exception", "hostname", "reason", "uuid"])
def test_failures_are_sorted_by_any_column(sql: SqlStore, sort: str, descending: bool) -> None:  # noqa: FBT001
    """The pages have each failure once and in order, however many are equal."""
    values = ["\N{SNOWMAN}", "b", "B", "a", "a'\"", ""]
    failures = [
        structs.replace(
            failure(f"u{number}", at=NOW - number // 3),
            **({} if sort in {"at", "uuid", "reason"} else {sort: values[number % 6]}),
        )
        for number in range(20)
    ]
    write(sql, {"failures": failures})
    found: list[Failure] = []
    cursor: str | None = None
    for _ in range(30):
        page = sql.reader.failures(FailureFilter(sort=sort, descending=descending, limit=3, cursor=cursor))
        found += page.rows
        cursor = page.next
        if cursor is None:
            break
    keys = [(getattr(one, sort), one.at) for one in found]
    assert sorted(one.uuid for one in found) == sorted(one.uuid for one in failures)
    assert keys == sorted(keys, reverse=descending)


def test_tasks_over_the_retention(sql: SqlStore) -> None:
    """A task's counts are the sum of its buckets, by name and queue."""
    write(
        sql,
        {"buckets": [bucket(sent=1), bucket(START - 86_400, sent=5), bucket(name="shop.a", queue="q", failed=1)]},
        {"failures": [failure(name="shop.a", queue="q", at=NOW - 3), failure(name="shop.a", queue="q", at=NOW - 7)]},
    )
    assert sql.reader.tasks(limit=10).rows == [
        TaskRow("shop.a", "q", vector(failed=1), 0.5, 1, NOW - 3),
        TaskRow("shop.charge", "celery", vector(sent=6), 1.0, 2, None),
    ]


def test_last_failure_of_a_task(sql: SqlStore) -> None:
    """An older failure that arrives later does not change the last failure."""
    write(
        sql,
        {"buckets": [bucket(failed=1)], "failures": [failure(at=NOW)]},
        {"buckets": [bucket(failed=1)], "failures": [failure(at=NOW - 50)]},
        {"buckets": [bucket(sent=1)]},
    )
    for since in (None, 0.0):
        (row,) = sql.reader.tasks(since=since, limit=10).rows
        assert row.last_failure_at == NOW


def test_tasks_since(sql: SqlStore) -> None:
    """The bucket that contains ``since`` counts in full, earlier ones do not."""
    write(sql, {"buckets": [bucket(START - BUCKET_SECONDS, sent=1), bucket(START, sent=2)]})
    for since, sent in ((START + 500, 2), (START, 2), (START - 1, 3)):
        (row,) = sql.reader.tasks(since=since, limit=10).rows
        assert row.counts == vector(sent=sent)
    assert sql.reader.tasks(since=START + BUCKET_SECONDS, limit=10).rows == []


def test_tasks_until(sql: SqlStore) -> None:
    """The bucket that contains ``until`` counts in full, later ones do not, nor one that begins at it."""
    write(sql, {"buckets": [bucket(START, sent=2), bucket(START + BUCKET_SECONDS, sent=1)]})
    for until, sent in ((START + BUCKET_SECONDS + 1, 3), (START + BUCKET_SECONDS, 2), (START + 1, 2)):
        (row,) = sql.reader.tasks(until=until, limit=10).rows
        assert row.counts == vector(sent=sent)
    assert sql.reader.tasks(until=START, limit=10).rows == []


def test_tasks_by_name(sql: SqlStore) -> None:
    """A task has a row for each of its queues."""
    write(sql, {"buckets": [bucket(name="a"), bucket(name="a", queue="bulk"), bucket(name="ab")]})
    assert [(r.name, r.queue) for r in sql.reader.tasks(limit=10, name="a").rows] == [
        ("a", "bulk"),
        ("a", "celery"),
    ]


def test_tasks_by_queue(sql: SqlStore) -> None:
    """For one queue, over the retention and over a period."""
    odd = "bulk/\n\N{CREDIT CARD}"
    write(sql, {"buckets": [bucket(name="a"), bucket(name="a", queue=odd), bucket(name="b", queue=odd, failed=1)]})
    for since in (None, 0.0):
        rows = sql.reader.tasks(limit=10, since=since, queue=odd).rows
        assert [(row.name, row.queue, row.counts) for row in rows] == [
            ("a", odd, vector()),
            ("b", odd, vector(failed=1)),
        ]
    page = sql.reader.tasks(limit=1, queue=odd)
    assert [row.name for row in sql.reader.tasks(limit=1, queue=odd, cursor=page.next).rows] == ["b"]
    assert sql.reader.tasks(limit=10, queue="nothing").rows == []


def test_tasks_by_exception(sql: SqlStore) -> None:
    """Tasks that failed with a class in the period, by its short or full name, with all counts."""
    write(
        sql,
        {
            "buckets": [bucket(name="a", failed=1), bucket(name="a", queue="bulk", sent=5), bucket(name="b", failed=1)],
            "groups": [
                structs.replace(group("a"), name="a"),
                structs.replace(group("b"), name="b", exception="KeyError"),
            ],
            "errors": [error("a"), error("b", start=START - 86_400)],
        },
    )

    def names(exception: str, since: float | None = None) -> list[tuple[str, str]]:
        rows = sql.reader.tasks(since=since, limit=10, exception=exception).rows
        return [(row.name, row.queue) for row in rows]

    assert names("CardError") == names("shop.errors.CardError") == [("a", "bulk"), ("a", "celery")]
    assert names("KeyError") == [("b", "celery")]
    assert names("KeyError", since=START) == []
    assert names("Error") == names("%Error") == names("rdError") == []


def test_tasks_page(sql: SqlStore) -> None:
    """Pages have neither gaps nor duplicates."""
    keys = [(f"task{i}", queue) for i in range(5) for queue in ("a", "b")]
    write(sql, {"buckets": [bucket(name=name, queue=queue) for name, queue in keys]})
    for limit in (1, 3, 5, 10):
        found = every(lambda cursor, limit=limit: sql.reader.tasks(limit=limit, cursor=cursor))  # type: ignore[misc]
        assert [(row.name, row.queue) for row in found] == keys


def test_a_failure_whole(sql: SqlStore) -> None:
    """A failure is read as written, and a task that failed twice has two."""
    whole = failure(args="(1,)", kwargs="{}", incident="k", traceback="x" * 5000)
    again = failure(at=NOW + 5, message="again")
    write(sql, {"failures": [whole, again, failure("u2")]})
    assert sql.reader.failure("u1") == [again, whole]


def test_failures_filtered(sql: SqlStore) -> None:
    """Filters are combined: task, exception, and a period with an exclusive end."""
    write(
        sql,
        {
            "failures": [
                failure("a", name="t1", at=1.0),
                failure("b", name="t1", at=2.0, exception="KeyError"),
                failure("c", name="t2", at=3.0),
                failure("d", name="t1", at=4.0),
            ]
        },
    )
    assert listed(sql) == ["d", "c", "b", "a"]
    assert listed(sql, task="t1") == ["d", "b", "a"]
    assert listed(sql, task="t1", exception="KeyError") == ["b"]
    assert listed(sql, since=2.0, until=4.0) == ["c", "b"]
    assert listed(sql, task="t3") == []


def test_failures_page(sql: SqlStore) -> None:
    """Pages have neither gaps nor duplicates, even if many failures have the same time."""
    names = [f"u{i:02}" for i in range(25)]
    write(sql, {"failures": [failure(u, at=NOW + i // 10 / 3, group=f"g{i}") for i, u in enumerate(names)]})
    assert listed(sql, limit=4) == names[::-1]
    assert listed(sql, limit=25) == names[::-1]


FOREIGN: Final = {
    "nothing": "",
    "no base64": "!",
    "cut": "Ww",
    "no JSON": "eA",
    "of another list": cursor((NOW, "k", 1)),
    "huge id": cursor((NOW, 2**63)),
    "negative id": cursor((NOW, -1)),
    "no number": "W05hTiwxXQ",
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_foreign_cursor(sql: SqlStore, foreign: str) -> None:
    """Every list refuses a cursor that it did not return."""
    for read in (
        lambda: sql.reader.failures(FailureFilter(cursor=foreign)),
        lambda: sql.reader.tasks(limit=9, cursor=foreign),
        lambda: sql.reader.incidents(limit=9, cursor=foreign),
        lambda: sql.outbox.items(dead=False, limit=9, cursor=foreign),
        lambda: sql.outbox.open_incidents("pagerduty", 9, foreign),
    ):
        with pytest.raises(InvalidCursorError):
            read()


def test_newest_samples_of_a_group(sql: SqlStore) -> None:
    """The newest 20 failures of each group are kept, from one flush or many."""
    write(sql, {"failures": [failure(f"a{i}") for i in range(30)] + [failure("other", group="g2")]})
    write(sql, *({"failures": [failure(f"b{i}")]} for i in range(7)), first=2)
    assert sorted(listed(sql)) == sorted([f"a{i}" for i in range(17, 30)] + [f"b{i}" for i in range(7)] + ["other"])


def test_incidents_of_a_period(sql: SqlStore) -> None:
    """Incidents of every state, newest first failure first."""
    states = list(IncidentState)
    write(sql, {"incidents": [incident(f"k{i}", first_at=NOW + i, state=s) for i, s in enumerate(states)]})
    found = sql.reader.incidents(since=NOW + 1, until=NOW + 3, limit=10).rows
    assert [row.incident.key for row in found] == ["k2", "k1"]
    assert [row.incident.state for row in found] == [states[2], states[1]]
    assert [row.incident.key for row in sql.reader.incidents(limit=1).rows] == ["k3"]


def test_incidents_page(sql: SqlStore) -> None:
    """Pages have neither gaps nor duplicates, even if many incidents have the same time."""
    keys = [f"k{i:02}" for i in range(12)]
    times = {key: NOW - i // 5 for i, key in enumerate(keys)}
    write(sql, {"incidents": [incident(key, first_at=at) for key, at in times.items()]})
    for limit in (1, 4, 5, 12):
        found = every(lambda cursor, limit=limit: sql.reader.incidents(limit=limit, cursor=cursor))  # type: ignore[misc]
        assert [row.incident.key for row in found] == keys


def test_one_incident(sql: SqlStore) -> None:
    """An incident is found by its key."""
    write(sql, {"incidents": [incident("a"), incident("b")]})
    assert [row.incident.key for row in sql.reader.incidents(limit=9, key="b").rows] == ["b"]
    assert sql.reader.incidents(limit=9, key="c").rows == []


def test_workers(sql: SqlStore) -> None:
    """The workers of the last flush."""
    write(sql, {"workers": [worker("celery@b"), worker("celery@a")]}, {"workers": [worker("celery@b", up=False)]})
    assert sql.reader.workers() == [worker("celery@a"), worker("celery@b", up=False)]


def test_groups_grow(sql: SqlStore) -> None:
    """A group has its first and last failure, regardless of the order of arrival."""
    write(
        sql,
        {"groups": [group(first_at=NOW, last_at=NOW + 1)], "errors": [error()]},
        {"groups": [group(first_at=NOW - 50, last_at=NOW - 40)]},
        {"groups": [group(first_at=NOW + 7, last_at=NOW + 9)]},
    )
    (row,) = sql.reader.groups(START, START + 1)
    assert (row.first_at, row.last_at) == (NOW - 50, NOW + 9)
    assert (row.name, row.exception, row.frame) == ("shop.charge", "shop.errors.CardError", "shop/billing.py:charge")


def test_groups_of_a_period(sql: SqlStore) -> None:
    """Groups count only the failures of the period, most first; groups without any are omitted."""
    day = 86_400
    write(
        sql,
        {
            "groups": [group("a"), group("b"), group("c")],
            "errors": [error("a", 2), error("a", 100, START - day), error("b", 3), error("c", 9, START + day)],
        },
        {"errors": [error("b", 4)]},
    )
    assert [(row.id, row.count) for row in sql.reader.groups(START, START + day)] == [("b", 7), ("a", 2)]


def test_groups_of_a_task(sql: SqlStore) -> None:
    """Groups can be selected by task."""
    other = structs.replace(group("b"), name="shop.mail")
    write(sql, {"groups": [group("a"), other], "errors": [error("a"), error("b")]})
    assert [row.id for row in sql.reader.groups(START, START + 900, name="shop.mail")] == ["b"]
    assert sql.reader.groups(START, START + 900, name="none") == []


def test_group_sample(sql: SqlStore) -> None:
    """The newest sample of the period, otherwise the newest stored one, otherwise none."""
    write(
        sql,
        {"groups": [group("a"), group("b"), group("c")], "errors": [error("a"), error("b"), error("c")]},
        {"failures": [failure("old", group="a", at=NOW + 1), failure("new", group="a", at=NOW + 2)]},
        {"failures": [failure("later", group="a", at=NOW + 9999), failure("else", group="b", at=NOW + 9999)]},
    )
    samples = {row.id: row.sample and row.sample.uuid for row in sql.reader.groups(START, START + 900)}
    assert samples == {"a": "new", "b": "else", "c": None}
    asked = sql.reader.samples(["a", "c", "none"], START, START + 900)
    assert {name: one.uuid for name, one in asked.items()} == {"a": "new"}
    assert {name: one.uuid for name, one in sql.reader.samples(["a", "b"], 0, 1).items()} == {"a": "later", "b": "else"}
    assert sql.reader.samples([], START, START + 900) == {}


def test_the_first_groups_have_samples(sql: SqlStore) -> None:
    """Only the requested number; new ones come first if requested."""
    counts = {"old": 9, "rare": 1, "new": 2}
    write(
        sql,
        {
            "groups": [group(one, first_at=NOW - 900 if one == "old" else NOW) for one in counts],
            "errors": [error(one, count) for one, count in counts.items()],
            "failures": [failure(one, group=one, at=NOW + 1) for one in counts],
        },
    )

    def found(**how: Any) -> list[tuple[str, str | None]]:
        rows = sql.reader.groups(START, START + 900, **how)
        return [(row.id, row.sample.uuid if row.sample else None) for row in rows]

    assert found(samples=1) == [("old", "old"), ("new", None), ("rare", None)]
    assert found(samples=2, new_first=True) == [("new", "new"), ("rare", "rare"), ("old", None)]
    assert found(samples=0) == [("old", None), ("new", None), ("rare", None)]


def test_counters_of_a_moment(sql: SqlStore) -> None:
    """The values last written at or before that time, even if some have not changed for long."""
    write(
        sql,
        {"now": NOW - 86_400, "counters": {"starts": 1.0, "messages": 5.0}},
        {"now": NOW - 10, "counters": {"starts": 1.0, "messages": 6.0}},
        {"now": NOW - 1, "counters": {"starts": 1.0, "messages": 7.0}},
        {"now": NOW + 1, "counters": {"starts": 1.0, "messages": 8.0, "new": 1.0}},
    )
    assert sql.reader.counters(NOW - 86_401) == {}
    assert sql.reader.counters(NOW - 3600) == {"starts": 1.0, "messages": 5.0}
    assert sql.reader.counters(NOW) == {"starts": 1.0, "messages": 7.0}
    assert sql.reader.counters(NOW + 1) == {"starts": 1.0, "messages": 8.0, "new": 1.0}


def test_counters_go_on_after_a_restart(sql: SqlStore) -> None:
    """A counter that has not changed since the restart is kept."""
    write(sql, {"counters": {"starts": 1.0, "messages": 5.0}})
    sql.stop()
    assert sql.start().counters == {"starts": 1.0, "messages": 5.0}
    write(sql, {"now": NOW + 3600, "counters": {"starts": 1.0, "messages": 6.0}}, first=2)
    assert sql.reader.counters(NOW + 3600) == {"starts": 1.0, "messages": 6.0}
    assert sql.reader.counters(NOW + 3599) == {"starts": 1.0, "messages": 5.0}


def test_history_by_hour(sql: SqlStore) -> None:
    """Buckets are added up by the requested step: for all tasks, for some, or for a queue."""
    first = START - START % 3600
    starts = [first, first + 900, first + 3600]
    write(
        sql,
        {"buckets": [bucket(start, succeeded=2) for start in starts]},
        {"buckets": [bucket(first, "shop.mail", "bulk", failed=1), bucket(first - 900, failed=7)]},
    )
    ask = sql.reader.history
    assert [(row.name, row.start, row.counts) for row in ask(first, first + 7200, step=3600)] == [
        ("", first, vector(succeeded=4, failed=1)),
        ("", first + 3600, vector(succeeded=2)),
    ]
    assert [(row.start, row.counts) for row in ask(first, first + 1, step=900, names=["shop.charge"])] == [
        (first, vector(succeeded=2))
    ]
    both = ask(first, first + 3600, step=3600, names=["shop.charge", "shop.mail", "none"])
    assert [(row.name, row.counts, row.runtime_count) for row in both] == [
        ("shop.charge", vector(succeeded=4), 2),
        ("shop.mail", vector(failed=1), 1),
    ]
    assert [row.counts for row in ask(first, first + 3600, step=3600, queue="bulk")] == [vector(failed=1)]
    assert ask(first, first + 3600, step=3600, names=[]) == []


def test_failures_by_parts(sql: SqlStore) -> None:
    """By several names and classes, and by a part of the message, without wildcards."""
    write(
        sql,
        {
            "failures": [
                failure("u1", message="50% of cards_declined"),
                failure("u2", name="shop.mail", exception="KeyError", message="Cards Declined"),
                failure("u3", name="shop.index", message="other"),
            ]
        },
    )
    assert set(listed(sql, tasks=["shop.mail", "shop.index", "none"])) == {"u2", "u3"}
    assert listed(sql, tasks=[]) == []
    assert listed(sql, exceptions=["KeyError"]) == ["u2"]
    assert set(listed(sql, message="cards")) == {"u1", "u2"}
    assert listed(sql, message="50%") == ["u1"]
    assert listed(sql, message="s_d") == ["u1"]
    assert listed(sql, message="\\") == []
    assert "KeyError" in sql.reader.exceptions()
    assert sql.reader.exceptions() == sorted(set(sql.reader.exceptions()))


def test_incidents_of_a_state(sql: SqlStore) -> None:
    """Only incidents in that state are read."""
    write(sql, {"incidents": [incident("a"), incident("b", state=IncidentState.RESOLVED)]})
    found = sql.reader.incidents(limit=10, state=IncidentState.RESOLVED).rows
    assert [row.incident.key for row in found] == ["b"]


def ended(uuid: str, at: float = NOW, **changes: Any) -> TaskRun:
    """A run that succeeded."""
    values = {
        "name": "shop.charge", "queue": "celery", "hostname": "celery@box", "stage": int(Stage.SUCCEEDED),
        "sent_at": at - 3, "received_at": at - 2, "started_at": at - 1, "ended_at": at, "runtime": 0.5, **changes,
    }  # fmt: skip
    return TaskRun(uuid=uuid, **values)


def test_ended_tasks(sql: SqlStore) -> None:
    """An ended run is found by its ID and by its parent's, as written, newest first."""
    child = ended("u2", eta=NOW - 2.5, retries=3, root="u0", parent="u1")
    bare = TaskRun(uuid="u2", name=None, queue=None, hostname="", stage=int(Stage.REVOKED), ended_at=NOW + 1)
    write(sql, {"ended": [ended("u1"), child]}, {"ended": [bare, ended("u3", parent="u1")]})
    assert sql.reader.ended("u1") == [ended("u1")]
    assert sql.reader.ended("u2") == [bare, child]
    assert [run.uuid for run in sql.reader.sent_by("u1", 10)] == ["u3", "u2"]
    assert [run.uuid for run in sql.reader.sent_by("u1", 1)] == ["u3"]
    assert sql.reader.ended_since() == NOW
    assert sql.reader.ended("\x00") == []


def test_a_start_knows_which_tasks_have_just_ended(sql: SqlStore) -> None:
    """So that late events of these tasks are recognised; not those of hours ago."""
    write(sql, {"ended": [ended("old", NOW - 3_600), ended("u2", queue=None)]}, {"ended": [ended("u1", NOW - 5)]})
    sql.stop()
    assert list(sql.start().ended) == [
        (uuid, TaskRef("shop.charge", queue, int(Stage.SUCCEEDED), started_at=at, host="celery@box"))
        for uuid, queue, at in (("u2", None, NOW), ("u1", "celery", NOW - 5))
    ]


def test_failures_of_groups_in_every_period(sql: SqlStore) -> None:
    """Short and long periods, which are read differently, equal their buckets."""
    counts = {
        (name, START + 900 * number): 3**number
        for number in range(7)
        for name in ("a", "b")
        if number % 3 or name == "a"
    }
    write(sql, {"groups": [group("a"), group("b")], "errors": [error(name, n, at) for (name, at), n in counts.items()]})
    edges = [0.0, *(START + 450.0 * number for number in range(-1, 15)), math.inf]
    for since, until in itertools.combinations(edges, 2):
        wanted = Counter[str]()
        for (name, at), count in counts.items():
            wanted[name] += count if since <= at < until else 0
        assert {row.id: row.count for row in sql.reader.groups(since, until)} == dict(+wanted), (since, until)


def test_a_list_of_ended_tasks(sql: SqlStore) -> None:
    """Filtered by name, outcome and location, sorted by each column; unknown values last."""
    failed: dict[str, Any] = {"stage": int(Stage.FAILED), "runtime": 9.0, "hostname": "celery@a"}
    bare = TaskRun(uuid="u3", name=None, queue=None, hostname="", stage=int(Stage.REVOKED), ended_at=NOW)
    write(sql, {"ended": [ended("u1"), ended("u2", name="shop.mail", queue="mail", **failed), bare]})

    def found(**wanted: Any) -> tuple[list[str], int]:
        page = sql.reader.ended_runs(EndedFilter(**wanted))
        return [run.uuid for run in page.runs], page.total

    assert found() == (["u3", "u2", "u1"], 3)
    assert found(limit=1, offset=1) == (["u2"], 3)
    assert found(matches_name=lambda name: "mail" in name) == (["u2"], 1)
    assert found(matches_name=lambda _: False) == ([], 0)
    assert found(stage=int(Stage.SUCCEEDED)) == (["u1"], 1)
    assert found(queue="mail", hostname="celery@a") == (["u2"], 1)
    assert found(queue="\x00") == ([], 0)
    assert found(sort="runtime") == (["u2", "u1", "u3"], 3)
    assert found(sort="name", descending=False) == (["u3", "u1", "u2"], 3)
    assert found(sort="stage") == (["u3", "u2", "u1"], 3)
    assert found(sort="hostname")[0] == ["u1", "u2", "u3"]
    assert found(sort="ended", descending=False)[0] == ["u1", "u2", "u3"]

    newest = sql.reader.ended_runs(EndedFilter(limit=1)).newest
    odd = [ended(f"odd-{name}", name=name) for name in ("B", "Ä")]  # MAX_ENDED in all
    sql.commit(Changes(now=NOW, sequence=2, ended=odd))
    assert found(newest=newest, limit=2, offset=1) == (["u2", "u1"], 3)  # the list as it was
    assert found(newest=newest, matches_name=lambda name: name == "Ä") == ([], 0)
    assert found(newest=(1 << 63) - 1) == ([], 0)
    assert found(offset=1 << 40) == ([], MAX_ENDED)
    # One order in every database: that of the code points.
    names = [run.name or "" for run in sql.reader.ended_runs(EndedFilter(sort="name", descending=False)).runs]
    assert names == sorted(names)


def test_ended_tasks_are_bounded(sql: SqlStore) -> None:
    """The newest are kept; those older than the retention are deleted."""
    write(sql, *({"ended": [ended(f"u{each}", NOW + each) for each in (n, n + 1)]} for n in range(0, 10, 2)))
    assert [n for n in range(10) if sql.reader.ended(f"u{n}")] == list(range(10 - MAX_ENDED, 10))
    sql.prune(NOW + RETENTION + 8.5)
    assert [n for n in range(10) if sql.reader.ended(f"u{n}")] == [9]


def test_ended_tasks_go_in_portions(sql: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """If there are far too many, for example after the limit was lowered, no flush deletes all at once."""
    monkeypatch.setattr(flush, "ENDED_DELETED", 4)
    monkeypatch.setattr(retention, "CHUNK_SIZE", 3)
    more = [{"ended": [ended(f"u{number}")]} for number in (16, 17)]
    write(sql, {"ended": [ended(f"u{number}") for number in range(16)]}, *more)
    assert [n for n in range(18) if sql.reader.ended(f"u{n}")] == list(range(12, 18))
    sql.prune(NOW)
    assert [n for n in range(18) if sql.reader.ended(f"u{n}")] == list(range(18 - MAX_ENDED, 18))
    monkeypatch.setattr(retention, "CHUNK_SIZE", 2)
    sql.prune(NOW + RETENTION + 1)
    assert [n for n in range(18) if sql.reader.ended(f"u{n}")] == list(range(15, 18))


def test_tasks_under_way(sql: SqlStore) -> None:
    """The active tasks of the last flush, least recently updated first, or one of them."""
    tracked = [(f"u{seen}", TaskRef(name="a", seen_minute=seen, sent_at=NOW, host="celery@a")) for seen in (3, 1, 2)]
    write(sql, {"tracked": tracked})
    assert [uuid for uuid, _ in sql.reader.tracked(2)] == ["u1", "u2"]
    ((uuid, ref),) = sql.reader.tracked(2, uuid="u3")
    assert (uuid, ref.sent_at, ref.host) == ("u3", NOW, "celery@a")


def test_hours_of_a_queue(sql: SqlStore) -> None:
    """The hours of all tasks in the queue and no other queue, also for part of the time."""
    hour, nothing = 3600, {"buckets": [bucket(name=name, queue="bulk") for name in ("shop.a", "shop.b")]}
    begun = Checkpoint(START, SeriesKey("shop.a", "bulk"), ((0.5, 1), (math.inf, 1)), ())
    later = Checkpoint(START + hour, begun.key, ((0.5, 1), (1.0, 1), (math.inf, 3)), ((0.5, 0), (1.0, 2)))
    of_b = structs.replace(later, key=SeriesKey("shop.b", "bulk"), runtime=(), wait=())
    elsewhere = structs.replace(begun, key=SeriesKey("shop.a", "celery"), runtime=())
    write(
        sql,
        nothing,
        {"checkpoints": [begun, elsewhere]},
        {"checkpoints": [later, of_b], "series": [series(name, "bulk") for name in ("shop.a", "shop.b")]},
        {"series": [series("shop.a", "celery")], "buckets": [bucket(name="shop.a", queue="celery")]},
    )
    rows = sql.reader.queue_hours("bulk", START, NOW + 2 * hour)
    of_a, total = sql.reader.task_hours("shop.a", START, NOW + 2 * hour), series("shop.b", "bulk")
    assert [row.start for row in rows] == [START, START + hour]
    assert rows[0].runtime.counts == (0, 1, 2)
    assert sum(rows[1].runtime.counts) == sum(total.runtime.counts) + sum(of_a[1].runtime.counts)
    assert sum(rows[1].wait.counts) == sum(total.wait.counts) + sum(of_a[1].wait.counts)
    assert sql.reader.queue_hours("bulk", START + 1, NOW + 2 * hour) == rows[1:]
    assert sql.reader.queue_hours("bulk", START, NOW + hour) == rows[:1]
    assert sql.reader.queue_hours("nothing", START, NOW + hour) == []


def test_hours_of_a_task(sql: SqlStore) -> None:
    """Times by hour are the growth of the histograms over all queues, up to the last flush."""
    mine, hour = series("shop.a"), 3600
    begun = Checkpoint(START, mine.key, ((0.5, 1), (math.inf, 1)), ())
    later = Checkpoint(START + hour, mine.key, ((0.5, 1), (1.0, 1), (math.inf, 3)), ((0.5, 0), (1.0, 2)))
    of_bulk = structs.replace(begun, key=SeriesKey("shop.a", "bulk"), runtime=())
    write(
        sql,
        {"checkpoints": [begun], "series": [mine]},
        {"checkpoints": [later, of_bulk, structs.replace(begun, key=SeriesKey("shop.b", "bulk"))]},
        {"series": [series("shop.a", "bulk"), series("shop.b")]},
    )
    rows = sql.reader.task_hours("shop.a", START, NOW + 2 * hour)
    assert [(row.start, row.runtime.bounds, row.runtime.counts, row.wait.counts) for row in rows] == [
        (START, (0.5, 1.0), (1, 3, 5), (1, 4, 3)),
        (START + hour, (0.5, 1.0), (0, 1, 0), (1, 0, 3)),
    ]
    assert sql.reader.task_hours("shop.a", START + 1, NOW + 2 * hour) == rows[1:]
    assert sql.reader.task_hours("shop.a", START, NOW + hour) == rows[:1]
    assert sql.reader.task_hours("shop.c", START, NOW + hour) == []


def test_lengths_of_queues(sql: SqlStore) -> None:
    """Measured lengths of 15 minutes are added up over flushes and by the requested step, page by page."""
    second, hour = START + BUCKET_SECONDS, START // 3600 * 3600
    write(
        sql,
        {"queue_lengths": [QueueLengthDelta(START, "q", 2, 6, 5), QueueLengthDelta(START, "mail", 1, 0, 0)]},
        {"queue_lengths": [QueueLengthDelta(START, "q", 1, 9, 9), QueueLengthDelta(second, "q", 1, 1, 1)]},
    )
    read = sql.reader.queue_lengths
    by_quarter = [QueueLengthRow("q", START, 5.0, 9), QueueLengthRow("q", second, 1.0, 1)]
    assert read(START, second + 1, step=BUCKET_SECONDS, limit=9, queues=["q"]) == Page(by_quarter)
    assert read(START, NOW + 3600, step=3600, limit=9).rows == [
        QueueLengthRow("mail", hour, 0.0, 0),
        QueueLengthRow("q", hour, 4.0, 9),
    ]
    mail = QueueLengthRow("mail", START, 0.0, 0)
    assert every(lambda at: read(START, NOW + 3600, step=BUCKET_SECONDS, limit=1, cursor=at)) == [mail, *by_quarter]
    by_hour = every(lambda at: read(START, NOW + 3600, step=3600, limit=1, cursor=at))
    assert by_hour == read(START, NOW + 3600, step=3600, limit=9).rows
    with pytest.raises(InvalidCursorError):
        read(START, NOW, step=3600, limit=1, cursor=cursor(("q", "x")))


def test_hours_past_the_retention_go(sql: SqlStore) -> None:
    """Times by hour and lengths are deleted with the counts of the same time."""
    old = int(NOW - RETENTION) - 2 * 3600
    key = series("shop.a").key
    checkpoints = [Checkpoint(start, key, ((0.5, 1),), ()) for start in (old, START)]
    lengths = [QueueLengthDelta(start, "q", 1, 6, 6) for start in (old, START)]
    write(sql, {"checkpoints": checkpoints, "queue_lengths": lengths, "series": [series("shop.a")]})
    assert len(sql.reader.queue_lengths(0, NOW + 1, step=BUCKET_SECONDS, limit=9).rows) == len(lengths)
    sql.prune(NOW)
    assert [row.start for row in sql.reader.queue_lengths(0, NOW + 1, step=BUCKET_SECONDS, limit=9).rows] == [START]
    assert [row.start for row in sql.reader.task_hours("shop.a", 0, NOW + 1)] == [START]
