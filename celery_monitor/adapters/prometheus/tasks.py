"""The per-task families, rendered by templates.

A fleet of 500 tasks on 4 queues has 84,000 lines of them, for which prometheus_client's renderer needs 400 ms with the
interpreter's lock held. Here a histogram of one series is one ``%`` of a template that holds all of its lines. The text
comes in portions of some hundred kilobytes, so that no single call holds the lock for more than a millisecond, and the
thread that reads events gets its turns. Nothing that the garbage collector would count is made for each series: its
pauses would be longer than any of these calls.
"""

import math
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.utils import floatToGoString

from celery_monitor.adapters.prometheus import labels
from celery_monitor.adapters.prometheus.families import TASK_COUNTERS, TASK_FAILURES, TASK_RUNTIME, TASK_WAIT, Family
from celery_monitor.core.model import FAILED, Histogram, Series

_COUNTERS_AT_ONCE: Final = 2000
_HISTOGRAMS_AT_ONCE: Final = 500
"""Series in a portion, which has up to some hundred kilobytes."""
_LABELS: Final = "\0"
"""Stands for the labels in a template. They are put in after the numbers, and no label value can hold it."""

Rows = tuple[Sequence[str], Sequence[Series]]
"""The labels of each series as they stand between the braces, and its numbers."""


class TaskRenderer:
    """Renders series under names with ``prefix``, with the static labels on every sample."""

    def __init__(self, prefix: str, static_labels: Mapping[str, str]) -> None:
        self._prefix = prefix
        self._static = "".join(f',{name}="{labels.escaped(value)}"' for name, value in static_labels.items())

    def render(
        self, series: Sequence[Series], registered: Iterable[tuple[str, str]], *, openmetrics: bool
    ) -> Iterator[str]:
        """The text of all per-task families, in portions. ``registered``: names and queues that have failures at 0."""
        rows = self._rows(series, with_host=True)
        for position, family in TASK_COUNTERS:
            yield self._head(family, openmetrics=openmetrics)
            sample = self._prefix + family.sample
            for portion in _portions(rows, _COUNTERS_AT_ONCE):
                if position == FAILED:
                    yield _failed(sample, portion, openmetrics=openmetrics)
                else:
                    yield "".join(
                        [f"{sample}{{{text}}} {one.counts[position]}\n" for text, one in zip(*portion, strict=True)]
                    )
        yield self._head(TASK_FAILURES, openmetrics=openmetrics)
        # Without hostnames, which is the default, failures have the same labels as everything else.
        hosts = any(one.key.host for one in series)
        by_task = self._rows(series, with_host=False) if hosts else rows
        for portion in _portions(by_task, _COUNTERS_AT_ONCE):
            yield _failures(self._prefix + TASK_FAILURES.sample, portion, openmetrics=openmetrics)
        seen = {(one.key.name, one.key.queue) for one in series}
        to_come = [self._labels(*pair) for pair in registered if pair not in seen]
        yield "".join([f"{self._prefix + TASK_FAILURES.sample}{{{text}}} 0\n" for text in to_come])
        yield self._head(TASK_RUNTIME, openmetrics=openmetrics)
        for texts, ones in _portions(rows, _HISTOGRAMS_AT_ONCE):
            yield _histograms(self._prefix + TASK_RUNTIME.name, texts, [one.runtime for one in ones])
        yield self._head(TASK_WAIT, openmetrics=openmetrics)
        for texts, ones in _portions(rows, _HISTOGRAMS_AT_ONCE):
            yield _histograms(self._prefix + TASK_WAIT.name, texts, [one.wait for one in ones])

    def _head(self, family: Family, *, openmetrics: bool) -> str:
        name = self._prefix + (family.name if openmetrics else family.sample)
        return f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"

    def _labels(self, name: str, queue: str) -> str:
        return f'name="{labels.escaped(name)}",queue_name="{labels.escaped(queue)}"{self._static}'

    def _rows(self, series: Sequence[Series], *, with_host: bool) -> Rows:
        """Each set of labels once: hosts differ in more than their label shows (``a@box`` and ``b@box``)."""
        found: dict[str, Series] = {}
        for one in series:
            key = one.key
            text = self._labels(key.name, key.queue)
            if with_host and key.host:
                text += f',hostname="{labels.escaped(labels.host(key.host))}"'
            known = found.get(text)
            found[text] = one if known is None else _merged(known, one)
        return list(found), list(found.values())


def _portions(rows: Rows, at_once: int) -> Iterator[Rows]:
    texts, series = rows
    for start in range(0, len(texts), at_once):
        yield texts[start : start + at_once], series[start : start + at_once]


def _failures(sample: str, rows: Rows, *, openmetrics: bool) -> str:
    return "".join(
        [
            f"{sample}{{{text}}} {one.counts[FAILED]}{_exemplar(one) if openmetrics else ''}\n"
            for text, one in zip(*rows, strict=True)
        ]
    )


def _failed(sample: str, rows: Rows, *, openmetrics: bool) -> str:
    """Failures by exception, and the series with an empty exception that celery-exporter has too."""
    lines = []
    for text, one in zip(*rows, strict=True):
        last = one.exemplar[0] if openmetrics and one.exemplar else None
        for exception, count in {"": 0, **one.exceptions}.items():
            told = _exemplar(one) if exception == last and count else ""
            lines.append(f'{sample}{{{text},exception="{labels.escaped(exception)}"}} {count}{told}\n')
    return "".join(lines)


def _histograms(name: str, texts: Sequence[str], histograms: Sequence[Histogram]) -> str:
    bounds, template = None, ""
    lines = []
    for text, histogram in zip(texts, histograms, strict=True):
        if histogram.bounds is not bounds:
            bounds = histogram.bounds
            template = _template(name, bounds)
        counts = tuple(accumulate(histogram.counts))
        lines.append((template % (*counts, counts[-1], histogram.sum)).replace(_LABELS, text))
    return "".join(lines)


_unusual: Final = re.compile(r"[^0-9A-Za-z._:@/-]").sub


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
