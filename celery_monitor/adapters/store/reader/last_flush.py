"""The monitor's state as of the last flush: unfinished tasks, workers, starts of tasks, and its own counters."""

import math
from typing import Final

from sqlalchemy import select

from celery_monitor.adapters.store import encode, restore, schema, tracked_journal
from celery_monitor.adapters.store.reader.base import StoreQueries
from celery_monitor.core.model import TaskRef, TaskStarts, Worker

_WORKER: Final = [schema.workers.c[name] for name in encode.WORKER]


class LastFlushQueries(StoreQueries):
    """The state of the last flush."""

    def tracked(self, limit: int, *, uuid: str | None = None) -> list[tuple[str, TaskRef]]:
        """See Reader."""
        table = schema.tracked
        with self._database.read() as connection:
            changes = tracked_journal.newest_changes(connection)
            if uuid is None:
                query = select(table).order_by(table.c.seen).limit(limit + len(changes))
            else:
                changes = {key: ref for key, ref in changes.items() if key[0] == uuid}
                query = select(table).where(table.c.uuid == self._database.text(uuid))
            found = tracked_journal.applied(restore.tracked(connection, query), changes)
            return sorted(found, key=lambda each: each[1].seen_minute)[:limit]

    def workers(self) -> list[Worker]:
        """See Reader. Ordered by hostname."""
        with self._database.read() as connection:
            return [Worker(*row) for row in connection.execute(select(*_WORKER).order_by(schema.workers.c.hostname))]

    def starts(self) -> list[TaskStarts]:
        """See Reader."""
        with self._database.read() as connection:
            return restore.task_starts(connection)

    def counters(self, at: float) -> dict[str, float]:
        """See Reader. One set is stored per quarter of an hour, because local days begin at one in every time zone."""
        with self._database.read() as connection:
            return restore.newest_counters(connection) if at == math.inf else restore.counters(connection, at)
