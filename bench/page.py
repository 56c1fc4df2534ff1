"""What the pages cost: a store of 5,000,000 executed tasks and 200,000 failures in 500 tasks over 30 days.

Usage: python -m bench.page [--days 30] [--tasks 500] [--postgresql | --store URL] [--filled ID] [--serve PORT]
Prints each page's server time (the median of five requests after one that warms up, and the first one) and processor
time (the mean of the six, the client's included), its size as it is sent, and what a browser without a cache loads with
it. ``--serve`` goes on to serve the pages.
"""

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from functools import cache
from pathlib import Path
from urllib.parse import quote

import httpx
from msgspec import structs

from celery_monitor.adapters.channels.email.render import render_part
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.adapters.web import Site, WebServer
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.core.model import (
    BUCKET_SECONDS,
    FAILED,
    RETRIED,
    STARTED,
    SUCCEEDED,
    BucketDelta,
    Changes,
    ErrorDelta,
    ErrorGroup,
    Failure,
    Histogram,
    Incident,
    IncidentState,
    QueueStats,
    Reason,
    Series,
    SeriesKey,
    Severity,
    Snapshot,
    Stage,
    TaskRun,
    Worker,
)
from celery_monitor.ports import ENDED_SEARCHED, ChannelInfo, HealthReport
from celery_monitor.runtime.report import DayReport
from celery_monitor.runtime.task_view import StoredTaskView
from celery_monitor.settings.web import WebSettings
from tests.servers.postgresql import PostgreSQL, template

DAY = 86_400
RUNS_PER_DAY = 166_667
FAILURES_PER_DAY = 6_667
BUDGET_SECONDS, BUDGET_BYTES = 0.1, 60_000
SAMPLES_PER_GROUP = 20
AREAS = ("billing", "orders", "mail", "stock", "search", "images", "cart", "stats", "legacy", "users")
VERBS = ("charge", "confirm", "remind", "sync", "index", "resize", "expire", "rollup", "export", "import", "refund")
QUEUES = ("default", "payments", "mail", "slow")
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


def name_of(task: int) -> str:
    """Of a task, by its number."""
    area, verb = AREAS[task % len(AREAS)], VERBS[task // len(AREAS) % len(VERBS)]
    series = task // (len(AREAS) * len(VERBS))
    return f"shop.{area}.{verb}" + (f"_{series}" if series else "")


def queue_of(task: int) -> str:
    """Of a task, by its number."""
    return QUEUES[task % len(QUEUES)]


def counted(rng: random.Random, wanted: float) -> int:
    """A whole number that is ``wanted`` on average."""
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
        # Of a flush, no more than the newest of each group; the times of one day are in order then.
        yield Changes(
            now=min(now, end),
            sequence=day + 1,
            buckets=buckets,
            groups=groups(tasks, end - DAY * number, min(now, end)) if day in {0, number - 1} else (),
            errors=[ErrorDelta(start, group, count) for (start, group), count in errors.items()],
            failures=sorted(failures, key=lambda one: one.at),
            incidents=incidents(tasks, end, now, rng, last=day == number - 1),
            ended=ended(tasks, now, rng) if day == number - 1 else (),
        )


def ended(tasks: int, now: float, rng: random.Random) -> list[TaskRun]:
    """As many of the newest ended runs as a list looks at."""
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
    """Id of an error group."""
    return f"{task:08x}{variant:08x}"


def groups(tasks: int, first: float, last: float) -> list[ErrorGroup]:
    """All of them: as many for each task as make 200,000 kept failures."""
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
    """One kept failure."""
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
    """As a worker sends it."""
    area, verb = AREAS[task % len(AREAS)], VERBS[task // len(AREAS) % len(VERBS)]
    return TRACEBACK.format(area=area, verb=verb, qualified=qualified, message=message)


def incidents(tasks: int, end: float, now: float, rng: random.Random, *, last: bool) -> list[Incident]:
    """15 an hour; some of the last hour are open."""
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
    """Of one task and hour."""
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
    """Write all of it. The task id of the newest failure."""
    newest = ""
    for changes in days(tasks, number, now):
        if changes.failures:
            newest = changes.failures[-1].uuid
        opened = [structs.replace(one, last_uuid=newest, samples=(newest,)) for one in changes.incidents]
        store.commit(replace(changes, incidents=opened))
    return newest


class Nothing:
    """Metrics that nobody asks for."""

    def choose(self, accept: str, accept_encoding: str) -> str:
        """See Metrics."""
        raise NotImplementedError

    def render(self, chosen: object) -> None:
        """See Metrics."""
        raise NotImplementedError


@cache
def series(tasks: int) -> list[Series]:
    """Totals in memory: the monitor has them, so making them is none of the page's work."""
    counts = tuple(int(1000 / (1 + abs(place - 6))) for place in range(len(BOUNDS) + 1))
    histogram = Histogram(BOUNDS, counts, 900.0)
    keys = [SeriesKey(name_of(task), queue_of(task)) for task in range(tasks)]
    return [Series(key, (9,) * 8, {}, histogram, histogram) for key in keys]


def snapshot(tasks: int, now: float) -> Snapshot:
    """The state in memory."""
    return Snapshot(
        now=now,
        series=series(tasks),
        workers=[
            Worker(f"celery@worker-{number + 1}", number < 3, now - 2, 3, 9000, 7, "py-celery", "5.7.0", "Linux")
            for number in range(4)
        ],
        counters={"events.task-started": 5_000_000.0},
        incidents={},
        incidents_open=4,
        tracked=30,
        lag=0.012,
        probe_roundtrip=0.004,
    )


def sources(store: SqlStore, tasks: int) -> Sources:
    """As the composition root gives them, without a stream."""
    clock = SystemClock()
    report = DayReport(store.reader, "shop", UTC, paging=True)
    return Sources(
        fleet="shop",
        clock=clock,
        metrics=Nothing(),  # type: ignore[arg-type]
        livez=lambda: HealthReport({}),
        readyz=lambda: HealthReport({"broker": None, "probe": None, "store": None}),
        snapshot=lambda: snapshot(tasks, clock.now()),
        tasks=lambda: StoredTaskView(store.reader, clock),
        queues=lambda: [QueueStats(name, 12, 2, 2, 16) for name in QUEUES],
        reader=store.reader,
        outbox=store.outbox,
        silences=store.silences,
        report=report.summary,
        report_part=render_part,
        channels=[
            ChannelInfo(name="pagerduty", title="PagerDuty", configured=True, off="", incidents=True),
            ChannelInfo(name="email", title="Mail", configured=True, off="", incidents=False),
        ],
        retention=30.0 * DAY,
        zone=UTC,
    )


ASSETS = ("/style.css", "/app.js", "/icon.svg")


def measure(base: str, paths: dict[str, str]) -> bool:
    """Print a line for each page. Whether all are within the budget."""
    fits = True
    with httpx.Client(base_url=base, timeout=60) as client:
        weight = sum(sent(client.get(path)) for path in ASSETS)
        print(f"{'page':24} {'first':>9} {'median':>9} {'cpu':>9} {'html':>9} {'sent':>9} {'with assets':>12}")
        for name, path in paths.items():
            took, answer, processor = [], None, time.process_time()
            for _ in range(6):
                begun = time.perf_counter()
                answer = client.get(path)
                took.append(time.perf_counter() - begun)
            processor = (time.process_time() - processor) / 6
            if answer is None or answer.status_code != 200:
                raise SystemExit(f"{path}: {answer and answer.text[:500]}")
            median, html = statistics.median(took[1:]), sent(answer)
            size = html + weight
            good = median <= BUDGET_SECONDS and size <= BUDGET_BYTES
            fits &= good
            print(
                f"{name:24} {took[0] * 1000:6.0f} ms {median * 1000:6.0f} ms {processor * 1000:6.0f} ms "
                f"{len(answer.content):9,} {html:9,} "
                f"{size:12,} {'' if good else '  beyond the budget'}"
            )
    return fits


def sent(answer: httpx.Response) -> int:
    """Bytes of the body as it came."""
    return answer.num_bytes_downloaded


def pages(newest: str) -> dict[str, str]:
    """What is asked for: the heaviest of each kind."""
    key = f"{name_of(0)}/{time.strftime('%Y-%m-%dT%HZ', time.gmtime(time.time() - 3000))}"
    return {
        "overview": "/",
        "overview, 7 days": "/?span=7d",
        "tasks": "/tasks",
        "tasks by a part": "/tasks?q=charge&sort=failed",
        "tasks, nothing found": "/tasks?q=chrage",
        "the worst task": f"/tasks/{name_of(0)}",
        "the worst task, 7 days": f"/tasks/{name_of(0)}?span=7d",
        "ended tasks": "/runs?state=ended",
        "ended tasks by run time": "/runs?state=succeeded&q=charge&sort=runtime",
        "failures": "/failures",
        "failures by a part": "/failures?task=charge&exception=error",
        "failures by message": "/failures?message=refused",
        "failures, none found": "/failures?message=no+such+text",
        "failures of an hour": "/failures?since=1h",
        "failures by worker": "/failures?sort=hostname",
        "a failure": f"/failures/{newest}",
        "incidents": "/incidents",
        "incidents by a part": "/incidents?task=charge&state=open",
        "incidents, none found": "/incidents?exception=nothing",
        "incidents by failures": "/incidents?sort=failures",
        "an incident": f"/incidents/{quote(key, safe='')}",
        "workers": "/workers",
        "today's report": "/reports/today",
        "today's report, the end": "/reports/today?page=99",
    }


def private(directory: str, servers: contextlib.ExitStack) -> PostgreSQL:
    """A server of one's own."""
    return servers.enter_context(PostgreSQL(template(Path(directory) / "empty"), shared_buffers="128MB"))


def analyze(database: PostgreSQL | None, url: str) -> None:
    """What a server does by itself, but for one that is made for tests."""
    if database is not None:
        database.execute("VACUUM ANALYZE", database=url.rpartition("/")[2])


def main() -> None:
    """Fill, measure, and serve if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--postgresql", action="store_true", help="on a private PostgreSQL, in place of SQLite")
    parser.add_argument("--store", help="URL of an empty store; by default a file that is deleted")
    parser.add_argument("--filled", help="the store is full already; the task id of its newest failure")
    parser.add_argument("--serve", type=int, help="go on, on this port, until Ctrl-C")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as servers:
        database = private(directory, servers) if arguments.postgresql else None
        url = database.new_database() if database else arguments.store or f"sqlite:///{directory}/store.db"
        store = open_store(url, directory=Path(directory), retention=30.0 * DAY, fingerprints_kept=100)
        store.start()
        newest = arguments.filled
        if newest is None:
            begun = time.perf_counter()
            newest = fill(store, arguments.tasks, arguments.days, time.time())
            analyze(database, url)
            print(f"filled in {time.perf_counter() - begun:.0f} s; the newest failure is {newest}", flush=True)
        server = WebServer(
            Site(WebSettings(), sources(store, arguments.tasks)), host="127.0.0.1", port=arguments.serve or 0
        )
        server.start()
        stop = threading.Event()
        thread = threading.Thread(target=server.serve, args=(stop, lambda: None))
        thread.start()
        try:
            fits = measure(f"http://127.0.0.1:{server.port}", pages(newest))
            if arguments.serve:
                print(f"http://127.0.0.1:{server.port}", flush=True)
                with contextlib.suppress(KeyboardInterrupt):
                    thread.join()
        finally:
            stop.set()
            thread.join()
            server.stop()
            store.stop()
    if not fits:
        sys.exit(1)


if __name__ == "__main__":
    main()
