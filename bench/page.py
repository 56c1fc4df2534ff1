"""The cost of the pages with a store of 5,000,000 executed tasks and 200,000 failures of 500 tasks over 30 days.

    python -m bench.page [--only sqlite | --only postgresql] [--days 30] [--tasks 500] [--store FILE] [--serve PORT]
        [--write]

Fills a store in SQLite, copies it to a private PostgreSQL and measures the pages on both: each page's server time and
CPU time (of the first request, and the median of five more; including the client, without PostgreSQL), its size as
sent, and the size that a browser without a cache loads. Pages above the budget of 100 ms or 60 kB are marked, and the
exit code is then 1. On a machine with other work, compare the CPU time. The server runs for some seconds before, like a
daemon. The benchmark takes some minutes.
``--store`` keeps the file, or uses an existing one. ``--serve`` then serves the pages of the last database. ``--write``
writes the section of docs/benchmarks.md.
"""

import argparse
import contextlib
import gc
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from urllib.parse import quote

import httpx

from bench.page_store import DAY, QUEUES, copy, fill, name_of, queues, series
from bench.pages import machine, replace_part, require, table
from celery_monitor.adapters.channels.email.render import render_part
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.adapters.web import Site, WebServer
from celery_monitor.adapters.web.site import PREPARE_AFTER
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.cli.run import COLLECT
from celery_monitor.core.model import QueueStats, Snapshot, Worker
from celery_monitor.ports import ChannelInfo, HealthReport
from celery_monitor.runtime.report import DayReport
from celery_monitor.runtime.task_view import StoredTaskView
from celery_monitor.settings.web import WebSettings
from tests.servers.postgresql import PostgreSQL, template

BUDGET_SECONDS, BUDGET_BYTES = 0.1, 60_000
REQUESTS = 6
LISTED = 8
"""Maximum number of pages above the budget that the report names."""
DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


class Nothing:
    """Metrics that are never requested."""

    def choose(self, accept: str, accept_encoding: str) -> str:
        """See Metrics."""
        raise NotImplementedError

    def render(self, chosen: object) -> None:
        """See Metrics."""
        raise NotImplementedError


def snapshot(tasks: int, now: float) -> Snapshot:
    """The state in memory."""
    return Snapshot(
        now=now,
        series=series(tasks, now),
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
    """The sources of the composition root, without a stream."""
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
        queues=lambda: [QueueStats(name, 12, 2, 2, 16) for name in queues()],
        reader=store.reader,
        outbox=store.outbox,
        silences=store.silences,
        report=report.summary,
        prepare_report=report.prepare,
        report_part=render_part,
        channels=[
            ChannelInfo(name="pagerduty", title="PagerDuty", configured=True, off="", incidents=True),
            ChannelInfo(name="email", title="Mail", configured=True, off="", incidents=False),
        ],
        retention=30.0 * DAY,
        zone=UTC,
    )


ASSETS = ("/style.css", "/app.js", "/icon.svg")


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a page, in seconds and bytes."""

    name: str
    first: float
    first_processor: float
    median: float
    median_processor: float
    html: int
    sent: int
    whole: int
    """The page with everything that a browser loads for it."""

    def above(self) -> list[str]:
        """The values above the budget."""
        found = [
            ("first", self.first > BUDGET_SECONDS),
            ("median", self.median > BUDGET_SECONDS),
            ("size", self.whole > BUDGET_BYTES and not self.name.startswith("API")),
        ]
        return [what for what, is_above in found if is_above]

    def line(self) -> str:
        """The row of the table."""
        seconds = self.first, self.first_processor, self.median, self.median_processor
        times = (f"{1000 * value:6.0f} ms" for value in seconds)
        above = f"  ABOVE the budget: {', '.join(self.above())}" if self.above() else ""
        return f"{self.name:26} {' '.join(times)} {self.html:9,} {self.sent:9,} {self.whole:12,}{above}"


def measure(base: str, paths: dict[str, str]) -> list[Cost]:
    """The cost of each page. Prints a line for each."""
    found = []
    with httpx.Client(base_url=base, timeout=60) as client:
        assets = sum(sent(client.get(path)) for path in ASSETS)
        print(
            f"{'page':26} {'first':>9} {'cpu':>9} {'median':>9} {'cpu':>9} {'html':>9} {'sent':>9} {'with assets':>12}"
        )
        for name, path in paths.items():
            cost = cost_of(client, name, path, 0 if path.startswith("/api") else assets)
            print(cost.line(), flush=True)
            found.append(cost)
    return found


def above(costs: Mapping[str, Sequence[Cost]]) -> list[str]:
    """The pages above the budget, by the name of the database."""
    return [
        f"{kind}: {cost.name} ({', '.join(cost.above())})"
        for kind, each in costs.items()
        for cost in each
        if cost.above()
    ]


def section(costs: Mapping[str, Sequence[Cost]]) -> str:
    """The section of docs/benchmarks.md. ``costs`` is by the name of the database."""
    by_page = {
        kind: {cost.name: cost for cost in each if not cost.name.startswith("API")} for kind, each in costs.items()
    }
    count = len(next(iter(by_page.values())))
    rows = []
    for kind, each in by_page.items():
        rows += [
            [f"{kind}, first request", *_spread({name: 1000 * cost.first for name, cost in each.items()})],
            [f"{kind}, each later one", *_spread({name: 1000 * cost.median for name, cost in each.items()})],
        ]
    sizes = {cost.name: cost.whole / 1000 for each in by_page.values() for cost in each.values()}
    found = above(costs)
    more = f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return "\n\n".join(
        (
            f"{count} pages. Measured {machine()} by `bench/page.py`.",
            table(["Server time (ms)", "Median of the pages", "Slowest page", "Which"], rows, text=(0, 3)),
            f"Sent to a browser without a cache, with style sheet, script and icon: median "
            f"{statistics.median(sizes.values()):.0f} kB, largest {max(sizes.values()):.0f} kB "
            f"({max(sizes, key=sizes.__getitem__)}). "
            + (
                f"Above the budget: {'; '.join(found[:LISTED])}{more}."
                if found
                else "All pages and lists of the API are within it."
            ),
        )
    )


def _spread(values: Mapping[str, float]) -> list[str]:
    slowest = max(values, key=values.__getitem__)
    return [f"{statistics.median(values.values()):.0f}", f"{values[slowest]:.0f}", slowest]


def cost_of(client: httpx.Client, name: str, path: str, assets: int) -> Cost:
    """Request a page and measure its cost."""
    answers = [asked(client, path) for _ in range(REQUESTS)]
    (first, *times), processor, (*_, answer) = zip(*answers, strict=True)
    size = sent(answer)
    return Cost(
        name,
        first,
        processor[0],
        statistics.median(times),
        statistics.median(processor[1:]),
        len(answer.content),
        size,
        size + assets,
    )


def asked(client: httpx.Client, path: str) -> tuple[float, float, httpx.Response]:
    """Seconds until the response, seconds of CPU time, and the response."""
    begun, used = time.perf_counter(), time.process_time()
    answer = client.get(path)
    if answer.is_error:
        raise SystemExit(f"{path}: {answer.status_code} {answer.text[:500]}")
    return time.perf_counter() - begun, time.process_time() - used, answer


def sent(answer: httpx.Response) -> int:
    """Size of the body as received, in bytes."""
    return answer.num_bytes_downloaded


def pages(failure: str, ended: str, incident: str) -> dict[str, str]:
    """The pages to request: the most expensive of each kind, and those of these IDs."""
    worst, week = name_of(0), "7d"
    return {
        "overview": "/",
        "overview, 7 days": "/?span=7d",
        "tasks": "/tasks",
        "tasks by a part": "/tasks?q=charge&sort=failed",
        "tasks, nothing found": "/tasks?q=chrage",
        "the worst task": f"/tasks/{worst}",
        "the worst task, 7 days": f"/tasks/{worst}?span=7d",
        "running": "/runs",
        "ended tasks": "/runs?state=ended",
        "ended tasks, page 200": "/runs?state=ended&page=200",
        "ended tasks by run time": "/runs?state=succeeded&q=charge&sort=runtime",
        "an ended task": f"/runs/{ended}",
        "errors": "/errors",
        "errors of 7 days": "/errors?since=7d",
        "errors of 30 days": "/errors?since=30d",
        "errors by exception": "/errors?since=7d&by=exception",
        "errors, new ones": "/errors?task=charge&state=new&sort=first",
        "failures": "/failures",
        "failures by a part": "/failures?task=charge&exception=error",
        "failures by message": "/failures?message=refused",
        "failures, none found": "/failures?message=no+such+text",
        "failures of an hour": "/failures?since=1h",
        "failures by worker": "/failures?sort=hostname",
        "a failure": f"/failures/{failure}",
        "incidents": "/incidents",
        "incidents by a part": "/incidents?task=charge&state=open",
        "incidents, none found": "/incidents?exception=nothing",
        "incidents by failures": "/incidents?sort=failures",
        "an incident": f"/incidents/{quote(incident, safe='')}",
        "workers": "/workers",
        "a worker": "/workers/celery@worker-1",
        "queues": "/queues",
        "a queue": f"/queues/{QUEUES[0]}",
        "a queue, 7 days": f"/queues/{QUEUES[1]}?span=7d",
        "a queue without tasks": f"/queues/{queues()[-1]}?span=7d",
        "schedules": "/schedules",
        "silences": "/silences",
        "today's report": "/reports/today",
        "yesterday's report": "/reports/yesterday",
        "yesterday's report, end": "/reports/yesterday?page=99",
        "a report of last week": f"/reports/{time.strftime('%Y-%m-%d', time.gmtime(time.time() - 9 * DAY))}",
        "not found": "/runs?state=ended&q=nothing+of+the+kind",
        "API: errors, 7 days": f"/api/v1/errors?since={week}",
        "API: a task, 7 days": f"/api/v1/tasks/{worst}?since={week}",
        "API: queues": "/api/v1/queues",
        "API: a queue, 7 days": f"/api/v1/queues/{QUEUES[0]}?since={week}",
        "API: lengths of a queue": f"/api/v1/queue-lengths?queue={QUEUES[0]}&since={week}",
        "API: lengths of all": f"/api/v1/queue-lengths?since={week}",
        "API: yesterday's report": "/api/v1/reports/yesterday",
    }


def opened(url: str, directory: Path) -> SqlStore:
    """A store of the measured retention."""
    store = open_store(url, directory=directory, retention=30.0 * DAY, fingerprint_window=100)
    store.start()
    return store


def filled(file: Path, tasks: int, number: int) -> None:
    """Fill the store unless it exists."""
    if file.exists():
        return
    begun = time.perf_counter()
    store = opened(f"sqlite:///{file}", file.parent)
    fill(store, tasks, number, time.time())
    store.stop()
    print(f"filled in {time.perf_counter() - begun:.0f} s, {file.stat().st_size / 1e6:.0f} MB in SQLite", flush=True)


def copied(file: Path, directory: Path, servers: contextlib.ExitStack) -> str:
    """The URL of a private PostgreSQL with the same rows."""
    begun = time.perf_counter()
    server = servers.enter_context(PostgreSQL(template(directory / "empty"), shared_buffers="128MB"))
    url = server.new_database()
    opened(url, directory).stop()
    copy(file, url)
    database = url.rpartition("/")[2]
    server.execute("VACUUM ANALYZE", database=database)  # a server does this by itself, except that of the tests
    ((size,),) = server.query("SELECT pg_database_size(current_database())", database=database)
    print(f"copied in {time.perf_counter() - begun:.0f} s, {size / 1e6:.0f} MB in PostgreSQL", flush=True)
    return url


def ids(file: Path) -> tuple[str, str, str]:
    """The IDs of the newest failure, the newest ended task and an open incident."""
    queries = (
        "SELECT uuid FROM failures ORDER BY id DESC LIMIT 1",
        "SELECT uuid FROM ended_tasks ORDER BY id DESC LIMIT 1",
        "SELECT key FROM incidents WHERE state = 'open' ORDER BY opened_at LIMIT 1",
    )
    with contextlib.closing(sqlite3.connect(file)) as connection:
        failure, ended, incident = (connection.execute(query).fetchone()[0] for query in queries)
    return failure, ended, incident


@contextlib.contextmanager
def serving(store: SqlStore, tasks: int, port: int) -> Iterator[str]:
    """The base URL of a server that has prepared its pages."""
    server = WebServer(Site(WebSettings(), sources(store, tasks)), host="127.0.0.1", port=port)
    server.start()
    stop = threading.Event()
    thread = threading.Thread(target=server.serve, args=(stop, lambda: None))
    thread.start()
    try:
        time.sleep(PREPARE_AFTER[0] + 15)
        # Like the daemon after it has started.
        gc.collect()
        gc.freeze()
        yield f"http://127.0.0.1:{server.port}"
    finally:
        stop.set()
        thread.join()
        server.stop()


def main() -> None:
    """Fill the store, measure the pages, and serve them if requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--only", choices=tuple(DATABASES), help="measure on this database alone")
    parser.add_argument("--store", type=Path, help="SQLite file to keep; by default one that is deleted")
    parser.add_argument("--serve", type=int, metavar="PORT", help="go on to serve until Ctrl-C")
    parser.add_argument("--write", action="store_true", help="write the part of docs/benchmarks.md")
    arguments = parser.parse_args()
    if arguments.write:
        require("page")
    gc.set_threshold(*COLLECT)
    kinds = [arguments.only] if arguments.only else [*DATABASES]
    costs: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as servers:
        directory = Path(name)
        file = (arguments.store or directory / "store.db").absolute()
        filled(file, arguments.tasks, arguments.days)
        for kind in kinds:
            url = f"sqlite:///{file}" if kind == "sqlite" else copied(file, directory, servers)
            store = opened(url, directory)
            port = arguments.serve if arguments.serve and kind == kinds[-1] else 0
            print(f"\n{kind}, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", flush=True)
            try:
                with serving(store, arguments.tasks, port) as base:
                    costs[DATABASES[kind]] = measure(base, pages(*ids(file)))
                    if port:
                        print(base, flush=True)
                        with contextlib.suppress(KeyboardInterrupt):
                            threading.Event().wait()
            finally:
                store.stop()
    if arguments.write:
        replace_part("page", section(costs))
    if found := above(costs):
        sys.exit("\nabove the budget:\n  " + "\n  ".join(found))
    print("\nall within the budget")


if __name__ == "__main__":
    main()
