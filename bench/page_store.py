"""The store that ``bench/page.py`` measures: 5,000,000 executed tasks and 200,000 failures in 500 tasks over 30 days.

It also has the histories: for each task, a checkpoint of its histograms every hour, and the lengths of 100 queues every
15 minutes.
"""

import contextlib
import math
import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import psycopg
from msgspec import structs

from celery_monitor.adapters.store import SqlStore, schema
from celery_monitor.core.model import (
    BUCKET_SECONDS,
    FAILED,
    RETRIED,
    STARTED,
    SUCCEEDED,
    BucketDelta,
    Changes,
    Checkpoint,
    ErrorDelta,
    ErrorGroup,
    Failure,
    Histogram,
    Incident,
    IncidentState,
    QueueLengthDelta,
    Reason,
    Series,
    SeriesKey,
    Severity,
    Stage,
    TaskRun,
)
from celery_monitor.ports import ENDED_SEARCHED

DAY, HOUR = 86_400, 3_600
FIRST_HOUR = 450_000
RUNS_PER_DAY = 166_667
FAILURES_PER_DAY = 6_667
SAMPLES_PER_GROUP = 20
AREAS = ("billing", "orders", "mail", "stock", "search", "images", "cart", "stats", "legacy", "users")
VERBS = ("charge", "confirm", "remind", "sync", "index", "resize", "expire", "rollup", "export", "import", "refund")
QUEUES = ("default", "payments", "mail", "slow")
MORE_QUEUES = 96
"""Queues without their own tasks, such as those of single clients."""
KINDS = (
    ("CardDeclinedError", "shop.errors.CardDeclinedError", "card of order {n} was declined: insufficient funds"),
    ("KeyError", "KeyError", "'address'"),
    ("ConnectionRefusedError", "ConnectionRefusedError", "warehouse.shop.example:5432 refused the connection"),
    ("TimeLimitExceeded", "celery.exceptions.TimeLimitExceeded", "30"),
    ("WorkerLostError", "billiard.exceptions.WorkerLostError", "Worker exited prematurely: signal 9 (SIGKILL)"),
)
TRACEBACK = """Traceback (most recent call last):
  File "/srv/venv/lib/python3.12/site-packages/celery/app/trace.py", line 453, in trace_task
    R = retval = fun(*args, **kwargs)
                 ^^^^^^^^^^^^^^^^^^^^
  File "/srv/venv/lib/python3.12/site-packages/celery/app/trace.py", line 736, in __protected_call__
    return self.run(*args, **kwargs)
           ^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/shop/{area}/tasks.py", line 88, in {verb}
    gateway.submit(order, amount=order.total, currency=order.currency, idempotency_key=order.uuid)
  File "/srv/shop/{area}/gateway.py", line 41, in submit
    response = self._session.post(self._url, json=payload, timeout=10)
               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/venv/lib/python3.12/site-packages/requests/sessions.py", line 637, in post
    return self.request("POST", url, data=data, json=json, **kwargs)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
{qualified}: {message}
"""
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
CELLS = (*BOUNDS, math.inf)


def name_of(task: int) -> str:
    """The name of a task, by its number."""
    area, verb = AREAS[task % len(AREAS)], VERBS[task // len(AREAS) % len(VERBS)]
    series = task // (len(AREAS) * len(VERBS))
    return f"shop.{area}.{verb}" + (f"_{series}" if series else "")


def queue_of(task: int) -> str:
    """The queue of a task, by its number."""
    return QUEUES[task % len(QUEUES)]


def counted(rng: random.Random, wanted: float) -> int:
    """A random integer with the mean ``wanted``."""
    return int(wanted) + (rng.random() < wanted % 1)


def days(tasks: int, number: int, now: float, seed: int = 1) -> Iterator[Changes]:
    """One flush for each day, the oldest first."""
    rng = random.Random(seed)
    weights = [1 / (1 + task) ** 0.7 for task in range(tasks)]
    share = [weight / sum(weights) for weight in weights]
    bad = [0.004 if task % 3 else 0.1 for task in range(tasks)]
    scale = FAILURES_PER_DAY / (RUNS_PER_DAY * sum(map(float.__mul__, share, bad)))
    for day in range(number):
        end = int(now) // BUCKET_SECONDS * BUCKET_SECONDS + BUCKET_SECONDS - (number - 1 - day) * DAY
        buckets, failures = [], []
        errors: dict[tuple[int, str], int] = {}
        for start in range(end - DAY, end, BUCKET_SECONDS):
            busy = RUNS_PER_DAY / 96 * (0.5 + (start % DAY) / DAY)
            storm = 4.0 if start > now - 5400 else 1.0
            for task in range(tasks):
                runs = counted(rng, busy * share[task])
                failed = min(runs, counted(rng, runs * min(0.6, bad[task] * scale * (storm if task < 6 else 1))))
                if runs:
                    counts = [0] * 8
                    counts[STARTED] = runs
                    counts[SUCCEEDED], counts[FAILED], counts[RETRIED] = runs - failed, failed, runs // 20
                    counts[0] = counts[1] = runs
                    spent = runs * (0.02 + task % 9 * 0.05) * (1 + 0.3 * rng.random())
                    buckets.append(BucketDelta(start, name_of(task), queue_of(task), tuple(counts), spent, runs))
                if failed:
                    group = group_of(task, rng.randrange(SAMPLES_PER_GROUP))
                    errors[start, group] = errors.get((start, group), 0) + failed
                    failures += [failure(task, group, min(now, start + rng.random() * 900), rng) for _ in range(failed)]
        # A flush has no more than the newest failure of each group, and the times within one day ascend.
        yield Changes(
            now=min(now, end),
            sequence=day + 1,
            buckets=buckets,
            groups=groups(tasks, end - DAY * number, min(now, end)) if day in {0, number - 1} else (),
            errors=[ErrorDelta(start, group, count) for (start, group), count in errors.items()],
            failures=sorted(failures, key=lambda one: one.at),
            incidents=incidents(tasks, end, now, rng, last=day == number - 1),
            checkpoints=[one for hour in range(24) for one in checkpoints(tasks, end - DAY + hour * HOUR, now)],
            queue_lengths=[one for start in range(end - DAY, end, BUCKET_SECONDS) for one in lengths(start, rng)],
            series=series(tasks, now) if day == number - 1 else (),
            ended=ended(tasks, now, rng) if day == number - 1 else (),
        )


def measured(task: int, at: float) -> tuple[int, ...]:
    """The counts of a task's histogram by bucket at a time. They only grow."""
    hours = int(at) // HOUR - FIRST_HOUR
    return tuple(hours * (1 + 1000 // (1 + task) // (1 + abs(place - 4 - task % 5))) for place in range(len(CELLS)))


def checkpoints(tasks: int, at: int, now: float) -> list[Checkpoint]:
    """The checkpoints of the hour that begins at this time."""
    start = at // HOUR * HOUR
    cells = [tuple(zip(CELLS, measured(task, start), strict=True)) for task in range(tasks)]
    keys = (SeriesKey(name_of(task), queue_of(task)) for task in range(tasks))
    return [Checkpoint(start, key, cell, cell) for key, cell in zip(keys, cells, strict=True) if start < now]


def lengths(start: int, rng: random.Random) -> list[QueueLengthDelta]:
    """The queue lengths of 15 minutes, sampled every 15 seconds."""
    return [QueueLengthDelta(start, queue, 60, 60 * (most := rng.randrange(200)), most * 2) for queue in queues()]


def queues() -> list[str]:
    """The names of all queues."""
    return [*QUEUES, *(f"client-{number:03}" for number in range(MORE_QUEUES))]


@cache
def _series(tasks: int, hour: int) -> list[Series]:
    histograms = [Histogram(BOUNDS, measured(task, hour * HOUR), 900.0) for task in range(tasks)]
    keys = (SeriesKey(name_of(task), queue_of(task)) for task in range(tasks))
    return [Series(key, (9,) * 8, {}, one, one) for key, one in zip(keys, histograms, strict=True)]


def series(tasks: int, now: float) -> list[Series]:
    """The current totals. The monitor has them in memory, so their creation is not part of the page's cost."""
    return _series(tasks, int(now) // HOUR + 1)


def ended(tasks: int, now: float, rng: random.Random) -> list[TaskRun]:
    """As many of the newest ended runs as a list reads."""
    return [
        TaskRun(
            uuid=f"{rng.getrandbits(32):08x}-1c7e-4b2a-9d3f-{number:012x}",
            name=name_of(task := rng.randrange(tasks)),
            queue=queue_of(task),
            hostname=f"celery@worker-{task % 4 + 1}",
            stage=int(Stage.FAILED if rng.random() < FAILURES_PER_DAY / RUNS_PER_DAY else Stage.SUCCEEDED),
            started_at=now - (ENDED_SEARCHED - number) * 0.5 - 1,
            ended_at=now - (ENDED_SEARCHED - number) * 0.5,
            runtime=rng.random(),
        )
        for number in range(ENDED_SEARCHED)
    ]


def group_of(task: int, variant: int) -> str:
    """The ID of an error group."""
    return f"{task:08x}{variant:08x}"


def groups(tasks: int, first: float, last: float) -> list[ErrorGroup]:
    """All error groups, as many for each task as 200,000 stored failures require."""
    return [
        ErrorGroup(
            group_of(task, variant),
            name_of(task),
            KINDS[(task + variant) % len(KINDS)][1],
            f"shop/{AREAS[task % len(AREAS)]}/gateway.py:submit{variant or ''}",
            first,
            last,
        )
        for task in range(tasks)
        for variant in range(SAMPLES_PER_GROUP)
    ]


def failure(task: int, group: str, at: float, rng: random.Random) -> Failure:
    """One stored failure."""
    variant = int(group[8:], 16)
    kind, qualified, message = KINDS[(task + variant) % len(KINDS)]
    said = message.format(n=rng.randrange(10_000))
    return Failure(
        uuid=f"{rng.getrandbits(32):08x}-7c1e-4b2a-9d3f-{rng.getrandbits(48):012x}",
        name=name_of(task),
        queue=queue_of(task),
        hostname=f"celery@worker-{task % 4 + 1}",
        at=at,
        exception=kind,
        message=said,
        traceback=traceback(task, qualified, said),
        group=group,
        incident=f"{name_of(task)}/{time.strftime('%Y-%m-%dT%HZ', time.gmtime(at))}",
        reason=Reason.JOINED,
    )


def traceback(task: int, qualified: str, message: str) -> str:
    """A traceback as a worker sends it."""
    area, verb = AREAS[task % len(AREAS)], VERBS[task // len(AREAS) % len(VERBS)]
    return TRACEBACK.format(area=area, verb=verb, qualified=qualified, message=message)


def incidents(tasks: int, end: float, now: float, rng: random.Random, *, last: bool) -> list[Incident]:
    """15 incidents per hour; some of the last hour are open."""
    made = [
        incident(task, end - DAY + hour * 3600, rng.randrange(1, 80), IncidentState.RESOLVED)
        for hour in range(24)
        for task in rng.sample(range(0, tasks, 3), min(15, tasks // 3))
    ]
    if last:
        made += [
            incident(task, now - 3000 - task * 60, count, IncidentState.OPEN, now - 40 - task)
            for task, count in ((0, 74), (3, 12), (6, 31), (12, 5))
        ]
    return made


def incident(task: int, begin: float, count: int, state: IncidentState, until: float | None = None) -> Incident:
    """An incident of one task and hour."""
    kind, qualified, message = KINDS[task % len(KINDS)]
    said = message.format(n=4711)
    hour = time.strftime("%Y-%m-%dT%HZ", time.gmtime(begin))
    return Incident(
        key=f"{name_of(task)}/{hour}",
        fleet="shop",
        task=name_of(task),
        rule="billing" if task % 30 == 0 else "",
        route="",
        severity=Severity.CRITICAL if task % 30 == 0 else Severity.ERROR,
        state=state,
        reason=Reason.OPENED,
        hour=hour,
        opened_at=begin + 2,
        first_at=begin,
        last_at=until or begin + 1700,
        count=count,
        threshold=1,
        exceptions={kind: count},
        workers={f"celery@worker-{task % 4 + 1}": count},
        queues={queue_of(task): count},
        message=said,
        traceback=traceback(task, qualified, said),
        runbook_url="https://wiki.shop.example/runbooks/billing" if task % 30 == 0 else None,
    )


def fill(store: SqlStore, tasks: int, number: int, now: float) -> str:
    """Fill the store. Returns the task ID of the newest failure."""
    newest = ""
    for changes in days(tasks, number, now):
        if changes.failures:
            newest = changes.failures[-1].uuid
        opened = [structs.replace(one, last_uuid=newest, samples=(newest,)) for one in changes.incidents]
        store.commit(replace(changes, incidents=opened))
        print(f"  day {changes.sequence} of {number} is written", file=sys.stderr, flush=True)
    return newest


def copy(source: Path, target: str) -> None:
    """Copy all rows of an SQLite store into the empty tables of a PostgreSQL store."""
    with contextlib.closing(sqlite3.connect(source)) as reading, psycopg.connect(target) as writing:
        for table in schema.metadata.sorted_tables:
            if table is schema.meta:
                continue
            names = ", ".join(f'"{column.name}"' for column in table.columns)
            with writing.cursor().copy(f'COPY "{table.name}" ({names}) FROM STDIN') as into:
                for row in reading.execute(f'SELECT {names} FROM "{table.name}"'):  # noqa: S608 - names of our own
                    into.write_row(row)
