"""Query parameters of the lists, checked: what is wrong is answered with the parameter's name."""

import base64
import binascii
import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta, tzinfo
from typing import Final

from starlette.requests import Request

from celery_monitor.settings.notation import duration

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
FIRST_DAY: Final = date(2000, 1, 1)
"""Before any Celery: days that far back are slips, and calendars end."""
_MAX_TEXT: Final = 2000

_ago: Final = duration()


class ParameterError(Exception):
    """A parameter cannot be used; answered with status 400 and this text."""


class Parameters:
    """The query of a request, of which only ``known`` parameters may be there, each once."""

    def __init__(self, request: Request, known: Iterable[str], *, now: float) -> None:
        """``now`` is what relative times are counted from."""
        self._values: dict[str, str] = {}
        self._now = now
        known = tuple(known)
        for name, value in request.query_params.multi_items():
            if name not in known:
                raise ParameterError(f"{name[:50]!r} is not a parameter here; there are: {', '.join(known) or 'none'}")
            if name in self._values:
                raise ParameterError(f"{name}: given twice")
            if len(value) > _MAX_TEXT:
                raise ParameterError(f"{name}: longer than {_MAX_TEXT} characters")
            # A form sends its empty fields too.
            if value:
                self._values[name] = value

    def text(self, name: str) -> str | None:
        """The parameter as it is."""
        return self._values.get(name)

    def flag(self, name: str) -> bool:
        """Whether it is true; false when it is not given."""
        value = self._values.get(name, "false")
        if value not in {"true", "false"}:
            raise ParameterError(f"{name}: must be true or false")
        return value == "true"

    def limit(self) -> int:
        """How many items a page has."""
        value = self._values.get("limit", str(DEFAULT_LIMIT))
        if not re.fullmatch("[0-9]{1,6}", value) or not 1 <= int(value) <= MAX_LIMIT:
            raise ParameterError(f"limit: must be a whole number from 1 to {MAX_LIMIT}")
        return int(value)

    def cursor(self) -> str | None:
        """Where the last page ended, as ``sealed`` took it."""
        value = self._values.get("cursor")
        if value is None:
            return None
        try:
            return base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True).decode()
        except (binascii.Error, ValueError) as exc:
            raise bad_cursor() from exc

    def time(self, name: str) -> float | None:
        """A time in RFC 3339, or how long ago: ``1h``, ``30m``, ``7d``. Unix seconds."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            return self._now - _ago.parse(value)
        except ValueError:
            pass
        try:
            # An unescaped + of a zone arrives as a space.
            moment = datetime.fromisoformat(re.sub(r" (?=\d\d:?\d\d$)", "+", value))
            if moment.tzinfo is None:
                raise ParameterError(f"{name}: has no zone; write {value}Z for UTC, or {value}+02:00")
            return moment.timestamp()
        except (ValueError, OverflowError) as exc:
            raise ParameterError(
                f"{name}: must be a time such as 2026-11-23T14:00:00Z, or how long ago, such as 1h, 30m or 7d"
            ) from exc

    def span(self) -> tuple[float | None, float | None]:
        """``since`` and ``until``, in order."""
        since, until = self.time("since"), self.time("until")
        if since is not None and until is not None and since >= until:
            raise ParameterError("since: must be before until")
        return since, until


def sealed(cursor: str | None) -> str | None:
    """A cursor as it is given to clients: one word that needs no escaping."""
    return None if cursor is None else base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")


def bad_cursor() -> ParameterError:
    """What the store does not know as a cursor."""
    return ParameterError("cursor: not one that this list gave")


def day(text: str, *, now: float, zone: tzinfo) -> date:
    """A day of a path: YYYY-MM-DD, ``today`` or ``yesterday``."""
    today = datetime.fromtimestamp(now, zone).date()
    relative = {"today": today, "yesterday": today - timedelta(days=1)}
    try:
        found = relative[text] if text in relative else date.fromisoformat(text)
    except ValueError as exc:
        raise ParameterError("date: must be YYYY-MM-DD, today or yesterday") from exc
    if not FIRST_DAY <= found <= today:
        raise ParameterError(f"date: must be from {FIRST_DAY} to {today}")
    return found
