"""Parameters of queries and paths, checked: what is wrong is answered with the parameter's name."""

import re
from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request

from celery_monitor.core.text import printable, storable_text
from celery_monitor.settings.units import duration

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
FIRST_DAY: Final = date(2000, 1, 1)
"""Before any Celery: days that far back are slips, and calendars end."""
ONE_DAY: Final = timedelta(days=1)
_MAX_TEXT: Final = 2000

_ago: Final = duration()
_day: Final = re.compile(r"\d{4}-\d\d-\d\d")
_day_and_zone: Final = re.compile(rf"({_day.pattern})([ +-])(\d\d:?\d\d)")
_lost_plus: Final = re.compile(r"(.{10}[T ]\S+) (\d\d:?\d\d)")
"""An unescaped + of a zone arrives as a space."""


class ParameterError(Exception):
    """Invalid parameter; answered with status 400 and this text."""


class _AnyText(PathConvertor):
    """The rest of a path, whatever it holds: Starlette's own ``path`` ends at a line break."""

    regex = "(?s:.*)"


register_url_convertor("any", _AnyText())


def stored_text(name: str) -> str:
    """A name of a task, queue or worker as the monitor keeps it: with U+FFFD for what cannot be printed."""
    return printable(name, len(name))


class Parameters:
    """The query of a request: its ``names`` parameters, each once."""

    def __init__(self, request: Request, names: Iterable[str], *, now: float, strict: bool = True) -> None:
        """``now`` is what relative times are counted from; ``strict``: unknown parameters are wrong, not ignored."""
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
            # A form sends its empty fields too.
            if value:
                self._values[name] = value

    def text(self, name: str) -> str | None:
        """A text, as the texts of events are kept."""
        value = self._values.get(name)
        return None if value is None else storable_text(value)

    def name(self, name: str) -> str | None:
        """A name, as the names of events are kept."""
        value = self._values.get(name)
        return None if value is None else stored_text(value)

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        """One of some words; None when it is not given."""
        value = self._values.get(name)
        if value is not None and value not in choices:
            raise ParameterError(f"{name}: must be one of {', '.join(choices)}")
        return value

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
        """Where the last page ended: ``Page.next``, not yet checked."""
        return self._values.get("cursor")

    def time(self, name: str) -> float | None:
        """A time in RFC 3339, a day (its midnight in UTC), or how long ago: ``1h``, ``30m``, ``7d``. Unix seconds."""
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
        """``since`` and ``until``, in order."""
        since, until = self.time("since"), self.time("until")
        if since is not None and until is not None and since >= until:
            raise ParameterError("since: must be before until")
        return since, until


def _without_zone(value: str, moment: datetime) -> str:
    """What is wrong with a time, and what can be written instead. ``moment``: as it was read."""
    zoned = _day_and_zone.fullmatch(value)
    midnight = f"{zoned[1]}T00:00:00{zoned[2].replace(' ', '+')}{zoned[3]}" if zoned else ""
    if zoned and zoned[2] != " ":
        return f"a date with a UTC offset needs a time; write {midnight}"
    read = moment.isoformat()
    other = f"{midnight} if {value[11:]} is the zone (in an address + is %2B)" if zoned else f"{read}+02:00"
    return f"has no UTC offset; write {read}Z for UTC, or {other}"


def day(text: str, *, now: float, zone: tzinfo) -> date:
    """A day of a path: YYYY-MM-DD, ``today`` or ``yesterday``."""
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
    """The last day that there is."""
    return datetime.fromtimestamp(now, zone).date()
