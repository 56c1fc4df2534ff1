"""Generates a week of the shop as events of its workers. Equal ``now`` and seed give the same week.

Only the runs are generated: the texts of failures are recorded by running the shop's own code.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from celery_monitor.cli.demo.application import DEFAULT, IMAGES, MAIL, NIGHTLY, PAYMENTS
from celery_monitor.cli.demo.shop.pace import DEPLOY, GATEWAY, WAREHOUSE

MINUTE: Final = 60
HOUR: Final = 3_600
DAY: Final = 86_400
PROBER: Final = 1
"""The instance ID in the week's probes."""
Event = dict[str, Any]
ErrorText = tuple[str, str]
"""An exception's ``repr`` and its traceback."""
Record = Callable[[str, str, int], ErrorText]
"""(task, broken part, serial number) → texts of the failure."""

_BY_HOUR: Final = (2, 1, 1, 1, 1, 2, 4, 7, 10, 12, 13, 13, 12, 11, 12, 12, 11, 11, 12, 13, 12, 9, 6, 3)
"""Relative load of the hours of a day (UTC)."""
_WEEKEND: Final = 0.7
_NIGHT_RUN: Final = 2 * HOUR + 30 * MINUTE
_NOT_RUN: Final = 3
"""How many days ago the nightly report was not sent."""
_RETRY_AFTER: Final = 2.0
CALM: Final = 20 * MINUTE
"""Seconds without failures before the end, in which all incidents resolve. The live fleet would otherwise resolve them,
and this would be sent.
"""
_CAMPAIGN_DAYS_AGO: Final = 3
_CAMPAIGN: Final = 18 * HOUR
_CAMPAIGN_LASTS: Final = 4 * HOUR
_UPLOADS: Final = 2.0
"""Images per order in the middle of a campaign."""
_LONGEST_WAIT: Final = 240.0
"""Seconds that images wait in the middle of a campaign."""


@dataclass(frozen=True, slots=True)
class _ShopTask:
    """A task: its queue, its runtime, and how often it normally fails or is retried."""

    name: str
    queue: str
    runtime: float
    failing: float = 0.0
    retried: float = 0.0

    @property
    def worker(self) -> str:
        return f"celery@{self.queue}-1"


_PLACE: Final = _ShopTask("shop.orders.place", DEFAULT, 0.02, failing=0.001)
_CHARGE: Final = _ShopTask("shop.payments.charge", PAYMENTS, 0.12, failing=0.012)
_RESERVE: Final = _ShopTask("shop.stock.reserve", DEFAULT, 0.03)
_CONFIRM: Final = _ShopTask("shop.mail.confirmation", MAIL, 0.05, failing=0.003, retried=0.05)
_NIGHTLY: Final = _ShopTask(NIGHTLY, DEFAULT, 2.4)
_SYNC: Final = _ShopTask("shop.stock.sync", DEFAULT, 0.04)
_CONVERSION: Final = _ShopTask("shop.reports.conversion", DEFAULT, 0.03, failing=0.07)
_OTHERS: Final = (
    (_ShopTask("shop.catalog.index", DEFAULT, 0.02), 0.5),
    (_SYNC, 0.3),
    (_ShopTask("shop.catalog.expire_cart", DEFAULT, 0.01), 0.15),
    (_CONVERSION, 0.05),
    (_ShopTask("shop.images.resize", IMAGES, 0.55), 0.1),
    (_ShopTask("shop.payments.refund", PAYMENTS, 0.2), 0.05),
)
"""Other tasks, and the number of each per order."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A part of the shop that is broken for some time."""

    part: str
    kind: _ShopTask
    days_ago: int
    begins: float
    """Seconds after midnight, UTC."""
    lasts: float
    chance: float
    """Fraction of the runs that fail."""


_TROUBLES: Final = (
    _Trouble(GATEWAY, _CHARGE, 5, 14 * HOUR + 600, 75 * MINUTE, 0.5),
    _Trouble(WAREHOUSE, _SYNC, 2, 10 * HOUR + 300, 45 * MINUTE, 1.0),
    _Trouble(DEPLOY, _PLACE, 1, 16 * HOUR, 40 * MINUTE, 0.33),
)


class Story:
    """``orders``: approximate number per hour at noon."""

    def __init__(self, now: float, record: Record, *, orders: float = 120, seed: int = 7) -> None:
        self._midnight = int(now) // DAY * DAY
        self._calm_from = now - CALM
        self._record = record
        self._per_minute = orders / max(_BY_HOUR) / 60
        self._chance = random.Random(seed)  # noqa: S311  # no secret
        self._serial = 40_000
        self._pending: list[Event] = []
        self._waiting: dict[str, str] = {}
        """Task ID → queue, for tasks that were sent but have not started."""

    def lengths(self) -> dict[str, int]:
        """Queue → number of waiting tasks after the last minute."""
        lengths = Counter(self._waiting.values())
        return {queue: lengths[queue] for queue in (DEFAULT, IMAGES, MAIL, PAYMENTS)}

    def minutes(self, begin: int, end: int) -> Iterator[tuple[int, Sequence[Event]]]:
        """Yields the end of each minute and its events, in order."""
        for minute in range(begin // MINUTE * MINUTE, end, MINUTE):
            self._ordinary(minute)
            if minute % DAY == _NIGHT_RUN and (self._midnight - minute) // DAY + 1 != _NOT_RUN:
                self._run(_NIGHTLY, minute + 0.02)
            until = minute + MINUTE
            self._pending.append(
                {"type": "monitor-probe", "timestamp": until - 0.1, "probe_instance": PROBER, "probe_number": minute}
            )
            self._pending.sort(key=lambda event: event["timestamp"])  # it is nearly in order
            past = sum(event["timestamp"] <= until for event in self._pending)
            past_events, self._pending = self._pending[:past], self._pending[past:]
            self._move(past_events)
            yield until, past_events

    def _move(self, events: Sequence[Event]) -> None:
        for event in events:
            if event["type"] == "task-sent":
                self._waiting[event["uuid"]] = event["queue"]
            elif event["type"] == "task-started":
                self._waiting.pop(event["uuid"], None)

    def _wait(self, kind: _ShopTask, at: float) -> float:
        """Seconds in the queue."""
        ordinary = self._chance.expovariate(25)
        if kind.queue != IMAGES:
            return ordinary
        return ordinary + _LONGEST_WAIT * self._campaign(at)

    def _campaign(self, at: float) -> float:
        """The intensity of the campaign, from 0 to 1."""
        into = at - (self._midnight - _CAMPAIGN_DAYS_AGO * DAY + _CAMPAIGN)
        return max(0.0, 1 - abs(2 * into / _CAMPAIGN_LASTS - 1))

    def _ordinary(self, minute: int) -> None:
        moment = datetime.fromtimestamp(minute, UTC)
        busy = _BY_HOUR[moment.hour] * (_WEEKEND if moment.isoweekday() > 5 else 1.0)  # noqa: PLR2004 - Friday
        orders = busy * self._per_minute
        for _ in range(self._many(orders)):
            self._order(minute + self._chance.random() * MINUTE)
        for kind, share in _OTHERS:
            uploads = _UPLOADS * self._campaign(minute) if kind.queue == IMAGES else 0.0
            for _ in range(self._many(orders * (share + uploads))):
                self._run(kind, minute + self._chance.random() * MINUTE)

    def _many(self, mean: float) -> int:
        """A random number of events, ``mean`` on average."""
        return max(0, round(self._chance.gauss(mean, mean**0.5)))

    def _order(self, at: float) -> None:
        placed = self._run(_PLACE, at)
        if placed is None:
            return
        root, at = placed
        self._run(_RESERVE, at, root=root, parent=root)
        charged = self._run(_CHARGE, at, root=root, parent=root)
        if charged is not None:
            self._run(_CONFIRM, charged[1], root=root, parent=charged[0])

    def _run(
        self, kind: _ShopTask, at: float, *, root: str = "", parent: str | None = None
    ) -> tuple[str, float] | None:
        """Run one task. Returns its ID and end time; None if it failed."""
        self._serial += 1
        uuid = str(UUID(int=self._chance.getrandbits(128)))
        of_chain = {"root_id": root or uuid, "parent_id": parent}
        broken = self._broken(kind, at)
        failed = self._chance.random() < (kind.failing if broken is None else broken.chance) and at < self._calm_from
        if self._chance.random() < kind.retried:
            at = self._attempt(kind, uuid, at, of_chain, "task-retried", "") + _RETRY_AFTER
        end = self._attempt(
            kind, uuid, at, of_chain, "task-failed" if failed else "task-succeeded", broken.part if broken else ""
        )
        return None if failed else (uuid, end)

    def _attempt(  # noqa: PLR0917 - in the order of an event
        self, kind: _ShopTask, uuid: str, at: float, of_chain: Event, outcome: str, broken: str
    ) -> float:
        """Add the events of one run. Returns its end time."""
        chance, serial, add = self._chance, self._serial, self._pending.append
        fields = {"uuid": uuid, "name": kind.name, "args": f"({serial},)", "kwargs": "{}", **of_chain}
        received = at + 0.002 + chance.random() * 0.004
        started = received + self._wait(kind, at)
        runtime = kind.runtime * (0.6 + 0.8 * chance.random())
        add({"type": "task-sent", "timestamp": at, "hostname": "gen1@web-1", "queue": kind.queue, **fields})
        add({"type": "task-received", "timestamp": received, "hostname": kind.worker, **fields})
        add({"type": "task-started", "timestamp": started, "hostname": kind.worker, "uuid": uuid})
        end = {"type": outcome, "timestamp": started + runtime, "hostname": kind.worker, "uuid": uuid}
        if outcome == "task-succeeded":
            end |= {"runtime": runtime, "result": "None"}
        else:
            end["exception"], end["traceback"] = self._record(kind.name, broken, serial)
        add(end)
        return started + runtime

    def _broken(self, kind: _ShopTask, at: float) -> _Trouble | None:
        for trouble in _TROUBLES:
            begin = self._midnight - trouble.days_ago * DAY + trouble.begins
            if trouble.kind is kind and begin <= at < begin + trouble.lasts:
                return trouble
        return None
