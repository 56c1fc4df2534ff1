"""The per-task families, rendered by templates.

A fleet of 500 tasks on 4 queues has 84,000 lines of them, for which prometheus_client's renderer needs 400 ms with the
interpreter's lock held. Here a histogram of one series is one ``%`` of a template that holds all of its lines. The text
comes in portions of some hundred kilobytes, so that no single call holds the lock for more than about a millisecond and
the thread that reads events gets its turns.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.utils import floatToGoString

from celery_monitor.adapters.prometheus import labels
from celery_monitor.adapters.prometheus.families import TASK_COUNTERS, TASK_FAILURES, TASK_RUNTIME, TASK_WAIT, Family
from celery_monitor.core.model import FAILED, Histogram, Series, SeriesKey

_PORTION: Final = 100
"""Series rendered at once."""
_LABELS: Final = "\0"
"""Stands for the labels in a template. They are put in after the numbers, and no label value can hold it."""

Row = tuple[str, Series]
"""The labels of a series as they stand between the braces, and its numbers."""


class TaskRenderer:
    """Renders series under names with ``prefix``, with the static labels on every sample."""

    def __init__(self, prefix: str, static_labels: Mapping[str, str]) -> None:
        self._prefix = prefix
        self._static = "".join(f',{name}="{labels.escaped(value)}"' for name, value in static_labels.items())
        self._templates: dict[tuple[str, tuple[float, ...]], str] = {}

    def render(self, series: Sequence[Series], *, openmetrics: bool) -> Iterator[str]:
        """The text of all per-task families, in portions."""
        rows = self._rows(series, with_host=True)
        # Without hostnames, which are the default, the failures have the same labels as everything else.
        by_task = self._rows(series, with_host=False) if any(one.key.host for one in series) else rows
        for position, family in TASK_COUNTERS:
            yield self._head(family, openmetrics=openmetrics)
            sample = self._prefix + family.sample
            for portion in _portions(rows):
                if position == FAILED:
                    yield "".join([_failed(sample, text, one, openmetrics=openmetrics) for text, one in portion])
                else:
                    yield "".join([f"{sample}{{{text}}} {one.counts[position]}\n" for text, one in portion])
        yield self._head(TASK_FAILURES, openmetrics=openmetrics)
        sample = self._prefix + TASK_FAILURES.sample
        for portion in _portions(by_task):
            yield "".join(
                [
                    f"{sample}{{{text}}} {one.counts[FAILED]}{_exemplar(one) if openmetrics else ''}\n"
                    for text, one in portion
                ]
            )
        yield self._head(TASK_RUNTIME, openmetrics=openmetrics)
        for portion in _portions(rows):
            yield "".join([self._histogram(TASK_RUNTIME, text, one.runtime) for text, one in portion])
        yield self._head(TASK_WAIT, openmetrics=openmetrics)
        for portion in _portions(rows):
            yield "".join([self._histogram(TASK_WAIT, text, one.wait) for text, one in portion])

    def _rows(self, series: Sequence[Series], *, with_host: bool) -> list[Row]:
        """Each set of labels once: hosts differ in more than their label shows (``a@box`` and ``b@box``)."""
        rows: dict[str, Series] = {}
        for one in series:
            key = one.key
            text = f'name="{labels.escaped(key.name)}",queue_name="{labels.escaped(key.queue)}"{self._static}'
            if with_host and key.host:
                text += f',hostname="{labels.escaped(labels.host(key.host))}"'
            known = rows.get(text)
            rows[text] = one if known is None else _merged(known, one)
        return list(rows.items())

    def _head(self, family: Family, *, openmetrics: bool) -> str:
        name = self._prefix + (family.name if openmetrics else family.sample)
        return f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"

    def _histogram(self, family: Family, text: str, histogram: Histogram) -> str:
        bounds = histogram.bounds
        template = self._templates.get((family.name, bounds))
        if template is None:
            template = self._templates[family.name, bounds] = _template(self._prefix + family.name, bounds)
        counts = tuple(accumulate(histogram.counts))
        return (template % (*counts, counts[-1], histogram.sum)).replace(_LABELS, text)


def _portions(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), _PORTION):
        yield rows[start : start + _PORTION]


def _template(name: str, bounds: tuple[float, ...]) -> str:
    edges = [floatToGoString(bound) for bound in (*bounds, math.inf)]  # type: ignore[no-untyped-call]
    lines = [f'{name}_bucket{{{_LABELS},le="{edge}"}} %d\n' for edge in edges]
    return "".join([*lines, f"{name}_count{{{_LABELS}}} %d\n", f"{name}_sum{{{_LABELS}}} %r\n"])


def _failed(sample: str, text: str, one: Series, *, openmetrics: bool) -> str:
    """The failures of a series by exception, and the one with an empty exception that celery-exporter has too."""
    counts: dict[str, int] = {"": 0}
    for exception, count in one.exceptions.items():
        label = labels.escaped(exception)
        counts[label] = counts.get(label, 0) + count
    last = labels.escaped(one.exemplar[0]) if openmetrics and one.exemplar else None
    return "".join(
        [
            f'{sample}{{{text},exception="{label}"}} {count}{_exemplar(one) if label == last else ""}\n'
            for label, count in counts.items()
        ]
    )


def _exemplar(one: Series) -> str:
    if one.exemplar is None:
        return ""
    _, task_id, at = one.exemplar
    # OpenMetrics allows 128 characters for the names and values of an exemplar's labels together.
    return f' # {{task_id="{labels.escaped(task_id[:100])}"}} 1.0 {at!r}'


def _merged(one: Series, other: Series) -> Series:
    """The sum of two series that share their labels."""
    exceptions = dict(one.exceptions)
    for exception, count in other.exceptions.items():
        exceptions[exception] = exceptions.get(exception, 0) + count
    exemplars = [each.exemplar for each in (one, other) if each.exemplar is not None]
    return Series(
        key=SeriesKey(one.key.name, one.key.queue, one.key.host),
        counts=tuple(map(int.__add__, one.counts, other.counts)),
        exceptions=exceptions,
        runtime=_added(one.runtime, other.runtime),
        wait=_added(one.wait, other.wait),
        exemplar=max(exemplars, key=lambda exemplar: exemplar[2], default=None),
    )


def _added(one: Histogram, other: Histogram) -> Histogram:
    counts = tuple(map(int.__add__, one.counts, other.counts))
    return Histogram(bounds=one.bounds, counts=counts, sum=one.sum + other.sum)
