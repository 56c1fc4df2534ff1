"""New rows of the outbox, from a flush or from outside of one. All run inside of the caller's transaction.

The order in which one incident's messages arrive decides whether it is open in the end, so a row that waits for its
interval must not be overtaken by what was decided later:

- A resolve makes the trigger that waits before it due with it, so that both are sent, in order.
- A trigger removes a resolve that still waits: the incident is open again, and that resolve must not come last.
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
        # Of an INSERT not every driver still knows the number of rows when it is asked.
        self._claim = claim.execution_options(preserve_rowcount=True)
        refresh = insert(dialect, outbox).inline()
        is_earlier = and_(outbox.c.attempts == 0, refresh.excluded.due_at < outbox.c.due_at)
        self._refresh = refresh.on_conflict_do_update(
            index_elements=[outbox.c.key, outbox.c.channel, outbox.c.action],
            index_where=PENDING,
            set_={
                "revision": outbox.c.revision + 1,
                "refreshed_due_at": refresh.excluded.due_at,
                # Never later. A row that waits for another attempt keeps that time: the receiver asked for it.
                "due_at": case((is_earlier, refresh.excluded.due_at), else_=outbox.c.due_at),
                # Never less important: what opens an incident has to be told, whatever is told with it.
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
        """Add a row unless there is one of the same (channel, key, action) in any state; whether it was added."""
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
    """min() and max() have other names in every dialect."""
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
