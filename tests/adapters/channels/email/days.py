"""Fixed days for the tests: a quiet, a normal, a terrible and an unmonitored one."""

import datetime as dt
import random
from collections.abc import Mapping
from zoneinfo import ZoneInfo

from celery_monitor.core.model import (
    BUCKET_SECONDS,
    FAILED,
    RETRIED,
    SUCCEEDED,
    BucketRow,
    Failure,
    GroupRow,
    Incident,
    IncidentRow,
    IncidentState,
    Reason,
    Severity,
)
from celery_monitor.core.summarize import DAYS_BEFORE, day_bounds, summarize
from celery_monitor.core.summary import Summary
from tests.builders import sent
from tests.daily_rows import day_rows

DATE = dt.date(2026, 11, 22)
ZONE = ZoneInfo("Europe/Berlin")
START, END = day_bounds(DATE, ZONE)
NOW = END + 8 * 3600.0
WATCHED = {"uptime_seconds": float(END - START), "starts": 0.0}

TASKS = (
    "shop.orders.place",
    "shop.billing.charge",
    "shop.mail.send_receipt",
    "shop.search.reindex_product",
    "shop.stock.reserve",
    "shop.images.resize",
)
TRACEBACK = """Traceback (most recent call last):
  File "/usr/lib/python3.12/site-packages/celery/app/trace.py", line 453, in trace_task
    R = retval = fun(*args, **kwargs)
                 ^^^^^^^^^^^^^^^^^^^^
  File "/srv/shop/billing/tasks.py", line 88, in charge
    answer = gateway.charge(order.card, order.total, idempotency_key=order.id)
  File "/usr/lib/python3.12/site-packages/requests/sessions.py", line 589, in request
    resp = self.send(prep, **send_kwargs)
  File "/usr/lib/python3.12/site-packages/requests/adapters.py", line 713, in send
    raise ReadTimeout(e, request=request)
requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='api.pay.example', port=443): Read timed out.
"""
HOSTILE = (
    "<script>alert('pwned')</script><b>shop</b>",
    "shop.\u202edlrow olleh\u202c.evil",
    "متجر.الطلبات.إرسال_الفاتورة",
    "חנות.הזמנות.שליחה",
    "🔥🧨👨‍👩‍👧‍👦.tasks.py",
    "shop\r\nBcc: everybody@example.org\r\n\r\n<img src=x onerror=alert(1)>",
    "a" * 1000,
    "https://evil.example/login?next=shop.billing.charge",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘.task",
    "{{ 7*7 }}{% for x in y %}${jndi:ldap://x}",
    "\ud800half.a.character\x00\x1b[31m",
    "&amp;&lt;&quot;'\"><td></table>",
)


def bucket(start: int, name: str, *, succeeded: int = 0, failed: int = 0, retried: int = 0) -> BucketRow:
    """A stored bucket of the default queue."""
    counts = [0] * 8
    counts[SUCCEEDED], counts[FAILED], counts[RETRIED] = succeeded, failed, retried
    return BucketRow(start, name, "celery", tuple(counts), 0.0, 0)


def group(
    name: str,
    count: int,
    *,
    exception: str = "requests.exceptions.ReadTimeout",
    first_at: float = START - 86_400.0,
    message: str = "Read timed out. (read timeout=10)",
    traceback: str = TRACEBACK,
    frame: str = "srv/shop/billing/tasks.py:charge",
) -> GroupRow:
    """An error group with a sample."""
    identity = f"{abs(hash((name, exception))) % 16**8:08x}"
    sample = Failure(
        uuid=f"3f0c9c52-0000-4000-8000-{count:012d}",
        name=name,
        queue="celery",
        hostname="celery@worker-1",
        at=START + 40_000.0,
        exception=exception.rpartition(".")[2],
        message=message,
        traceback=traceback,
        group=identity,
        incident=None,
        reason="opened",
    )
    return GroupRow(identity, name, exception, frame, first_at, END + 100.0, count, sample)


def incident(name: str, hour: int, *, delivered: bool = True, error: str | None = None, count: int = 4) -> IncidentRow:
    """An incident that was opened in that hour of the day."""
    at = START + hour * 3600.0
    key = f"{name}/2026-11-22T{hour:02d}+01:00"
    value = Incident(
        key=key,
        fleet="shop",
        task=name,
        rule="",
        route="",
        severity=Severity.ERROR,
        state=IncidentState.OPEN,
        reason=Reason.OPENED,
        hour=key.rpartition("/")[2],
        opened_at=at + 1,
        first_at=at,
        last_at=at + 600,
        count=count,
        threshold=1,
    )
    return sent(value, at + 2 if delivered else None, count if delivered else 0, error)


def traffic(seed: int, *, level: float = 1.0) -> list[BucketRow]:
    """Eight days of tasks that succeed, busier at noon, with a few retries."""
    dice = random.Random(seed)
    rows = []
    for start in range(START - DAYS_BEFORE * 86_400, END, BUCKET_SECONDS):
        hour = (start - START) // 3600 % 24
        busy = level * (0.15 + max(0.0, 1 - abs(hour - 13) / 9))
        rows += [
            bucket(
                start,
                name,
                succeeded=round(busy * (130 - 20 * rank) * dice.uniform(0.8, 1.2)),
                retried=dice.random() < 0.1,
            )
            for rank, name in enumerate(TASKS)
        ]
    return rows


def failures(seed: int, name: str, number: int, hours: tuple[int, int], *, days_back: int = 0) -> list[BucketRow]:
    """That many failures of a task, somewhere between two hours of a day."""
    dice = random.Random(seed)
    starts = [
        START - days_back * 86_400 + dice.randrange(hours[0] * 4, hours[1] * 4) * BUCKET_SECONDS for _ in range(number)
    ]
    return [bucket(start, name, failed=1) for start in starts]


def make(
    buckets: list[BucketRow],
    groups: list[GroupRow] | None = None,
    incidents: list[IncidentRow] | None = None,
    *,
    counters: Mapping[str, float] = WATCHED,
    now: float = NOW,
    fleet: str = "shop",
    counted_since: float = 0.0,
) -> Summary:
    """The summary of DATE."""
    return summarize(
        date=DATE,
        zone=ZONE,
        fleet=fleet,
        rows=day_rows(buckets, DATE, ZONE),
        groups=groups or [],
        incidents=incidents or [],
        counters=({}, counters),
        now=now,
        counted_since=counted_since,
    )


def quiet() -> Summary:
    """Nothing failed, and the monitor saw the whole day."""
    return make(traffic(1))


def normal() -> Summary:
    """37 failures in 3 tasks, one of the errors new."""
    buckets = traffic(2)
    for back in range(1, 8):
        buckets += failures(back, "shop.billing.charge", back % 3 + 1, (8, 20), days_back=back)
        buckets += failures(back + 50, "shop.search.reindex_product", 5, (0, 24), days_back=back)
    buckets += failures(20, "shop.billing.charge", 25, (3, 18))
    buckets += failures(21, "shop.search.reindex_product", 8, (1, 23))
    buckets += failures(22, "shop.images.resize", 4, (13, 15))
    groups = [
        group("shop.billing.charge", 22),
        group(
            "shop.images.resize",
            4,
            exception="billiard.exceptions.WorkerLostError",
            first_at=START + 13.5 * 3600,
            message="Worker exited prematurely: signal 9 (SIGKILL) Job: 4711.",
            traceback="",
            frame="",
        ),
        group(
            "shop.search.reindex_product",
            8,
            exception="elastic_transport.ConnectionError",
            message="[Errno 111] refused",
        ),
        group("shop.billing.charge", 3, exception="shop.errors.CardRefused", message="do not honour", traceback=""),
    ]
    incidents = [incident("shop.billing.charge", hour) for hour in (3, 7, 11)] + [incident("shop.images.resize", 13)]
    return make(buckets, groups, incidents, counters={**WATCHED, "starts": 1.0, "uptime_seconds": END - START - 14.0})


def terrible() -> Summary:
    """400 failing tasks with hostile names; the monitor was down, pages are undelivered, and the stream had gaps."""
    dice = random.Random(3)
    names = [
        *HOSTILE,
        *(f"shop.{dice.choice(('billing', 'mail', 'stock'))}.task_number_{n}_of_a_bad_day" for n in range(388)),
    ]
    buckets, groups = traffic(3), []
    for rank, name in enumerate(names):
        number = max(1, round(9_000 / (rank + 1)))
        hours = (9, 17) if rank % 3 else (0, 24)
        buckets += [
            bucket(row.start, name, succeeded=dice.randrange(4), failed=1 + number // 20)
            for row in failures(rank, name, min(number, 20), hours)
        ]
        groups.append(
            group(
                name,
                number,
                exception=f"shop.errors.{HOSTILE[rank % len(HOSTILE)]}" if rank % 5 == 0 else "OperationalError",
                first_at=START + 5.0 if rank % 2 else START - 5.0,
                message=HOSTILE[(rank + 5) % len(HOSTILE)],
                traceback=TRACEBACK.replace("answer", HOSTILE[(rank + 3) % len(HOSTILE)]) if rank % 4 else "",
            )
        )
    incidents = [
        incident(name, rank % 24, delivered=rank > 30, error="503 from the receiver; trying again")
        for rank, name in enumerate(names[:120])
    ]
    counters = {
        "uptime_seconds": 21.2 * 3600,
        "starts": 9.0,
        "stream_gap_seconds": 754.0,
        "unobserved": 48.0,
        "too_old_failures": 5.0,
        "unnamed_failures": 12.0,
    }
    return make(buckets, groups, incidents, counters=counters)


def unknown() -> Summary:
    """The monitor did not run."""
    return make([row for row in traffic(4) if row.start < START], counters={})


DAYS = {"quiet": quiet, "normal": normal, "terrible": terrible, "unknown": unknown}
