"""Validates parameters of queries and paths. Errors name the parameter."""

import re
from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request

from celery_monitor.core.summary import FIRST_DAY
from celery_monitor.core.text import name_of_part, printable, storable_text
from celery_monitor.settings.units import duration

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
ONE_DAY: Final = timedelta(days=1)
_MAX_TEXT: Final = 2000

_ago: Final = duration()
_day: Final = re.compile(r"\d{4}-\d\d-\d\d")
_day_and_zone: Final = re.compile(rf"({_day.pattern})([ +-])(\d\d:?\d\d)")
_lost_plus: Final = re.compile(r"(.{10}[T ]\S+) (\d\d:?\d\d)")
"""A time with an unescaped + in its zone, which arrives as a space."""


class ParameterError(Exception):
    """A parameter is invalid; answered with status 400 and this text."""


class _AnyText(PathConvertor):
    """A name at the end of a path, including line breaks, which Starlette's own ``path`` does not match."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """The name. See ``path_part``."""
        return name_of_part(value)


register_url_convertor("any", _AnyText())


def stored_text(name: str) -> str:
    """The name of a task, queue or worker as it is stored: with U+FFFD for unprintable characters."""
    return printable(name, len(name))


class Parameters:
    """The query parameters ``names`` of a request, each at most once."""

    def __init__(self, request: Request, names: Iterable[str], *, now: float, strict: bool = True) -> None:
        """``now``: base of relative times; ``strict``: unknown parameters are errors and not ignored."""
        self._values: dict[str, str] = {}
        self._now = now
        names = tuple(names)
        for name, value in request.query_params.multi_items():
            if name not in names:
                if not strict:
                    continue
                raise ParameterError(f"{name[:50]!r} is not a parameter here; there are: {', '.join(names) or 'none'}")
            if name in self._values:
                raise ParameterError(f"{name}: given twice")
            if len(value) > _MAX_TEXT:
                raise ParameterError(f"{name}: longer than {_MAX_TEXT} characters")
            # Forms also send empty fields.
            if value:
                self._values[name] = value

    def text(self, name: str) -> str | None:
        """A text, normalized like the stored texts of events."""
        value = self._values.get(name)
        return None if value is None else storable_text(value)

    def name(self, name: str) -> str | None:
        """A name, normalized like the stored names."""
        value = self._values.get(name)
        return None if value is None else stored_text(value)

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        """One of ``choices``; None if not given."""
        value = self._values.get(name)
        if value is not None and value not in choices:
            raise ParameterError(f"{name}: must be one of {', '.join(choices)}")
        return value

    def flag(self, name: str) -> bool:
        """A Boolean; false if not given."""
        value = self._values.get(name, "false")
        if value not in {"true", "false"}:
            raise ParameterError(f"{name}: must be true or false")
        return value == "true"

    def limit(self) -> int:
        """Number of items per page."""
        value = self._values.get("limit", str(DEFAULT_LIMIT))
        if not re.fullmatch("[0-9]{1,6}", value) or not 1 <= int(value) <= MAX_LIMIT:
            raise ParameterError(f"limit: must be a whole number from 1 to {MAX_LIMIT}")
        return int(value)

    def cursor(self) -> str | None:
        """The cursor, ``Page.next`` of the previous page; not validated here."""
        return self._values.get("cursor")

    def time(self, name: str) -> float | None:
        """Unix seconds from an RFC 3339 time, a date (midnight UTC), or an age such as ``1h``, ``30m``, ``7d``."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            return self._now - _ago.parse(value)
        except ValueError:
            pass
        try:
            lost_plus = _lost_plus.fullmatch(value)
            moment = datetime.fromisoformat(f"{lost_plus[1]}+{lost_plus[2]}" if lost_plus else value)
            if _day.fullmatch(value):
                moment = moment.replace(tzinfo=UTC)
            if moment.tzinfo is None:
                raise ParameterError(f"{name}: {_without_zone(value, moment)}")
            return moment.timestamp()
        except (ValueError, OverflowError) as exc:
            raise ParameterError(
                f"{name}: must be a time such as 2026-11-23T14:00:00Z, a date such as 2026-11-23 (midnight UTC), "
                "or an age such as 1h, 30m or 7d"
            ) from exc

    def span(self) -> tuple[float | None, float | None]:
        """``since`` and ``until``; ``since`` must be earlier."""
        since, until = self.time("since"), self.time("until")
        if since is not None and until is not None and since >= until:
            raise ParameterError("since: must be before until")
        return since, until


def _without_zone(value: str, moment: datetime) -> str:
    """The error for a time without zone, with a suggestion. ``moment``: the parsed time."""
    zoned = _day_and_zone.fullmatch(value)
    midnight = f"{zoned[1]}T00:00:00{zoned[2].replace(' ', '+')}{zoned[3]}" if zoned else ""
    if zoned and zoned[2] != " ":
        return f"a date with a UTC offset needs a time; write {midnight}"
    read = moment.isoformat()
    other = f"{midnight} if {value[11:]} is the zone (in an address + is %2B)" if zoned else f"{read}+02:00"
    return f"has no UTC offset; write {read}Z for UTC, or {other}"


def day(text: str, *, now: float, zone: tzinfo) -> date:
    """A day in a path: YYYY-MM-DD, ``today`` or ``yesterday``."""
    last = today(now, zone)
    relative = {"today": last, "yesterday": last - ONE_DAY}
    try:
        day_found = relative[text] if text in relative else date.fromisoformat(text)
    except ValueError as exc:
        raise ParameterError("date: must be YYYY-MM-DD, today or yesterday") from exc
    if not FIRST_DAY <= day_found <= last:
        raise ParameterError(f"date: must be from {FIRST_DAY} to {last}")
    return day_found


def today(now: float, zone: tzinfo) -> date:
    """The present day in the zone."""
    return datetime.fromtimestamp(now, zone).date()
