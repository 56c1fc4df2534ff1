"""The per-task families, rendered by templates.

A fleet of 500 tasks on 4 queues has 84,000 lines of them, for which prometheus_client's renderer needs 400 ms with the
interpreter's lock held. Here a histogram of one series is one ``%`` of a template that holds all of its lines. The text
is made in portions of some hundred kilobytes: several threads can make them, and no single call holds the lock for more
than a millisecond, so that the thread that reads events gets its turns.
"""

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Final, NamedTuple

from prometheus_client.utils import floatToGoString

from celery_monitor.adapters.prometheus import labels
from celery_monitor.adapters.prometheus.families import TASK_COUNTERS, TASK_FAILURES, TASK_RUNTIME, TASK_WAIT, Family
from celery_monitor.core.model import FAILED, Histogram, Series

_COUNTERS_AT_ONCE: Final = 2000
_HISTOGRAMS_AT_ONCE: Final = 250
_LABELS: Final = "\0"
"""Stands for the labels in a template. They are put in after the numbers, and no label value can hold it."""

Portion = Callable[[], str]
"""Makes a part of the exposition's text."""


class _Row(NamedTuple):
    labels: str
    """As they stand between the braces."""
    series: Series
    exemplar: str
    """Of the last failure, as it follows the number; "" for none."""


class TaskRenderer:
    """Renders series under names with ``prefix``, with the static labels on every sample."""

    def __init__(self, prefix: str, static_labels: Mapping[str, str]) -> None:
        self._prefix = prefix
        self._static = "".join(f',{name}="{labels.escaped(value)}"' for name, value in static_labels.items())

    def render(self, series: Sequence[Series], *, openmetrics: bool) -> Iterator[Portion]:
        """The text of all per-task families, in portions."""
        rows = self._rows(series, with_host=True, exemplars=openmetrics)
        # Without hostnames, which is the default, failures have the same labels as everything else.
        hosts = any(one.key.host for one in series)
        by_task = self._rows(series, with_host=False, exemplars=openmetrics) if hosts else rows
        for position, family in TASK_COUNTERS:
            lines = _failed if position == FAILED else partial(_counter, position)
            yield from self._family(family, rows, lines, _COUNTERS_AT_ONCE, openmetrics=openmetrics)
        yield from self._family(TASK_FAILURES, by_task, _failures, _COUNTERS_AT_ONCE, openmetrics=openmetrics)
        for family, histogram in (
            (TASK_RUNTIME, operator.attrgetter("series.runtime")),
            (TASK_WAIT, operator.attrgetter("series.wait")),
        ):
            lines = partial(_histograms, histogram)
            yield from self._family(family, rows, lines, _HISTOGRAMS_AT_ONCE, openmetrics=openmetrics)

    def _family(
        self,
        family: Family,
        rows: Sequence[_Row],
        lines: Callable[[str, Sequence[_Row]], str],
        at_once: int,
        *,
        openmetrics: bool,
    ) -> Iterator[Portion]:
        name = self._prefix + (family.name if openmetrics else family.sample)
        head = f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"
        yield lambda: head
        for start in range(0, len(rows), at_once):
            yield partial(lines, self._prefix + family.sample, rows[start : start + at_once])

    def _rows(self, series: Sequence[Series], *, with_host: bool, exemplars: bool) -> list[_Row]:
        """Each set of labels once: hosts differ in more than their label shows (``a@box`` and ``b@box``)."""
        found: dict[str, Series] = {}
        for one in series:
            key = one.key
            text = f'name="{labels.escaped(key.name)}",queue_name="{labels.escaped(key.queue)}"{self._static}'
            if with_host and key.host:
                text += f',hostname="{labels.escaped(labels.host(key.host))}"'
            known = found.get(text)
            found[text] = one if known is None else _merged(known, one)
        return [_Row(text, one, _exemplar(one) if exemplars else "") for text, one in found.items()]


def _counter(position: int, sample: str, rows: Sequence[_Row]) -> str:
    return "".join([f"{sample}{{{text}}} {one.counts[position]}\n" for text, one, _ in rows])


def _failures(sample: str, rows: Sequence[_Row]) -> str:
    return "".join([f"{sample}{{{text}}} {one.counts[FAILED]}{exemplar}\n" for text, one, exemplar in rows])


def _failed(sample: str, rows: Sequence[_Row]) -> str:
    """Failures by exception, and the series with an empty exception that celery-exporter has too."""
    lines = []
    for text, one, exemplar in rows:
        last = one.exemplar[0] if one.exemplar else None
        for exception, count in {"": 0, **one.exceptions}.items():
            told = exemplar if exception == last and count else ""
            lines.append(f'{sample}{{{text},exception="{labels.escaped(exception)}"}} {count}{told}\n')
    return "".join(lines)


def _histograms(histogram: Callable[[_Row], Histogram], sample: str, rows: Sequence[_Row]) -> str:
    templates: dict[tuple[float, ...], str] = {}
    lines = []
    for row in rows:
        bounds, counts, total = _parts(histogram(row))
        template = templates.get(bounds)
        if template is None:
            template = templates[bounds] = _template(sample, bounds)
        cumulative = tuple(accumulate(counts))
        lines.append((template % (*cumulative, cumulative[-1], total)).replace(_LABELS, row.labels))
    return "".join(lines)


_unusual: Final = re.compile(r"[^0-9A-Za-z._:@/-]").sub
_parts: Final = operator.attrgetter("bounds", "counts", "sum")


def _template(name: str, bounds: tuple[float, ...]) -> str:
    edges = [floatToGoString(bound) for bound in (*bounds, math.inf)]  # type: ignore[no-untyped-call]
    lines = [f'{name}_bucket{{{_LABELS},le="{edge}"}} %d\n' for edge in edges]
    return "".join([*lines, f"{name}_count{{{_LABELS}}} %d\n", f"{name}_sum{{{_LABELS}}} %r\n"])


def _exemplar(one: Series) -> str:
    if one.exemplar is None:
        return ""
    _, task_id, at = one.exemplar
    # OpenMetrics allows 128 characters for the names and values of an exemplar's labels together. The ids of Celery
    # need no escaping, and not every parser knows escapes here.
    return f' # {{task_id="{_unusual("?", task_id[:100])}"}} 1.0 {at!r}'


def _merged(one: Series, other: Series) -> Series:
    """The sum of two series that share their labels."""
    exceptions = dict(one.exceptions)
    for exception, count in other.exceptions.items():
        exceptions[exception] = exceptions.get(exception, 0) + count
    exemplars = [each.exemplar for each in (one, other) if each.exemplar is not None]
    return Series(
        key=one.key,
        counts=_sum(one.counts, other.counts),
        exceptions=exceptions,
        runtime=Histogram(
            one.runtime.bounds, _sum(one.runtime.counts, other.runtime.counts), one.runtime.sum + other.runtime.sum
        ),
        wait=Histogram(one.wait.bounds, _sum(one.wait.counts, other.wait.counts), one.wait.sum + other.wait.sum),
        exemplar=max(exemplars, key=operator.itemgetter(2), default=None),
    )


def _sum(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(map(operator.add, one, other))
