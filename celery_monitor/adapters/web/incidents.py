"""Lists of incidents with filters that the Reader does not support, and one incident with its error groups."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from celery_monitor.adapters.web.diagnosis import OF_QUEUES
from celery_monitor.adapters.web.filters import address
from celery_monitor.adapters.web.parameters import Parameters
from celery_monitor.adapters.web.search import matcher
from celery_monitor.adapters.web.sorting import Order, SortColumn, numbered
from celery_monitor.adapters.web.views import Json, incident, time
from celery_monitor.core import paging
from celery_monitor.core.headline import headline
from celery_monitor.core.model import (
    BUCKET_SECONDS,
    STORM,
    Condition,
    GroupRow,
    Incident,
    IncidentOutline,
    IncidentRow,
    IncidentState,
)
from celery_monitor.core.paging import Page
from celery_monitor.core.text import OTHER
from celery_monitor.ports import ChannelInfo, Reader
from celery_monitor.settings.units import DAY

_CHUNK_SIZE: Final = 500
_MAX_TASKS: Final = 20
"""Maximum number of a storm's tasks whose error groups are queried, with one query each."""
MAX_GROUPS: Final = 50
_OPEN: Final = 3
"""Number of open incidents that a task's page shows."""

FILTERS: Final = ("task", "exception", "state", "key", "condition", "since", "until")


COLUMNS: Final = (
    SortColumn("began", "Began", lambda one: one.first_at),
    SortColumn("state", "State", lambda one: (one.state, one.severity), down=False),
    SortColumn("task", "Task", lambda one: (one.task or one.subject, one.condition), down=False),
    SortColumn("failures", "Failures", lambda one: one.count, numeric=True),
    SortColumn("last", "Last failure", lambda one: one.last_at),
    SortColumn("sent", "Sent"),
)


@dataclass(frozen=True, slots=True)
class IncidentFilter:
    """The incidents to list; None means any. ``task`` and ``exception`` are predicates on names."""

    task: Callable[[str], bool] | None
    exception: Callable[[str], bool] | None
    state: IncidentState | None
    key: str | None
    condition: str | None
    since: float | None
    until: float | None
    cursor: str | None
    limit: int

    def matches(self, outline: IncidentOutline) -> bool:
        """Whether an incident matches the filters on names and condition. A storm matches by any of its tasks."""
        return (self.task is None or self.task(outline.task) or any(map(self.task, outline.tasks))) and (
            (self.exception is None or any(map(self.exception, outline.exceptions)))
            and (self.condition is None or self.condition == outline.condition)
        )


def filter_of(
    query: Parameters, names: Sequence[str] | None = None, kinds: Sequence[str] | None = None
) -> IncidentFilter:
    """The filter in a request. Raises ParameterError.

    With ``names`` and ``kinds``, the known tasks and exceptions, a text that is not a known name matches names that
    contain it.
    """
    since, until = query.span()
    return IncidentFilter(
        task=_name_filter(query.name("task"), names),
        exception=_name_filter(query.name("exception"), kinds),
        state=_state(query),
        key=query.name("key"),
        condition=query.choice("condition", tuple(Condition)),
        since=since,
        until=until,
        cursor=query.cursor(),
        limit=query.limit(),
    )


def _name_filter(text: str | None, names: Sequence[str] | None) -> Callable[[str], bool] | None:
    if text is None:
        return None
    return text.__eq__ if names is None or text in names else matcher(text)


def _state(query: Parameters) -> IncidentState | None:
    text = query.choice("state", tuple(IncidentState))
    return None if text is None else IncidentState(text)


def list_item(row: IncidentRow) -> Json:
    """An incident in a list, with texts for the page."""
    value = row.incident
    return incident(row) | {
        "last_failure": last_failure(value),
        "failures": failures_of(value),
        "storm": value.is_storm,
    }


def are_sent(channels: Sequence[ChannelInfo]) -> bool:
    """Whether incidents are sent to any channel."""
    return any(channel.configured for channel in channels if channel.incidents)


def last_failure(value: Incident) -> str:
    """The message of the last failure with its class, because a KeyError's message alone is just a name.

    For another condition, its headline.
    """
    if value.condition is not Condition.FAILURE:
        return headline(replace(value, fleet=""))
    kind, message = _last_class(value), " ".join(value.message.split())
    if not kind or message.startswith(kind):
        return message
    return f"{kind}: {message}" if message else kind


def _last_class(value: Incident) -> str:
    """The class of the last failure: the one that the end of the last traceback names; "" if it names none."""
    if len(value.exceptions) == 1:
        return next(iter(value.exceptions))
    for line in reversed(value.traceback.splitlines()):
        class_name = line.partition(":")[0].rpartition(".")[2]
        if class_name in value.exceptions:
            return class_name
    return ""


def headline_of(value: Incident) -> str:
    """The headline for the page: what failed and how often, or the condition that holds."""
    if value.condition is not Condition.FAILURE:
        return headline(replace(value, fleet=""))
    if value.is_storm:
        return f"A storm of {len(value.tasks)} tasks"
    return f"{value.task} failed" + ("" if value.count == 1 else f" {value.count:,} times")


def failures_of(value: Incident) -> str:
    """The address of an incident's failures, relative to the root.

    Failures of other tasks are excluded unless the incident has several tasks.
    """
    task = value.task if value.task != STORM and len(value.tasks) < 2 else None  # noqa: PLR2004 - several
    # Times have a resolution of a millisecond, and ``until`` is exclusive.
    return address("failures", task=task, since=time(value.first_at), until=time(value.last_at + 0.001))


def find(reader: Reader, key: str) -> tuple[IncidentRow, list[GroupRow]] | None:
    """An incident with the error groups of its tasks, most failures first; None if it is not stored.

    Groups are counted by quarters of an hour, so they may include failures shortly before the first one.
    """
    rows = reader.incidents(limit=1, key=key).rows
    if not rows:
        return None
    value = rows[0].incident
    if value.condition is not Condition.FAILURE:
        return rows[0], []
    counts = value.tasks or {value.task: value.count}
    tasks = sorted((task for task in counts if task != OTHER), key=lambda task: -counts[task])
    since, until = value.first_at - value.first_at % BUCKET_SECONDS, value.last_at + 0.001
    groups = [
        group
        for task in tasks[:_MAX_TASKS]
        for group in reader.groups(since, until, name=task, samples=MAX_GROUPS)[:MAX_GROUPS]
    ]
    return rows[0], sorted(groups, key=lambda group: -group.count)[:MAX_GROUPS]


def unknown(retention: float) -> str:
    """Message for an unknown key. ``retention`` in seconds."""
    return (
        "no incident with this key is stored: incidents are deleted after the retention "
        f"(store.retention, {retention / DAY:.3g} days)"
    )


def page(reader: Reader, criteria: IncidentFilter, at_most: float = math.inf) -> Page[IncidentRow]:
    """A page of the matching incidents, newest first. Raises InvalidCursorError.

    ``at_most``: maximum number of incidents that are read for a filter without index. The next page continues there.
    """
    outlines: list[IncidentOutline] = []
    cursor, read = criteria.cursor, 0
    while True:
        chunk = _outlines(reader, criteria, _CHUNK_SIZE, cursor)
        outlines += [outline for outline in chunk.rows if criteria.matches(outline)]
        read += len(chunk.rows)
        if len(outlines) > criteria.limit or chunk.next is None:
            visible = paging.page(outlines, criteria.limit, lambda outline: (outline.first_at, outline.key))
            return Page(_rows(reader, visible.rows), visible.next)
        if read >= at_most:
            return Page(_rows(reader, outlines), chunk.next)
        cursor = chunk.next


def open_of(reader: Reader, task: str) -> Sequence[IncidentRow]:
    """The newest open incidents of a task, including storms; only the newest open incidents are searched."""
    criteria = IncidentFilter(
        task=task.__eq__,
        exception=None,
        state=IncidentState.OPEN,
        key=None,
        condition=None,
        since=None,
        until=None,
        cursor=None,
        limit=_OPEN,
    )
    return page(reader, criteria, _CHUNK_SIZE).rows


def open_in(reader: Reader, queue: str, tasks: Collection[str]) -> list[IncidentRow]:
    """Open incidents of a queue, and those of its ``tasks`` in it, newest first; only the newest are searched."""

    def may_match(outline: IncidentOutline) -> bool:
        return _is_about(outline, queue) or any(task in tasks for task in outline.tasks or (outline.task,))

    outlines = reader.outlines(limit=_CHUNK_SIZE, state=IncidentState.OPEN).rows
    rows = _rows(reader, [outline for outline in outlines if may_match(outline)])
    return [row for row in rows if _is_about(row.incident, queue) or queue in row.incident.queues]


def _is_about(value: Incident | IncidentOutline, queue: str) -> bool:
    return value.condition in OF_QUEUES and value.subject == queue


def is_default(ordering: Order) -> bool:
    """Whether the order is newest first, which the store supports."""
    return ordering.column.name == COLUMNS[0].name and ordering.down


def in_order(
    reader: Reader, criteria: IncidentFilter, ordering: Order, number: str, at_most: int
) -> tuple[Page[IncidentRow], int, int]:
    """A page of the newest ``at_most`` incidents sorted by a column, its number, and the number of pages."""
    outlines = [outline for outline in _outlines(reader, criteria, at_most, None).rows if criteria.matches(outline)]
    if ordering.column.name == "sent":
        sent_at = reader.delivered()
        outlines.sort(key=lambda outline: sent_at.get(outline.key, 0.0), reverse=ordering.down)
    else:
        outlines.sort(key=ordering.column.key, reverse=ordering.down)
    at, pages = numbered(number, len(outlines), criteria.limit)
    return Page(_rows(reader, outlines[(at - 1) * criteria.limit : at * criteria.limit])), at, pages


def _outlines(reader: Reader, criteria: IncidentFilter, limit: int, cursor: str | None) -> Page[IncidentOutline]:
    return reader.outlines(
        since=criteria.since, until=criteria.until, limit=limit, cursor=cursor, key=criteria.key, state=criteria.state
    )


def _rows(reader: Reader, outlines: Sequence[IncidentOutline]) -> list[IncidentRow]:
    """The complete incidents in the same order, without those that were deleted meanwhile."""
    if not outlines:
        return []
    by_key = {
        row.incident.key: row
        for row in reader.incidents(limit=len(outlines), keys=[outline.key for outline in outlines]).rows
    }
    return [by_key[outline.key] for outline in outlines if outline.key in by_key]
