"""Sites that no demonstration shows: an empty one, one full of long and hostile names, and pages without access."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from celery_monitor.adapters.store import open_store
from celery_monitor.adapters.web import Site, WebServer
from celery_monitor.core.model import (
    Changes,
    Condition,
    Delivery,
    ErrorDelta,
    Restored,
    ScheduleState,
    Silence,
    Worker,
    WorkerDetail,
)
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.errors import StoreUnavailableError
from celery_monitor.ports import HealthReport, OtherFleet, StoreSpace
from celery_monitor.settings.secret import Secret
from celery_monitor.settings.web import WebSettings
from tests.adapters.web.conftest import served
from tests.adapters.web.fleet import BUCKET, NOW, Fleet, bucket, channels, failure, group, incident, ran, usual, worker

LONG = "shop." + "a_very_long_name_of_a_task_without_any_place_to_break_it" * 3
HOSTILE = (
    LONG,
    "<script>alert(1)</script>",
    "\u202egnp.ksat\u202c",
    "shop/каталог/обновить?x=1#y",
    "..",
    "タスク.決済.返金処理",
)
UNICODE_ID = "заказ/4711?#%"
"""An id that somebody chose."""
TEXT = "no such card " * 40


@contextmanager
def corners(directory: Path) -> Iterator[dict[str, str]]:
    """Name → URL, during the block."""
    with ExitStack() as running:
        stores = {name: open_store(f"sqlite:///{directory / name}.db", retention=2_592_000.0, fingerprint_window=100)
                  for name in ("empty", "hostile")}  # fmt: skip
        for store in stores.values():
            store.start()
            running.callback(store.stop)
        empty, hostile = Fleet(stores["empty"]), Fleet(stores["hostile"])
        _empty(empty)
        _hostile(hostile)
        broken = Fleet(stores["empty"], trouble=StoreUnavailableError("database is locked"))
        others = [OtherFleet(name, "https://other.example.com") for name in ("mail", "a" * 60)]

        def site(settings: WebSettings, fleet: Fleet) -> str:
            sources = replace(fleet.sources(), fleets=lambda: others)
            server = WebServer(Site(settings, sources), host="127.0.0.1", port=0)
            return running.enter_context(served(server)).url

        doors = {"basic": {"username": "ops", "password": Secret("p")},
                 "header": {"auth_proxy": {"addresses": ["127.0.0.1/32"]}, "viewers": ["ops"]}}  # fmt: skip
        open_to_all = WebSettings()
        yield {
            "empty": f"{site(open_to_all, empty)}/",
            "hostile": f"{site(open_to_all, hostile)}/",
            "broken": f"{site(open_to_all, broken)}/",
            **{name: f"{site(WebSettings.model_validate(how), empty)}/" for name, how in doors.items()},
        }


def _empty(fleet: Fleet) -> None:
    fleet.monitor, fleet.workers, fleet.details = Monitor(Limits(), Restored(), NOW), [], {}
    fleet.schedules, fleet.silent = (), True


def _hostile(fleet: Fleet) -> None:
    store = fleet.store
    store.commit(usual())
    store.commit(
        Changes(
            now=NOW,
            sequence=2,
            buckets=[bucket(name, LONG, started=900_000_000, succeeded=812_345_678, failed=1) for name in HOSTILE],
            groups=[group(name, f"{number:016x}", "x" * 120) for number, name in enumerate(HOSTILE)],
            errors=[ErrorDelta(BUCKET, f"{number:016x}", 812_345_678) for number in range(len(HOSTILE))],
            failures=[
                failure(
                    f"{name}-1", name=name, queue=LONG, exception="x" * 120, message=TEXT, group=f"{number:016x}",
                    hostname=f"celery@{LONG}", traceback=TEXT + "\n" + "y" * 900, args="(1, 2)" * 100,
                )
                for number, name in enumerate(HOSTILE)
            ],
            incidents=[
                incident(f"{name}/h", task=name, message=TEXT, first_at=NOW - 50, exceptions={"x" * 120: 1, TEXT: 2},
                         workers={f"celery@{LONG}": 7}, queues={LONG: 9}, last_uuid=f"{name}-1", count=812_345_678,
                         traceback=TEXT)
                for name in HOSTILE
            ]
            + [incident("condition/h", task="", subject=LONG, condition=Condition.NO_WORKER, exceptions={},
                        message=f"{LONG} has no worker", first_at=NOW - 900, queues={LONG: 9}, count=9)],
        )
    )  # fmt: skip
    store.silences.add(Silence("s1", (LONG, "<b>*"), TEXT, NOW - 9, NOW + 7200, (LONG,), "someone@" + "x" * 90))
    monitor = Monitor(Limits(name_wait=0.0, capture_arguments=True), Restored(), NOW)
    host = f"celery@{LONG}"
    events = [
        each | {"hostname": host, "queue": LONG}
        for number, name in enumerate((*HOSTILE, "shop.charge"))
        for each in ran(f"{UNICODE_ID}{number}", name, -3600 * number - 90, args=f"('{TEXT}',)", retries=number,
                        root_id=f"{UNICODE_ID}0", parent_id=f"{UNICODE_ID}0")
    ]  # fmt: skip
    monitor.receive([Delivery(json.dumps(each).encode()) for each in events], NOW)
    fleet.monitor = monitor
    fleet.workers = [
        Worker(host, True, NOW - 2, 812, 812_345_678, 7, "py-celery", "5.6.3", "Linux", unobserved=12_345_678,
               clock_offset=-7200.0),
        worker("celery@gone", up=False),
    ]  # fmt: skip
    fleet.details = {
        host: WorkerDetail((LONG, *HOSTILE), "celery.concurrency.prefork:TaskPool", 812, 3248, 8.1e6, 90 << 40, NOW - 3,
                           (812.345, 700.0, 1234.5))
    }  # fmt: skip
    fleet.schedules = tuple(
        ScheduleState(name, "0 3 * * * America/Argentina/ComodRivadavia", name, NOW + 60, 0.0, NOW - 90_000, 812)
        for name in HOSTILE
    )
    fleet.ready = HealthReport({"broker": f"connection refused: {TEXT}", "store": None}, {"queue": TEXT})
    fleet.space, fleet.rolled_back = StoreSpace(short=True), 1.0
    fleet.channels, fleet.notice = channels("pagerduty"), "Staging " + "x" * 200
    fleet.links = {"Logs": "https://logs.example.com/?q={task_id}"}
