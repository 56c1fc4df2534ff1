"""Deletes expired data in portions, so that a flush never waits long."""

from typing import Any, Final

from sqlalchemy import ColumnElement, Table, and_, delete, exists, or_, select, tuple_

from celery_monitor.adapters.store import hourly, schema
from celery_monitor.adapters.store.engine import Database
from celery_monitor.adapters.store.periods import between, up_to
from celery_monitor.adapters.store.restore import MUTED
from celery_monitor.adapters.store.statements import shared
from celery_monitor.adapters.store.totals import Totals
from celery_monitor.core.hourly import HOUR
from celery_monitor.core.model import BUCKET_SECONDS, MAX_SILENCE, Action, IncidentState

CHUNK_SIZE: Final = 5000
"""Maximum rows of each table that one call deletes."""
CLAIM_RETENTION: Final = 400 * 86_400.0
"""Minimum seconds for which a sent report is stored, because its schedule may be rarer than the retention."""


class Retention:
    """Deletes data older than ``length`` seconds, and ended tasks beyond the newest ``max_ended``."""

    def __init__(self, database: Database, length: float, max_ended: int) -> None:
        self._database = database
        self._length = length
        self._max_ended = max_ended
        self._totals = shared(database.dialect, Totals)

    def prune(self, now: float) -> None:
        """Delete a portion of the expired rows of each table, each in its own transaction."""
        before = now - self._length
        with self._database.write() as connection:
            self._totals.expire(connection, before - BUCKET_SECONDS, limit=CHUNK_SIZE)
        with self._database.write() as connection:
            hourly.expire(connection, before - HOUR, limit=CHUNK_SIZE)
        for table, condition in [*_expired(before, min(before, now - CLAIM_RETENTION)), self._ended(before)]:
            keys: list[Any] = list(table.primary_key.columns)
            key = keys[0] if len(keys) == 1 else tuple_(*keys)
            with self._database.write() as connection:
                connection.execute(delete(table).where(key.in_(select(*keys).where(condition).limit(CHUNK_SIZE))))

    def _ended(self, before: float) -> tuple[Table, ColumnElement[bool]]:
        """Only the oldest rows are checked, because rows are inserted in the order in which tasks end."""
        table = schema.ended_tasks
        oldest = select(table.c.id).order_by(table.c.id).limit(CHUNK_SIZE)
        unwanted = or_(schema.beyond(self._max_ended), table.c.ended_at < before)
        return table, and_(table.c.id.in_(oldest), unwanted)


def _expired(before: float, claimed_before: float) -> list[tuple[Table, ColumnElement[bool]]]:
    incidents, outbox, counters = schema.incidents, schema.outbox, schema.counters
    return [
        (schema.error_buckets, up_to(schema.error_buckets.c.start, before - BUCKET_SECONDS)),
        (schema.failures, schema.failures.c.at < before),
        (schema.error_groups, schema.error_groups.c.last_at < before),
        (
            outbox,
            or_(
                and_(
                    outbox.c.state == "delivered",
                    outbox.c.delivered_at < before,
                    or_(outbox.c.action != Action.REPORT.value, outbox.c.delivered_at < claimed_before),
                ),
                and_(outbox.c.state.in_(("dead", "unknown")), outbox.c.created_at < before),
            ),
        ),
        (
            incidents,
            and_(
                incidents.c.state != IncidentState.OPEN.value,
                incidents.c.opened_at < before,
                # A silence may be longer than the retention, and its muted incidents are sent when it ends.
                or_(
                    incidents.c.opened_at < before - MAX_SILENCE,
                    incidents.c.state != IncidentState.SUPPRESSED.value,
                    ~incidents.c.body.contains(MUTED),
                ),
                # Its notification is still to be sent.
                ~exists().where(outbox.c.key == incidents.c.key, outbox.c.state != "delivered"),
            ),
        ),
        (schema.silences, schema.silences.c.ends_at < before),
        (schema.deliveries, ~exists().where(incidents.c.key == schema.deliveries.c.key)),
        (counters, and_(*between(counters.c.slot, None, before), _has_successor(before))),
    ]


def _has_successor(before: float) -> ColumnElement[bool]:
    """Whether a newer value was valid at ``before``. The last value before it stays, however old it is."""
    counters, newer = schema.counters, schema.counters.alias()
    return exists().where(
        newer.c.name == counters.c.name,
        newer.c.slot > counters.c.slot,
        newer.c.at <= before,
        # Counters only grow, so a smaller value was written by a clock that was ahead.
        newer.c.value >= counters.c.value,
    )
