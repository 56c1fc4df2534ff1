"""Adds rows to the outbox, within the caller's transaction.

The order in which the messages of an incident arrive decides whether the receiver ends up with an open incident. So a
row that waits for its interval must not be sent after one that was decided later:

- A resolve makes a waiting trigger due at the same time, so both are sent in order.
- A trigger deletes a waiting resolve: the incident is open again, so the resolve must not arrive last.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Dialect, and_, bindparam, case, delete, select, update

from celery_monitor.adapters.store.schema import PENDING, deliveries, outbox
from celery_monitor.adapters.store.statements import insert
from celery_monitor.core.model import Action, OutboxRequest

_SAME_KEY: Final = and_(outbox.c.key == bindparam("of_key"), outbox.c.channel == bindparam("of_channel"), PENDING)


class Enqueuer:
    """Adds rows to the outbox."""

    def __init__(self, dialect: Dialect) -> None:
        claim = insert(dialect, outbox).on_conflict_do_nothing().inline()
        # Otherwise not every driver still has the row count of an INSERT when it is read.
        self._claim = claim.execution_options(preserve_rowcount=True)
        refresh = insert(dialect, outbox).inline()
        is_earlier = and_(outbox.c.attempts == 0, refresh.excluded.due_at < outbox.c.due_at)
        self._refresh = refresh.on_conflict_do_update(
            index_elements=[outbox.c.key, outbox.c.channel, outbox.c.action],
            index_where=PENDING,
            set_={
                "revision": outbox.c.revision + 1,
                "refreshed_due_at": refresh.excluded.due_at,
                # Only ever earlier. A row that waits for a retry keeps its time, because the receiver asked for it.
                "due_at": case((is_earlier, refresh.excluded.due_at), else_=outbox.c.due_at),
                # Only ever more important: the row that opens an incident keeps its priority when it is updated.
                "priority": _lesser(refresh.excluded.priority, outbox.c.priority),
                "at": _lesser(outbox.c.at, refresh.excluded.at, greater=True),
            },
        )
        self._expedite = (
            update(outbox)
            .where(_SAME_KEY, outbox.c.action == Action.TRIGGER.value, outbox.c.attempts == 0)
            .where(outbox.c.due_at > bindparam("due"))
            .values(due_at=bindparam("due"))
        )
        opened = insert(dialect, deliveries).inline()
        self._open = opened.on_conflict_do_update(
            index_elements=[deliveries.c.key, deliveries.c.channel], set_={"state": opened.excluded.state}
        )
        self._withdraw = delete(outbox).where(_SAME_KEY, outbox.c.action == Action.RESOLVE.value)

    def run(self, connection: Connection, entries: Sequence[OutboxRequest], now: float) -> None:
        """Add or refresh rows, in order."""
        for entry in entries:
            if entry.action is Action.REPORT:
                self.claim(connection, entry, now)
                continue
            same = {"of_key": entry.key, "of_channel": entry.channel}
            if entry.action is Action.RESOLVE:
                connection.execute(self._expedite, {**same, "due": entry.due_at})
            else:
                connection.execute(self._withdraw, same)
            connection.execute(self._refresh, _row(entry, now))
            connection.execute(self._open, _delivery(entry))

    def claim(self, connection: Connection, entry: OutboxRequest, now: float) -> bool:
        """Add a row unless one with the same (channel, key, action) exists, in any state. Returns whether it did."""
        row = connection.execute(
            select(outbox.c.id)
            .where(outbox.c.key == entry.key, outbox.c.channel == entry.channel)
            .where(outbox.c.action == entry.action.value)
        ).first()
        if row is not None or connection.execute(self._claim, _row(entry, now)).rowcount == 0:
            return False
        if entry.action is not Action.REPORT:
            connection.execute(self._open, _delivery(entry))
        return True


def _lesser(left: Any, right: Any, *, greater: bool = False) -> Any:  # noqa: ANN401 - SQLAlchemy's own types are open
    """The lesser (or greater) value. Written as CASE, because min() and max() of two values differ by dialect."""
    return case((left < right, right if greater else left), else_=left if greater else right)


def _delivery(entry: OutboxRequest) -> dict[str, object]:
    return {"key": entry.key, "channel": entry.channel, "state": "pending", "attempts": 0, "delivered_count": 0}


def _row(entry: OutboxRequest, now: float) -> dict[str, object]:
    return {
        "channel": entry.channel,
        "key": entry.key,
        "action": entry.action.value,
        "route": entry.route,
        "revision": 1,
        "attempts": 0,
        "created_at": now,
        "due_at": entry.due_at,
        "refreshed_due_at": entry.due_at,
        "state": "pending",
        "priority": entry.priority,
        "at": entry.at,
    }
