"""Stores silences, which people add through the page or with a command that runs beside the daemon."""

import math
from typing import Any, Final

from msgspec import structs
from sqlalchemy import Connection, and_, func, insert, select, update

from celery_monitor.adapters.store import encode, schema
from celery_monitor.adapters.store.engine import Database
from celery_monitor.adapters.store.validation import valid_rows
from celery_monitor.core.model import MAX_SILENCES, Silence
from celery_monitor.errors import TooManySilencesError

MAX_ENDED_LISTED: Final = 200
"""Number of newest ended silences that are listed."""
_ROW: Final = tuple[str, str, str, str, float, float, str]


class SqlSilences:
    """See ports.SilenceBook. Its writes are not fenced: any replica accepts a silence, and the leader reads it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, silence: Silence) -> None:
        """See ports.SilenceBook."""
        text, table = self._database.text, schema.silences
        row = {
            "id": silence.id,
            "match": text(encode.to_json(silence.match)),
            "queues": text(encode.to_json(silence.queues)),
            "reason": text(silence.reason),
            "starts_at": silence.starts_at,
            "ends_at": silence.ends_at,
            "created_by": text(silence.created_by),
        }
        with self._database.write(fenced=False) as connection:
            unfinished = select(func.count()).select_from(table).where(table.c.ends_at > silence.starts_at)
            if (connection.execute(unfinished).scalar() or 0) >= MAX_SILENCES:
                raise TooManySilencesError(
                    f"there are {MAX_SILENCES} silences already: end some, or use a wider glob (celery-monitor silence "
                    "list shows them)"
                )
            connection.execute(insert(table).values(row))

    def end(self, silence_id: str, now: float) -> Silence | None:
        """See ports.SilenceBook."""
        table = schema.silences
        mine = table.c.id == self._database.text(silence_id)
        with self._database.write(fenced=False) as connection:
            silences = _read(connection, mine)
            if not silences or silences[0].ends_at <= now:
                return None
            connection.execute(update(table).where(mine).values(ends_at=now))
            return structs.replace(silences[0], ends_at=now)

    def current(self, now: float) -> list[Silence]:
        """See ports.SilenceBook."""
        with self._database.read() as connection:
            return read(connection, now)

    def effective(self, now: float, since: float) -> list[Silence]:
        """See ports.SilenceBook."""
        with self._database.read() as connection:
            return effective(connection, now, since)

    def ended(self, now: float) -> list[Silence]:
        """See ports.SilenceBook."""
        with self._database.read() as connection:
            return _read(connection, schema.silences.c.ends_at <= now, newest=MAX_ENDED_LISTED)


def read(connection: Connection, now: float) -> list[Silence]:
    """Silences that have not ended at ``now``, ordered by their end."""
    return _read(connection, schema.silences.c.ends_at > now)


def effective(connection: Connection, now: float, since: float) -> list[Silence]:
    """Silences that have not ended at ``now``, after the newest MAX_SILENCES of those that ended after ``since``."""
    ends_at = schema.silences.c.ends_at
    ended = _read(connection, and_(ends_at > since, ends_at <= now), newest=MAX_SILENCES)
    return [*reversed(ended), *read(connection, now)]


def _read(connection: Connection, condition: Any, newest: int | None = None) -> list[Silence]:  # noqa: ANN401 - SQLAlchemy
    table = schema.silences
    order = (table.c.ends_at, table.c.id) if newest is None else (table.c.ends_at.desc(), table.c.id)
    rows = connection.execute(select(table).where(condition).order_by(*order).limit(newest))
    return valid_rows("silences", rows, _ROW, _value)


def _value(  # noqa: PLR0917 - a row
    silence_id: str, match: str, queues: str, reason: str, starts_at: float, ends_at: float, created_by: str
) -> Silence:
    if not math.isfinite(ends_at):
        raise ValueError("a silence without an end")
    globs = tuple[str, ...]
    return Silence(
        silence_id, encode.parsed(match, globs), reason, starts_at, ends_at, encode.parsed(queues, globs), created_by
    )
