"""Writes a generated week to the store as the daemon would have written it.

The events pass through the same core, flush by flush, and the outbox is emptied as if a receiver had accepted all rows.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Final

import msgspec

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.cli.demo.application import Shop
from celery_monitor.cli.demo.shop.pace import DEPLOY, GATEWAY, WAREHOUSE
from celery_monitor.cli.demo.story import DAY, HOUR, MINUTE, PROBER, ErrorText, Event, Story
from celery_monitor.core.model import CounterName, Delivery, QueueStats, Silence
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.policy import limits_of
from celery_monitor.ports import Clock
from celery_monitor.settings import Settings

_RECORDED: Final = 987_840
"""A serial number for which every fault of the shop occurs, and that occurs in no other text."""
_PART: Final = 500
"""Events per message."""
_SENT_WITHIN: Final = 2.0
"""Seconds until a receiver had accepted a notification."""
_RESOLVED_AFTER: Final = 600.0
_BATCH: Final = 100
_NEWS_EVERY: Final = 30 * MINUTE
_FLUSH_EVERY: Final = 4 * HOUR
_SILENCED_BEFORE: Final = 20 * HOUR
_SILENCE_ENDS: Final = 3 * DAY


def write(settings: Settings, shop: Shop, clock: Clock, days: float) -> None:
    """Fill the configured, empty store with the ``days`` up to now."""
    store = open_store(settings.store.url_source(), retention=settings.store.retention, fingerprint_window=100)
    now = clock.now()
    try:
        shop.hurry(instant=True)
        writer = _Writer(store, Monitor(_limits(settings), store.start(), now - days * DAY))
        writer.write(Story(now, _Recorder(shop)), int(now - days * DAY), int(now), _silence(now))
        writer.finish(clock.now())
    finally:
        shop.hurry(instant=False)
        shop.break_when(tuple)
        store.stop()


def _silence(now: float) -> Silence:
    return Silence(
        id="demo",
        match=("shop.reports.conversion",),
        reason="divides by zero in empty hours; the new report comes with SHOP-482",
        starts_at=now - _SILENCED_BEFORE,
        ends_at=now + _SILENCE_ENDS,
        created_by="dana",
    )


def _limits(settings: Settings) -> Limits:
    """The daemon's limits, except that incidents resolve later: in the demo they resolve within seconds."""
    limits = limits_of(settings)
    return replace(
        limits,
        prober=PROBER,
        policy=replace(limits.policy, resolve_after=_RESOLVED_AFTER),
        schedules=[schedule for schedule in limits.schedules if not schedule.every],
        scheduler=None,
    )


class _Writer:
    """Feeds the core minute by minute. It commits rarely, or every half hour with notices, as a commit takes time."""

    def __init__(self, store: SqlStore, monitor: Monitor) -> None:
        self._store = store
        self._monitor = monitor
        self._now = 0.0
        self._encode = msgspec.json.Encoder().encode

    def write(self, story: Story, begin: int, end: int, silence: Silence) -> None:
        """Write all minutes, the queue lengths, and the silence at its time."""
        monitor, silenced, news = self._monitor, False, False
        monitor.connected(acknowledges=False)
        monitor.count(CounterName.STARTS, 1)
        for minute, events in story.minutes(begin, end):
            if not silenced and minute > silence.starts_at:
                self._store.silences.add(silence)
                monitor.silence([silence])
                silenced = True
            self._now = minute
            monitor.receive(self._messages(events), minute)
            monitor.count(CounterName.UPTIME, MINUTE, flush=False)
            monitor.tick(minute)
            monitor.polled([QueueStats(name, length, 1, 1, 2) for name, length in story.lengths().items()])
            notices = [notice for notice in monitor.take_notices() if notice.verdict.changed]
            news |= bool(notices or monitor.take_episode_notices())
            if minute % (_NEWS_EVERY if news else _FLUSH_EVERY) == 0:
                self._flush(minute)
                news = False

    def finish(self, now: float) -> None:
        """Write the uptime since the last minute."""
        self._monitor.count(CounterName.UPTIME, max(0.0, now - self._now))
        self._monitor.tick(now)
        self._flush(now)

    def _messages(self, events: Sequence[Event]) -> list[Delivery]:
        return [Delivery(self._encode(events[at : at + _PART])) for at in range(0, len(events), _PART)]

    def _flush(self, now: float) -> None:
        changes = self._monitor.take(now, force=True)
        if changes is None:
            return
        self._store.commit(changes)
        if not changes.outbox:
            return
        incidents = {incident.key: incident for incident in changes.incidents}
        outbox = self._store.outbox
        while items := outbox.due(now + DAY, _BATCH):
            for item in items:
                incident = incidents.get(item.key) or outbox.incident(item.key)
                if incident is None:
                    raise LookupError(f"{item.key} is to be sent, and there is no such incident")
                outbox.delivered(item, incident.opened_at + _SENT_WITHIN, incident.count, item.key)


class _Recorder:
    """Records the texts of failures by running the task once for each fault with Celery's own code."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._app = shop.app()
        self._recorded = cache(self._run)

    def __call__(self, task: str, broken: str, serial: int) -> ErrorText:
        """See story.Record."""
        exception, traceback = self._recorded(task, broken)
        return exception.replace(str(_RECORDED), str(serial)), traceback.replace(str(_RECORDED), str(serial))

    def _run(self, task: str, broken: str) -> ErrorText:
        self._shop.break_when(lambda: [part for part in (DEPLOY, GATEWAY, WAREHOUSE) if part == broken])
        celery_task = self._app.tasks[task]
        result = celery_task.apply((_RECORDED,), retries=celery_task.max_retries)
        return repr(result.result), result.traceback or ""
