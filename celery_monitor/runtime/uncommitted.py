"""Sends pages from memory while the store cannot be written.

Normally a page is sent from its outbox row, which is committed together with the count that caused it. While the store
cannot be written (a full or read-only disk, a quota, a hanging database) there is no row, but people must be paged
nevertheless. So the pump offers the pages that wait to be committed; after GRACE_PERIOD the notifier of the channel
gets them from here, before the rows of the store.

The rows remain authoritative. When the store is available again, the page gets its row; if the row contains no more
failures than were already sent, it is recorded as delivered. If the process is killed before that, the page is sent
again, and the receiver deduplicates it by its key. Only triggers are sent this way, once each: refreshes and resolves
wait for the store.
"""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from celery_monitor.core.model import REFRESH, Action, Changes, Incident, OutboxItem, OutboxRequest
from celery_monitor.errors import StoreUnavailableError
from celery_monitor.ports import Clock, Outbox, Sent

GRACE_PERIOD: Final = 1.0
"""Seconds that a page waits for the store before it is sent from memory."""
REMEMBERED: Final = 2_000
"""Maximum number of pages sent from memory that are remembered until their rows appear."""

_log = structlog.get_logger()


@dataclass(slots=True)
class _PendingPage:
    item: OutboxItem
    incident: Incident
    done: bool = False
    """It was sent or finally rejected."""


class UncommittedPages:
    """The outbox as the notifier of one channel sees it. ``offer`` and ``written`` belong to the pump's thread."""

    def __init__(self, outbox: Outbox, clock: Clock, channel: str) -> None:
        self._outbox = outbox
        self._channel = channel
        self._clock = clock
        self._lock = threading.Lock()
        self._pages: dict[str, _PendingPage] = {}
        self._sent: OrderedDict[str, Sent] = OrderedDict()
        """Key → what was sent, until the row is recorded."""
        self._expedite: str | None = None
        """The channel whose rows still have to be expedited, because the store was unavailable; else None."""
        self._unreachable = False
        """The last read of the store failed."""
        self._last_id = 0

    def offer(self, waiting: Iterable[tuple[OutboxRequest, Incident]]) -> bool:
        """Take the pages that wait to be committed; whether one of them is new."""
        now, new = self._clock.now(), False
        with self._lock:
            for entry, incident in waiting:
                if entry.channel != self._channel or entry.action is not Action.TRIGGER or entry.due_at > now:
                    continue
                page = self._pages.get(entry.key)
                if page is not None:
                    page.incident = incident
                elif entry.key not in self._sent:
                    self._pages[entry.key] = _PendingPage(self._item(entry, now), incident)
                    new = True
        return new

    def written(self, changes: Changes) -> None:
        """A flush was committed, so its pages have rows now."""
        with self._lock:
            for entry in changes.outbox:
                if entry.channel == self._channel and entry.action is Action.TRIGGER:
                    self._pages.pop(entry.key, None)

    def due(self, now: float, limit: int) -> list[OutboxItem]:
        """As ``Outbox.due``, after the pages in memory. Raises StoreUnavailableError only if there are none.

        A row may be visible before ``written`` is called for it: as long as its page is in memory, only the page is
        returned.
        """
        with self._lock:
            unsent = {page.item.key: page.item for page in self._pages.values() if not page.done}
        pages = [item for item in unsent.values() if item.due_at <= now]
        if pages and self._unreachable:
            return pages  # do not delay them by another timeout of the store
        try:
            rows = self._rows(now, limit)
        except StoreUnavailableError:
            self._unreachable = True
            if not pages:
                raise
            return pages
        self._unreachable = False
        return pages + [row for row in rows if row.key not in unsent or row.channel != self._channel]

    def waiting(self, channel: str) -> bool:
        """As ``Outbox.waiting``; also True while a page in memory is unsent or rows still have to be expedited."""
        with self._lock:
            unsent = any(not page.done for page in self._pages.values())
        return unsent or self._expedite is not None or self._outbox.waiting(channel)

    def incident(self, key: str) -> Incident | None:
        """As ``Outbox.incident``; the uncommitted state if its page waits in memory."""
        with self._lock:
            page = self._pages.get(key)
        return self._outbox.incident(key) if page is None or page.done else page.incident

    def delivered(self, item: OutboxItem, now: float, count: int | None, receipt: str | None = None) -> None:
        """As ``Outbox.delivered``."""
        if item.id > 0:
            self._outbox.delivered(item, now, count, receipt)
            with self._lock:
                self._sent.pop(item.key, None)
            return
        self._end(item)
        with self._lock:
            self._sent[item.key] = Sent(count or 0, receipt)
            while len(self._sent) > REMEMBERED:
                self._sent.popitem(last=False)
        _log.warning("Sent from memory because the store is not writable", key=item.key)

    def retry(self, item: OutboxItem, due_at: float, error: str) -> None:
        """As ``Outbox.retry``."""
        if item.id > 0:
            self._outbox.retry(item, due_at, error)
            return
        with self._lock:
            page = self._pages.get(item.key)
            if page is not None:
                page.item = replace(page.item, attempts=item.attempts + 1, due_at=due_at, error=error)

    def expedite(self, channel: str, now: float) -> None:
        """As ``Outbox.expedite``; if the store is unavailable its rows are expedited later, and pages in memory now."""
        with self._lock:
            for page in self._pages.values():
                page.item = replace(page.item, due_at=min(page.item.due_at, now))
        self._expedite = channel
        self._expedite_rows(now)

    def dead(self, item: OutboxItem, now: float, error: str) -> None:
        """As ``Outbox.dead``; for a page from memory, its row will be rejected again and then keeps the error."""
        if item.id > 0:
            self._outbox.dead(item, now, error)
        else:
            self._end(item)

    def uncertain(self, item: OutboxItem, now: float, error: str) -> None:
        """As ``Outbox.uncertain``."""
        if item.id > 0:
            self._outbox.uncertain(item, now, error)
        else:
            self._end(item)

    def _expedite_rows(self, now: float) -> None:
        if self._expedite is not None:
            with contextlib.suppress(StoreUnavailableError):
                self._outbox.expedite(self._expedite, now)
                self._expedite = None

    def _rows(self, now: float, limit: int) -> list[OutboxItem]:
        """Due rows of the store, except those already sent from memory, which are recorded as delivered."""
        self._expedite_rows(now)
        while True:
            rows = self._outbox.due(now, limit)
            known_ids = {row.id for row in rows if self._is_known(row)}
            # Rows behind them on their routes become due only once they are recorded.
            if not known_ids or not all(self._settle(row, now) for row in rows if row.id in known_ids):
                return [self._after(row) for row in rows if row.id not in known_ids]

    def _is_known(self, row: OutboxItem) -> bool:
        if row.channel != self._channel or row.action is not Action.TRIGGER:
            return False
        with self._lock:
            sent = self._sent.get(row.key)
        if sent is None:
            return False
        incident = self._outbox.incident(row.key)
        return incident is not None and incident.count <= sent.count

    def _after(self, row: OutboxItem) -> OutboxItem:
        """If an earlier state of the row was sent from memory, make it an update of that message."""
        with self._lock:
            sent = self._sent.get(row.key)
        if sent is None or sent.receipt is None or row.action is not Action.TRIGGER or row.channel != self._channel:
            return row
        priority = max(row.priority, 0) + REFRESH if row.opens else row.priority
        return replace(row, receipt=sent.receipt, priority=priority)

    def _settle(self, row: OutboxItem, now: float) -> bool:
        """Record it as delivered; False if the store is unavailable again, to be retried in the next turn."""
        with self._lock:
            sent = self._sent.get(row.key, Sent(0))
        try:
            self.delivered(row, now, sent.count, sent.receipt)
        except StoreUnavailableError:
            return False
        return True

    def _end(self, item: OutboxItem) -> None:
        with self._lock:
            page = self._pages.get(item.key)
            if page is not None:
                page.done = True

    def _item(self, entry: OutboxRequest, now: float) -> OutboxItem:
        self._last_id -= 1
        return OutboxItem(
            self._last_id, entry.channel, entry.key, entry.action, entry.route, 1, 0, now, entry.due_at, "pending"
        )
