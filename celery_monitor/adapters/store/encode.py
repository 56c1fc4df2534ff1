"""Converts values of ``core.model`` to rows and back. Rows are tuples in the order of the constants here."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, TypeVar

import msgspec

from celery_monitor.core.model import (
    COUNTS,
    NO_DETAILS,
    Event,
    Failure,
    Histogram,
    Incident,
    Series,
    SeriesKey,
    TaskRef,
    TaskRun,
    UnnamedEvent,
    Worker,
)
from celery_monitor.errors import StoreUnusableError

T = TypeVar("T")

FAILURE: Final = Failure.__struct_fields__
ENDED: Final = (
    "uuid", "name", "queue", "hostname", "stage", "sent_at", "received_at", "started_at", "ended_at", "runtime", "eta",
    "retries", "root", "parent",
)  # fmt: skip
WORKER: Final = Worker.__struct_fields__
INCIDENT: Final = ("key", "state", "opened_at", "first_at", "body")

failure_row: Final = attrgetter(*FAILURE)
ended_row: Final = attrgetter(*ENDED)
worker_row: Final = attrgetter(*WORKER)

_MAX_INTEGER: Final = 2**63 - 1


def to_json(value: object) -> str:
    """A value as JSON text."""
    return msgspec.json.encode(value).decode()


def parsed(text: str, kind: type[T]) -> T:
    """The value of a stored JSON text. Raises StoreUnusableError if it is invalid, such as after a change by hand."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as exc:
        raise StoreUnusableError(
            f"The store contains invalid data, such as after a change by hand; restore a backup: {exc}"
        ) from exc


def series_row(series: Series) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    key, runtime, wait = series.key, series.runtime, series.wait
    return (
        key.name,
        key.queue,
        key.host,
        *series.counts,
        to_json(series.exceptions),
        to_json((runtime.bounds, runtime.counts)),
        runtime.sum,
        to_json((wait.bounds, wait.counts)),
        wait.sum,
        series.rank,
    )


def series_value(row: Sequence[Any]) -> Series:
    """The opposite of ``series_row``."""
    name, queue, host = row[:3]
    exceptions, runtime, runtime_sum, wait, wait_sum, rank = row[3 + len(COUNTS) :]
    return Series(
        key=SeriesKey(name, queue, host),
        counts=tuple(row[3 : 3 + len(COUNTS)]),
        exceptions=parsed(exceptions, dict[str, int]),
        runtime=_histogram(runtime, runtime_sum),
        wait=_histogram(wait, wait_sum),
        rank=rank,
    )


def _histogram(text: str, total: float) -> Histogram:
    bounds, counts = parsed(text, tuple[tuple[float, ...], tuple[int, ...]])
    return Histogram(bounds, counts, total)


def tracked_row(uuid: str, saved: int, ref: TaskRef) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    runs = None if ref.others is None else to_json(ref.others)
    details = ref.details or NO_DETAILS
    return (
        saved, uuid, ref.name, ref.queue, int(ref.stage), ref.due_at, ref.started_at, ref.seen_minute,
        ref.host or None, runs, ref.sent_at, ref.received_at, details.eta, details.retries, details.root,
        details.parent, details.expires,
    )  # fmt: skip


def ended_value(row: Sequence[Any]) -> TaskRun:
    """The opposite of ``ended_row``."""
    return TaskRun(**dict(zip(ENDED, row, strict=True)))


def runs_value(text: str) -> list[TaskRef] | None:
    """The further runs of a task, beside the first."""
    try:
        return msgspec.json.decode(text, type=list[TaskRef]) or None
    except msgspec.DecodeError:  # version 0.2.0 stored these fields
        rows = parsed(text, list[tuple[str | None, str | None, int, float, float, str]])
        return [TaskRef(*row, host=host) for *row, host in rows] or None  # type: ignore[arg-type, misc]


def unnamed_row(unnamed: UnnamedEvent) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    return unnamed.number, unnamed.since, to_json(unnamed.event), unnamed.measured


def unnamed_value(row: Sequence[Any]) -> UnnamedEvent:
    """The opposite of ``unnamed_row``."""
    number, since, event, measured = row
    return UnnamedEvent(number, since, parsed(event, Event), measured)


def incident_row(incident: Incident) -> tuple[Any, ...]:
    """In the order of ``INCIDENT``."""
    return incident.key, incident.state.value, incident.opened_at, incident.first_at, to_json(incident)


def storable(value: T, *, nul: bool = False) -> T:
    """A copy of the value that can be stored.

    Escapes lone surrogates, and NUL if the database cannot store it (``nul`` is false). Limits integers to 64 bits;
    replaces floats that are not finite by 0. Slow: use it only after the database has rejected the value.
    """
    return _scrub(value, _without_surrogates if nul else escaped)  # type: ignore[no-any-return]


def _without_surrogates(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def escaped(text: str) -> str:
    """The text with lone surrogates and NUL escaped, which every database can store."""
    return _without_surrogates(text).replace("\0", r"\x00")


def unescaped(text: str) -> str:
    r"""The opposite of ``escaped``. Also changes a literal ``\x00``, which no ID generated by Celery contains."""
    return text.replace(r"\x00", "\0")


def _scrub(value: Any, fit: Callable[[str], str]) -> Any:  # noqa: ANN401, PLR0911 - any part of a value
    match value:
        case str():
            text = fit(value)
            return value if text == value else type(value)(text)
        case bool() | None | bytes():
            return value
        case int():
            return max(-_MAX_INTEGER, min(value, _MAX_INTEGER))
        case float():
            return value if math.isfinite(value) else 0.0
        case Mapping():
            return {_scrub(key, fit): _scrub(item, fit) for key, item in value.items()}
        case tuple() | list():
            return type(value)(_scrub(item, fit) for item in value)
        case msgspec.Struct():
            return type(value)(**{name: _scrub(getattr(value, name), fit) for name in value.__struct_fields__})
    names = [field.name for field in dataclasses.fields(value)]
    return type(value)(**{name: _scrub(getattr(value, name), fit) for name in names})
