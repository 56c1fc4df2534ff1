"""Queries of the page and the API use an index, or end at the caller's deadline."""

import itertools
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Integer, event

from celery_monitor.adapters.store import SqlStore, schema
from celery_monitor.adapters.store.periods import between
from celery_monitor.core.model import Checkpoint, SeriesKey
from celery_monitor.core.paging import cursor
from celery_monitor.errors import QueryTimeoutError
from celery_monitor.ports import DEADLINE, FailureFilter
from tests.contracts.values import NOW, START, bucket, changes, error, failure, group, incident

_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
_GROWING = (
    "failures",
    "buckets",
    "checkpoints",
    "queue_lengths",
    "incidents",
    "outbox",
    "error_buckets",
    "task_totals",
)


@contextmanager
def answer_within(seconds: float) -> Iterator[None]:
    """The caller's deadline."""
    token = DEADLINE.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        DEADLINE.reset(token)


@pytest.mark.timeout(60)
def test_a_query_ends_at_its_deadline(store: SqlStore) -> None:
    """In the database, with a remedy in the error, and the next query is answered."""
    store.commit(changes(1, failures=[failure("u1")]))
    with (
        answer_within(0.2),
        pytest.raises(QueryTimeoutError, match="timed out: narrow it"),
        store._database.read() as asked,
    ):
        asked.exec_driver_sql(_ENDLESS).all()
    with answer_within(60):
        assert len(store.reader.failure("u1")) == 1
    assert len(store.reader.failure("u1")) == 1


def test_a_query_that_nobody_waits_for_does_not_begin(store: SqlStore) -> None:
    """It waited too long for a thread; nor does the next query of a call with several."""
    with answer_within(-1), pytest.raises(QueryTimeoutError):
        store.reader.failures(FailureFilter())


def test_without_a_deadline_a_query_takes_its_time(store: SqlStore) -> None:
    """Notifiers and the report wait for their answers; an earlier caller's deadline does not apply."""
    with answer_within(60):
        store.reader.workers()
    with store._database.read() as connection:
        many = _ENDLESS.replace("FROM n)", "FROM n WHERE i < 300000)", 1)
        assert connection.exec_driver_sql(many).scalar() == 300_000


def plans(store: SqlStore, *calls: Any) -> Iterator[tuple[str, str]]:
    """(statement, step of its plan) for all queries of the calls."""
    asked: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        asked.append((statement, parameters))

    event.listen(store._database._readers, "before_cursor_execute", note)
    for call in calls:
        call()
    event.remove(store._database._readers, "before_cursor_execute", note)
    with store._database.read() as connection:
        for statement, parameters in asked:
            if statement.startswith(("SELECT", "WITH")):
                for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters):
                    yield statement, row[3]


def test_failures_are_found_by_an_index(store: SqlStore) -> None:
    """For any filter; without one they are read in order, up to the limit."""
    store.commit(changes(1, failures=[failure("u1")]))
    after = cursor((NOW, 1))
    values: list[dict[str, Any]] = [
        {"task": task, "exception": exception, "since": since, "until": until, "cursor": start}
        for task, exception, since, until, start in itertools.product(
            (None, "t"), (None, "NoSuch"), (None, NOW), (None, NOW + 1), (None, after)
        )
    ]
    for filters in values:
        found = list(plans(store, lambda filters=filters: store.reader.failures(FailureFilter(**filters))))
        assert found
        for statement, step in found:
            assert "TEMP B-TREE" not in step, statement
            filtered = filters["task"] or filters["exception"]
            assert step.startswith(
                "SEARCH failures USING INDEX" if filtered else ("SEARCH failures", "SCAN failures USING INDEX")
            )


def test_no_query_reads_a_whole_table(store: SqlStore) -> None:
    """Growing tables are searched by a key, or read in the order of an index up to the limit."""
    store.commit(
        changes(
            1,
            buckets=[bucket(sent=1, failed=1)],
            groups=[group()],
            errors=[error()],
            failures=[failure("u1")],
            incidents=[incident()],
        )
    )
    reader, outbox = store.reader, store.outbox
    for statement, step in plans(
        store,
        lambda: reader.tasks(since=NOW, limit=9, cursor=cursor(("a", "b"))),
        lambda: reader.tasks(limit=9, cursor=cursor(("a", "b"))),
        lambda: reader.tasks(limit=9, name="t"),
        lambda: reader.tasks(since=NOW, limit=9, exception="E"),
        lambda: reader.failure("u1"),
        lambda: reader.incidents(since=NOW, until=NOW + 1, limit=9),
        lambda: reader.incidents(limit=9),
        lambda: reader.incidents(limit=9, cursor=cursor((NOW, "k"))),
        lambda: reader.incidents(limit=9, key="k"),
        lambda: reader.buckets(START, START + 900),
        lambda: reader.groups(START, START + 900),
        lambda: reader.groups(START, START + 900, name="t"),
        lambda: reader.groups(START, START + 900, samples=1, new_first=True),
        lambda: reader.samples(["g"], START, START + 900),
        lambda: reader.task_hours("t", START, START + 900),
        lambda: reader.queue_lengths(START, START + 900, step=900, limit=9),
        lambda: outbox.items(dead=False, limit=9),
        lambda: outbox.items(dead=True, limit=9, cursor=cursor((5,)), since=NOW),
        outbox.pending,
        outbox.given_up,
        lambda: outbox.due(NOW, 9),
        lambda: outbox.waiting("email"),
        lambda: outbox.incident("k"),
        lambda: outbox.last_delivered("email"),
    ):
        whole = any(step == f"SCAN {table}" for table in _GROWING)
        assert not whole, f"{step}: {statement}"


def test_error_groups_of_a_long_period_are_not_sorted(store: SqlStore) -> None:
    """They are added up in the order of an index; those of a short one are found by time."""
    errors = [error(start=START + 900 * number) for number in range(10)]
    store.commit(changes(1, groups=[group()], errors=errors))
    for since, index in ((START, "COVERING INDEX ix_error_buckets_group"), (START + 8 * 900, "PRIMARY KEY (start>?")):
        steps = [step for _, step in plans(store, lambda since=since: store.reader.groups(since, NOW * 2))]
        assert any("error_buckets USING " + index in step for step in steps), steps
        assert any("TEMP B-TREE FOR GROUP BY" in step for step in steps) is (since > START), steps


def test_hours_of_a_task_on_many_hosts_take_little_memory(store: SqlStore) -> None:
    """The 168,000 checkpoints of 1,000 hosts in a week are streamed, and never all in memory."""
    cells = tuple((float(bound), 100_000 + bound) for bound in range(15))
    checkpoints = [
        Checkpoint(START + hour * 3600, SeriesKey("t", "q", f"host{host}"), cells, cells, last=hour == 299)
        for hour in range(300)
        for host in range(20)
    ]
    store.commit(changes(1, checkpoints=checkpoints))
    tracemalloc.start()
    assert store.reader.task_hours("t", 0, NOW * 2) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000


def test_whole_numbers_are_compared_with_whole_numbers() -> None:
    """Otherwise PostgreSQL converts the column to a float and reads the whole index."""
    for edge in (NOW + 0.25, -NOW - 0.25, float(START)):
        for table in schema.metadata.sorted_tables:
            for column in table.columns:
                if isinstance(column.type, Integer):
                    given = [value.right.value for value in between(column, edge, edge)]
                    assert [type(value) for value in given] == [int, int], column
                    assert given[0] - 1 < edge <= given[0]
    assert isinstance(between(schema.failures.c.at, NOW + 0.25, None)[0].right.value, float)
