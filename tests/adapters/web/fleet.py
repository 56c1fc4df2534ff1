"""A fleet in the web's sources: a real store with known rows, and a state in memory."""

import json
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, date
from typing import Any, cast

from msgspec import structs

from celery_monitor.adapters.store import SqlStore
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.core.model import (
    COUNTS,
    Action,
    BucketDelta,
    Changes,
    Checkpoint,
    Delivery,
    ErrorDelta,
    ErrorGroup,
    Failure,
    Histogram,
    Incident,
    IncidentState,
    Limit,
    OutboxRequest,
    QueueLengthDelta,
    QueueStats,
    Reason,
    Restored,
    ScheduleState,
    Series,
    SeriesKey,
    Severity,
    Snapshot,
    Worker,
    WorkerDetail,
)
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.core.summary import Summary
from celery_monitor.errors import MonitorError
from celery_monitor.ports import ChannelInfo, HealthReport, Reader, Scrape, StoreSpace, TaskView
from celery_monitor.runtime.report import DayReport
from celery_monitor.runtime.task_view import MemoryTaskView
from tests.fakes import ManualClock

NOW = 1_795_442_709.25
"""2026-11-23T14:05:09.25Z."""
BUCKET = 1_795_442_400
"""The quarter of an hour that NOW is in."""
GROUP = "0123456789abcdef"


def failure(uuid: str = "id-1", **changes: object) -> Failure:
    """A failure of ``shop.charge``."""
    made = Failure(
        uuid=uuid,
        name="shop.charge",
        queue="billing",
        hostname="celery@box",
        at=NOW - 60,
        exception="ValueError",
        message="no such card",
        traceback='Traceback (most recent call last):\n  File "shop.py", line 1, in charge\nValueError: no such card',
        group=GROUP,
        incident="shop.charge/2026-11-23T14Z",
        reason=Reason.OPENED,
    )
    return structs.replace(made, **changes)


def incident(key: str = "shop.charge/2026-11-23T14Z", **changes: object) -> Incident:
    """An open incident of ``shop.charge``."""
    made = Incident(
        key=key,
        fleet="shop",
        task="shop.charge",
        rule="",
        route="",
        severity=Severity.ERROR,
        state=IncidentState.OPEN,
        reason=Reason.OPENED,
        hour="2026-11-23T14Z",
        opened_at=NOW - 59,
        first_at=NOW - 60,
        last_at=NOW - 30,
        count=2,
        threshold=1,
        exceptions={"ValueError": 2},
        message="no such card",
        samples=("id-1",),
    )
    return structs.replace(made, **changes)


def bucket(name: str = "shop.charge", queue: str = "billing", **counts: int) -> BucketDelta:
    """Counts of the 15 minutes that contain NOW."""
    return BucketDelta(BUCKET, name, queue, tuple(counts.get(count, 0) for count in COUNTS), 1.5, 3)


def group(name: str = "shop.charge", identity: str = GROUP, exception: str = "ValueError") -> ErrorGroup:
    """An error group."""
    return ErrorGroup(identity, name, exception, "shop.py:charge", NOW - 60, NOW - 30)


def worker(hostname: str = "celery@box", *, up: bool = True) -> Worker:
    """A worker."""
    return Worker(hostname, up, NOW - 2, 1, 10, 7, "py-celery", "5.6.3", "Linux")


def measured() -> dict[str, Any]:
    """Times of ``shop.charge`` in two hours, and lengths of its queue."""
    key, bounds = SeriesKey("shop.charge", "billing"), (0.1, 1.0)
    hour = int(NOW) // 3600 * 3600
    return {
        "series": [
            Series(key, (0,) * len(COUNTS), {}, Histogram(bounds, (4, 4, 2), 9.0), Histogram(bounds, (5, 0, 0), 0.2))
        ],
        "checkpoints": [
            Checkpoint(hour - 3600, key, (), ()),
            Checkpoint(hour, key, ((0.1, 4),), ((0.1, 2),)),
        ],
        "queue_lengths": [
            QueueLengthDelta(hour - 3600, "billing", 2, 9, 7),
            QueueLengthDelta(BUCKET, "billing", 1, 3, 3),
        ],
    }


def usual() -> Changes:
    """A fleet of two tasks, one of which failed twice and was paged."""
    return Changes(
        now=NOW,
        sequence=1,
        buckets=[bucket(started=5, succeeded=3, failed=2), bucket("shop.mail", "celery", started=7, succeeded=7)],
        groups=[group()],
        errors=[ErrorDelta(BUCKET, GROUP, 2)],
        failures=[failure(), failure("id-2", at=NOW - 30, reason=Reason.JOINED, exception="KeyError")],
        incidents=[incident()],
        outbox=[OutboxRequest("pagerduty", "shop.charge/2026-11-23T14Z", Action.TRIGGER)],
        workers=[worker()],
        **measured(),
    )


def channels(*off: str) -> list[ChannelInfo]:
    """Two channels that are off."""
    return [
        ChannelInfo(name=name, title=title, configured=name not in off, off=summary, incidents=incidents)
        for name, title, summary, incidents in (
            ("pagerduty", "PagerDuty", "nobody is paged", True),
            ("email", "Mail", "the daily mail is not sent", False),
        )
    ]


def busy() -> Monitor:
    """The monitor of a busy fleet: tasks that run, wait, and have ended, one of them in a chain."""
    made = Monitor(Limits(name_wait=0.0, capture_arguments=True), Restored(), NOW)
    events = (
        *ran("root-1", "shop.mail", -300, "succeeded", root_id="root-1", runtime=2.5),
        *ran("run-1", "shop.charge", -90, root_id="root-1", parent_id="root-1", args="('order-4711',)"),
        *ran("run-2", "shop.mail", -600, retries=2),
        *ran("done-1", "shop.mail", -40, "succeeded", root_id="root-1", parent_id="run-1", runtime=0.25),
        *ran("id-1", "shop.charge", -62, "failed", exception="ValueError('no such card')"),
        {"type": "task-sent", "uuid": "wait-1", "name": "shop.mail", "queue": "celery", "timestamp": NOW - 20},
        {"type": "task-sent", "uuid": "later-1", "name": "shop.mail", "queue": "celery", "timestamp": NOW - 20,
         "eta": "2026-11-23T15:00:00+00:00"},
    )  # fmt: skip
    made.receive([Delivery(json.dumps(one).encode()) for one in events], NOW)
    return made


def ran(uuid: str, name: str, at: float, end: str = "", runtime: float | None = None, **fields: object) -> list[Any]:
    """The events of a task, sent so many seconds before NOW, as Celery sends them; without ``end`` it runs."""
    base = {"uuid": uuid, "hostname": "celery@box"}
    exception = fields.pop("exception", None)
    events: list[Any] = [
        {**base, "type": "task-sent", "timestamp": NOW + at, "name": name, "queue": "billing", **fields},
        {**base, "type": "task-received", "timestamp": NOW + at + 1, "name": name, **fields},
        {**base, "type": "task-started", "timestamp": NOW + at + 2},
    ]
    if end:
        events.append(
            {**base, "type": f"task-{end}", "timestamp": NOW + at + 5, "exception": exception, "runtime": runtime}
        )
    return events


@dataclass
class FakeMetrics:
    """Metrics of a given size. ``gate`` blocks a rendering until it is set."""

    body: list[bytes] = field(default_factory=lambda: [b"up 1\n"])
    gate: threading.Event | None = None
    asked: int = 0
    rendered: int = 0

    def choose(self, accept: str, accept_encoding: str) -> Hashable:
        self.asked += 1
        return accept, accept_encoding

    def render(self, chosen: Hashable) -> Scrape:
        self.rendered += 1
        if self.gate is not None:
            self.gate.wait(150)
        return Scrape(self.body, [("content-type", "text/plain")], sum(map(len, self.body)))


class TroubledReader:
    """A Reader whose queries first wait or fail as the fleet says."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet

    def __getattr__(self, name: str) -> Any:
        query = getattr(self._fleet.store.reader, name)

        def call(*arguments: object, **options: object) -> object:
            if self._fleet.gate is not None:
                self._fleet.gate.wait(150)
            if self._fleet.trouble is not None:
                raise self._fleet.trouble
            return query(*arguments, **options)

        return call


@dataclass
class Fleet:
    """The data of the sources; a test changes what it needs."""

    store: SqlStore
    metrics: FakeMetrics = field(default_factory=FakeMetrics)
    live: HealthReport = field(default_factory=lambda: HealthReport({"threads": None}))
    ready: HealthReport = field(default_factory=lambda: HealthReport({"broker": None, "probe": None, "store": None}))
    details: dict[str, WorkerDetail] = field(
        default_factory=lambda: {
            "celery@box": WorkerDetail(
                ("billing", "celery"), "prefork", 8, 32, 3600.0, 90 << 20, NOW - 3, (0.5, 0.75, 1.0)
            )
        }
    )
    monitor: Monitor = field(default_factory=busy)
    workers: list[Worker] = field(default_factory=lambda: [worker(), worker("celery@gone", up=False)])
    starting: bool = False
    space: StoreSpace = field(default_factory=StoreSpace)
    rolled_back: float = 0.0
    trouble: MonitorError | None = None
    """What the store's queries raise."""
    gate: threading.Event | None = None
    """What the store's queries wait for."""
    channels: list[ChannelInfo] = field(default_factory=channels)
    links: dict[str, str] = field(default_factory=dict)
    html: Callable[[Summary, str, int], str] = lambda summary, root, number: (
        f'<style></style><a href="{root}incidents">The mail of {summary.date}</a>, part {number}'
    )

    schedules: tuple[ScheduleState, ...] = (ScheduleState("nightly", "0 3 * * * UTC", "shop.report", NOW + 60, 0.0),)
    missed: dict[str, float] = field(default_factory=dict)
    notice: str | None = None
    series: tuple[Series, ...] = ()
    """In memory."""
    silent: bool = False
    """Nothing was ever heard."""
    more_queues: list[QueueStats] = field(default_factory=list)

    def snapshot(self) -> Snapshot | None:
        """The current state."""
        if self.starting:
            return None
        return Snapshot(
            now=NOW,
            series=self.series,
            workers=self.workers,
            counters={"stream_gap_seconds": 1.5, "unobserved": 2.0, "store_rolled_back": self.rolled_back}
            | self.missed,
            incidents={},
            incidents_open=int(not self.silent),
            tracked=3,
            lag=0.1,
            probe_roundtrip=None,
            limits=[Limit("series", "metrics.max_series", 10, 7, 3), Limit("exceptions", None, None, None, 0)],
            schedules=self.schedules,
        )

    @property
    def tasks(self) -> TaskView:
        """The running tasks."""
        return MemoryTaskView(self.monitor, threading.Lock(), ManualClock(time=NOW), ())

    def queues(self) -> list[QueueStats]:
        """The queues of the last poll."""
        return (
            []
            if self.silent
            else [QueueStats("billing", 3, 1, 1, 8), QueueStats("celery", None, None, 1, 8), *self.more_queues]
        )

    def report(self, day: date, now: float) -> Summary:
        """A day of the store."""
        return DayReport(self.reader, "shop", UTC, paging=True).summary(day, now)

    @property
    def reader(self) -> Reader:
        """The current reader of the store."""
        return cast("Reader", TroubledReader(self))

    def sources(self) -> Sources:
        """The sources of the composition root."""
        return Sources(
            fleet="shop",
            clock=ManualClock(time=NOW),
            metrics=self.metrics,
            livez=lambda: self.live,
            readyz=lambda: self.ready,
            snapshot=self.snapshot,
            tasks=lambda: self.tasks,
            worker_details=lambda: self.details,
            queues=self.queues,
            reader=self.reader,
            outbox=self.store.outbox,
            silences=self.store.silences,
            report=self.report,
            report_part=self.html,
            channels=self.channels,
            space=lambda: self.space,
            retention=30 * 86_400.0,
            zone=UTC,
            links=self.links,
            notice=self.notice,
        )
