"""The Outbox: selects the rows that may be sent now and records the outcome of each attempt."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, get_type_hints

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Label,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    or_,
    select,
    text,
    tuple_,
    update,
)

from celery_monitor.adapters.store import encode, schema
from celery_monitor.adapters.store.engine import ANSWER_TIMEOUT, Database
from celery_monitor.adapters.store.enqueue import Enqueuer
from celery_monitor.adapters.store.schema import PENDING, deliveries, outbox
from celery_monitor.adapters.store.statements import shared
from celery_monitor.adapters.store.validation import RowId, valid_rows
from celery_monitor.core import paging
from celery_monitor.core.backoff import MAX_WAIT
from celery_monitor.core.model import (
    ASKED_FOR,
    ASKED_FOR_OPENING,
    FIRST_UPDATE,
    REFRESH,
    Action,
    Incident,
    IncidentState,
    OutboxItem,
    OutboxRequest,
)
from celery_monitor.core.paging import Page

_RECEIPT: Final = (
    select(deliveries.c.receipt)
    .where(deliveries.c.key == outbox.c.key, deliveries.c.channel == outbox.c.channel)
    .scalar_subquery()
    .label("receipt")
)
_ITEM: Final[tuple[Column[Any] | Label[Any], ...]] = (
    outbox.c.id,
    outbox.c.channel,
    outbox.c.key,
    outbox.c.action,
    outbox.c.route,
    outbox.c.revision,
    outbox.c.attempts,
    outbox.c.created_at,
    outbox.c.due_at,
    outbox.c.state,
    outbox.c.error,
    outbox.c.delivered_at,
    outbox.c.priority,
    outbox.c.progress,
    _RECEIPT,
)


CLOCK_TOLERANCE: Final = 60.0
"""Seconds by which the clocks of two replicas may differ."""
RESPONSE_TIMEOUT: Final = 3.0
"""Seconds that a notifier waits for the store. After that, pages that cannot be stored are sent from memory."""
_TRIGGER: Final = outbox.alias()
_BEHIND_ITS_TRIGGER: Final = and_(
    outbox.c.action == Action.RESOLVE.value,
    exists().where(
        _TRIGGER.c.key == outbox.c.key,
        _TRIGGER.c.channel == outbox.c.channel,
        _TRIGGER.c.action == Action.TRIGGER.value,
        _TRIGGER.c.state == text("'pending'"),
    ),
)
"""A resolve whose trigger is still pending. The trigger was decided first, so it must be sent first."""
_AS_REFRESH: Final = case(
    (outbox.c.priority < 0, REFRESH),
    (outbox.c.priority < FIRST_UPDATE, outbox.c.priority + REFRESH),
    else_=outbox.c.priority,
)


_TYPES: Final = get_type_hints(OutboxItem)
_ROW: Final = tuple[tuple(_TYPES[column.name] for column in _ITEM)]  # type: ignore[misc]  # the types of _ITEM
_ROUTES: Final = select(outbox.c.channel, outbox.c.route).where(PENDING).distinct().limit(bindparam("most"))
_WAITING: Final = select(outbox.c.id).where(PENDING, outbox.c.channel == bindparam("channel")).limit(1)
"""Built once, because most polls of the outbox run only these two."""


class SqlOutbox:
    """See Outbox. Used by the notifiers' threads and by commands that run beside the daemon."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._enqueuer = shared(database.dialect, Enqueuer)

    def enqueue(self, entry: OutboxRequest, now: float) -> bool:
        """See Outbox."""
        with self._database.write() as connection:
            return self._enqueuer.claim(connection, entry, now)

    def due(self, now: float, limit: int) -> list[OutboxItem]:
        """See Outbox."""
        with self._database.read(silence=RESPONSE_TIMEOUT) as connection:
            routes = connection.execute(_ROUTES, {"most": limit}).all()
            rows = _heads(connection, routes, now) if routes else []
        return self._valid_items(rows)

    def waiting(self, channel: str) -> bool:
        """See Outbox."""
        with self._database.read(silence=RESPONSE_TIMEOUT) as connection:
            return connection.execute(_WAITING, {"channel": channel}).first() is not None

    def _valid_items(self, rows: Sequence[Any]) -> list[OutboxItem]:
        """The valid rows. An invalid row is marked as dead, because it would block its route forever."""
        items = valid_rows("outbox", rows, _ROW, OutboxItem)
        if len(items) < len(rows):
            valid_ids = {item.id for item in items}
            unreadable = [row.id for row in rows if row.id not in valid_ids]
            values = {"state": "dead", "error": "this row of the store contains invalid data"}
            same_delivery = exists().where(
                outbox.c.id.in_(unreadable), outbox.c.key == deliveries.c.key, outbox.c.channel == deliveries.c.channel
            )
            with self._database.write() as connection:
                connection.execute(update(outbox).where(outbox.c.id.in_(unreadable)).values(values))
                connection.execute(update(deliveries).where(same_delivery).values(values))
        return items

    def expedite(self, channel: str, now: float) -> None:
        """See Outbox."""
        waiting = (PENDING, outbox.c.channel == channel, outbox.c.attempts > 0, outbox.c.due_at > now)
        with self._write() as connection:
            connection.execute(update(outbox).where(*waiting).values(due_at=now))

    def delivered(self, item: OutboxItem, now: float, count: int | None, receipt: str | None = None) -> None:
        """See Outbox."""
        this = and_(outbox.c.id == item.id, PENDING)
        with self._write() as connection:
            done = connection.execute(
                update(outbox)
                .where(this, outbox.c.revision <= item.revision)
                .values(state="delivered", delivered_at=now, error=None)
            )
            if done.rowcount == 0:
                refreshed = {"attempts": 0, "error": None, "due_at": outbox.c.refreshed_due_at, "priority": _AS_REFRESH}
                connection.execute(update(outbox).where(this).values(refreshed))
            values: dict[str, Any] = {"error": None}
            if receipt is not None:
                values["receipt"] = encode.storable(receipt)
            if item.action is Action.TRIGGER and count is not None:
                values |= {"delivered_at": func.coalesce(deliveries.c.delivered_at, now), "delivered_count": count}
            _record(connection, item, "delivered", values)

    def retry(self, item: OutboxItem, due_at: float, error: str) -> None:
        """See Outbox."""
        error = encode.storable(error)
        waiting = {"attempts": outbox.c.attempts + 1, "due_at": due_at, "error": error}
        with self._write() as connection:
            connection.execute(update(outbox).where(outbox.c.id == item.id, PENDING).values(waiting))
            _record(connection, item, "pending", {"error": error})

    def dead(self, item: OutboxItem, now: float, error: str) -> None:
        """See Outbox."""
        self._give_up(item, now, error, "dead")

    def _give_up(self, item: OutboxItem, now: float, error: str, state: str) -> None:
        error = encode.storable(error)
        given_up = {"attempts": outbox.c.attempts + 1, "state": state, "due_at": now, "error": error}
        with self._write() as connection:
            connection.execute(update(outbox).where(outbox.c.id == item.id, PENDING).values(given_up))
            _record(connection, item, state, {"error": error})

    def uncertain(self, item: OutboxItem, now: float, error: str) -> None:
        """See Outbox."""
        self._give_up(item, now, error, "unknown")

    def note(self, item: OutboxItem, progress: str) -> None:
        """See Outbox."""
        with self._database.write() as connection:
            connection.execute(update(outbox).where(outbox.c.id == item.id).values(progress=progress))

    def _write(self) -> AbstractContextManager[Connection]:
        return self._database.write(lock_wait=RESPONSE_TIMEOUT, silence=RESPONSE_TIMEOUT + ANSWER_TIMEOUT)

    def revive(self, item_id: int | None, now: float) -> int:
        """See Outbox. Deletes a dead row if a newer one replaces it, because the newer one contains its information."""
        condition = outbox.c.state == "dead" if item_id is None else outbox.c.id == item_id
        query = select(*_ITEM).where(condition, outbox.c.state != "delivered").order_by(outbox.c.id.desc())
        with self._database.write() as connection:
            rows = connection.execute(query).all()
            return sum(_revive(connection, _item(row), now) for row in rows)

    def items(
        self,
        *,
        dead: bool,
        limit: int,
        cursor: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Page[OutboxItem]:
        """See Outbox."""
        states = ("dead", "unknown") if dead else ("pending", "dead", "unknown")
        query = select(*_ITEM).where(outbox.c.state.in_(states))
        if cursor is not None:
            query = query.where(outbox.c.id > paging.position(cursor, tuple[RowId])[0])
        if since is not None:
            query = query.where(outbox.c.created_at >= since)
        if until is not None:
            query = query.where(outbox.c.created_at < until)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(outbox.c.id).limit(limit + 1)).all()
        page = paging.page(rows, limit, lambda row: (row.id,))
        return Page(valid_rows("outbox", page.rows, _ROW, OutboxItem), page.next)

    def pending(self) -> dict[str, tuple[int, float | None]]:
        """See Outbox."""
        query = select(outbox.c.channel, func.count(), func.min(outbox.c.created_at)).where(PENDING)
        with self._database.read() as connection:
            rows = connection.execute(query.group_by(outbox.c.channel))
            return {channel: (number, oldest) for channel, number, oldest in rows}

    def given_up(self) -> dict[str, int]:
        """See Outbox."""
        return self._number("dead")

    def unknown(self) -> dict[str, int]:
        """See Outbox."""
        return self._number("unknown")

    def _number(self, state: str) -> dict[str, int]:
        query = select(outbox.c.channel, func.count()).where(outbox.c.state == state).group_by(outbox.c.channel)
        with self._database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def last_delivered(self, channel: str) -> float | None:
        """See Outbox."""
        query = select(func.max(outbox.c.delivered_at)).where(outbox.c.channel == channel)
        with self._database.read() as connection:
            newest: float | None = connection.execute(query).scalar()
            return newest

    def incident(self, key: str) -> Incident | None:
        """See Outbox."""
        with self._database.read() as connection:
            rows = connection.execute(select(schema.incidents.c.body).where(schema.incidents.c.key == key)).all()
        valid = valid_rows("incidents", rows, tuple[str], lambda body: encode.parsed(body, Incident))
        return valid[0] if valid else None

    def open_incidents(self, channel: str, limit: int, cursor: str | None = None) -> Page[Incident]:
        """See Outbox."""
        incidents = schema.incidents
        query = (
            select(incidents.c.body, incidents.c.key)
            .join(deliveries, deliveries.c.key == incidents.c.key)
            .where(incidents.c.state == IncidentState.OPEN.value)
            .where(deliveries.c.channel == channel, deliveries.c.delivered_at.is_not(None))
        )
        if cursor is not None:
            query = query.where(incidents.c.key > self._database.text(paging.position(cursor, tuple[str])[0]))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(incidents.c.key).limit(limit + 1)).all()
        page = paging.page(rows, limit, lambda row: (row.key,))
        valid = valid_rows("incidents", page.rows, tuple[str, str], lambda body, _key: encode.parsed(body, Incident))
        return Page(valid, page.next)


def _item(row: Any) -> OutboxItem:  # noqa: ANN401 - the type of SQLAlchemy's rows depends on its version
    values = row._asdict()
    values["action"] = Action(values["action"])
    return OutboxItem(**values)


def _revive(connection: Connection, item: OutboxItem, now: float) -> int:
    """Make the row due now, or the pending row that replaces it. Returns 1 if it is this row, otherwise 0.

    The receiver must end up with the incident's present state: a resolution that was followed by another row is not
    sent, and one that followed this trigger is sent again after it.
    """
    newest = _newest_after(connection, item)
    if newest is not None and item.action is Action.RESOLVE:
        connection.execute(delete(outbox).where(outbox.c.id == item.id))
        return 0
    pending_twin = and_(
        tuple_(outbox.c.key, outbox.c.channel, outbox.c.action) == tuple_(item.key, item.channel, item.action.value),
        PENDING,
    )
    # A row that opens its incident still does, and so does the one that replaces it.
    opens = outbox.c.priority.in_((*range(FIRST_UPDATE), ASKED_FOR_OPENING))
    asked_for = ASKED_FOR_OPENING if item.opens else case((opens, ASKED_FOR_OPENING), else_=ASKED_FOR)
    values = {"attempts": 0, "due_at": now, "priority": asked_for}
    connection.execute(update(deliveries).where(_same_row(item)).values(state="pending"))
    if item.state != "pending" and connection.execute(update(outbox).where(pending_twin).values(values)).rowcount:
        connection.execute(delete(outbox).where(outbox.c.id == item.id))
        return 0
    due = [item.id]
    if newest is not None and item.action is Action.TRIGGER and newest.action == Action.RESOLVE.value:
        due.append(newest.id)
    connection.execute(update(outbox).where(outbox.c.id.in_(due)).values(**values, state="pending"))
    return 1


def _newest_after(connection: Connection, item: OutboxItem) -> Any:  # noqa: ANN401 - as above
    """The newest row of the same incident and channel if it is newer than this one; None if this one is the newest."""
    same = and_(outbox.c.key == item.key, outbox.c.channel == item.channel, outbox.c.id > item.id)
    return connection.execute(
        select(outbox.c.id, outbox.c.action).where(same).order_by(outbox.c.id.desc()).limit(1)
    ).first()


def _record(connection: Connection, item: OutboxItem, state: str, fields: Mapping[str, Any]) -> None:
    """Update the delivery of the row's incident on its channel: pending while any row of it is pending."""
    if item.action is Action.REPORT:
        return
    waits = exists().where(outbox.c.key == item.key, outbox.c.channel == item.channel, PENDING)
    values = {**fields, "state": case((waits, "pending"), else_=state), "attempts": deliveries.c.attempts + 1}
    connection.execute(update(deliveries).where(_same_row(item)).values(values))


def _same_row(item: OutboxItem) -> ColumnElement[bool]:
    """The delivery that a row belongs to. A report has none."""
    return and_(deliveries.c.key == item.key, deliveries.c.channel == item.channel)


def _heads(connection: Connection, routes: Iterable[Any], now: float) -> Sequence[Any]:
    """The next due row of each route, the most important first."""
    # No wait is longer than MAX_WAIT: a later due time was set by a clock that was ahead, so the row is due.
    # A row from the future was added by such a clock, too; it is tried once, and then waits as usual.
    is_from_future = and_(outbox.c.attempts == 0, outbox.c.created_at > now + CLOCK_TOLERANCE)
    is_due = or_(outbox.c.due_at <= now, outbox.c.due_at > now + MAX_WAIT, is_from_future)
    order = (outbox.c.priority, outbox.c.at.desc(), outbox.c.id)
    first = select(outbox.c.id).where(PENDING, is_due, ~_BEHIND_ITS_TRIGGER).order_by(*order).limit(1)
    heads = [
        connection.execute(first.where(outbox.c.channel == channel, outbox.c.route == route)).scalar()
        for channel, route in routes
    ]
    query = select(*_ITEM).where(outbox.c.id.in_([head for head in heads if head is not None]))
    return connection.execute(query.order_by(*order)).all()
