"""The per-task families, rendered column by column.

A fleet of 500 tasks on 4 queues has 84,000 lines of them, for which prometheus_client's renderer needs 400 ms with the
interpreter's lock held. Here the lines of many series are made at once: their fixed parts, their labels and their
numbers are set into one list, each kind by one assignment to a slice of it, and joined. The numbers are written by
msgspec, all of them in one call, which takes a third of the time of Python's own formatting. A portion has up to a
hundred kilobytes, so that no single call holds the lock for more than a millisecond, and the thread that reads events
gets its turns.
"""

import functools
import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Final

from prometheus_client.utils import floatToGoString

from celery_monitor.adapters.prometheus import columns, labels
from celery_monitor.adapters.prometheus.families import Family
from celery_monitor.adapters.prometheus.families.tasks import TASK_COUNTERS, TASK_FAILURES, TASK_RUNTIME, TASK_WAIT
from celery_monitor.core.model import FAILED, SUCCEEDED, Histogram, Series

_COUNTERS_AT_ONCE: Final = 1000
_HISTOGRAMS_AT_ONCE: Final = 50
"""Series in a portion, which has up to a hundred kilobytes: larger ones are given back to the system each time, and the
pages that come anew cost a fifth of a scrape.
"""
Rows = tuple[Sequence[bytes], Sequence[Series]]
"""The labels of each series as they stand between the braces, and its numbers."""


class TaskRenderer:
    """Renders series under names with ``prefix``, with the static labels on every sample."""

    def __init__(self, prefix: str, static_labels: Mapping[str, str], *, hostname_label: bool) -> None:
        self._prefix = prefix
        self._hostname_label = hostname_label
        self._known: tuple[Sequence[tuple[str, str]], Sequence[bytes]] = ((), ())
        """What was registered at the last scrape, and its labels: it changes seldom."""
        self._static = "".join(f',{name}="{labels.escaped(value)}"' for name, value in static_labels.items())

    def render(
        self, series: Sequence[Series], registered: Sequence[tuple[str, str]], *, openmetrics: bool
    ) -> Iterator[bytes]:
        """The text of all per-task families, in portions.

        ``registered``: names and queues that have failures and successes at 0 before either has come; successes only
        without the hostname label, because nobody knows the host to come.
        """
        # Without hostnames, which is the default, failures have the same labels as everything else.
        hosts = any(item.key.host for item in series)
        rows = self._rows([item for item in series if not _is_rest(item)] if hosts else series, with_host=True)
        for position, family in TASK_COUNTERS:
            yield self._head(family, openmetrics=openmetrics)
            sample = self._sample(family)
            for chunk in _chunks(rows, _COUNTERS_AT_ONCE):
                if position == FAILED:
                    yield _failed(sample, chunk, openmetrics=openmetrics)
                else:
                    label_sets, items = chunk
                    yield columns.lines(sample, label_sets, [item.counts[position] for item in items])
            if position == SUCCEEDED and not self._hostname_label:
                yield from _zeros(sample, self._to_come(registered, rows))
        yield self._head(TASK_FAILURES, openmetrics=openmetrics)
        by_task = self._rows(series, with_host=False) if hosts else rows
        for chunk in _chunks(by_task, _COUNTERS_AT_ONCE):
            yield _failures(self._sample(TASK_FAILURES), chunk, openmetrics=openmetrics)
        yield from _zeros(self._sample(TASK_FAILURES), self._to_come(registered, by_task))
        yield self._head(TASK_RUNTIME, openmetrics=openmetrics)
        for label_sets, items in _chunks(rows, _HISTOGRAMS_AT_ONCE):
            yield _histograms(self._prefix + TASK_RUNTIME.name, label_sets, [item.runtime for item in items])
        yield self._head(TASK_WAIT, openmetrics=openmetrics)
        for label_sets, items in _chunks(rows, _HISTOGRAMS_AT_ONCE):
            yield _histograms(self._prefix + TASK_WAIT.name, label_sets, [item.wait for item in items])

    def _head(self, family: Family, *, openmetrics: bool) -> bytes:
        return columns.head(self._prefix, family, openmetrics=openmetrics)

    def _sample(self, family: Family) -> bytes:
        return (self._prefix + family.sample).encode()

    def _labels(self, name: str, queue: str, host: str = "") -> bytes:
        hostname = f',hostname="{labels.escaped(labels.host(host))}"' if host else ""
        return f'name="{labels.escaped(name)}",queue_name="{labels.escaped(queue)}"{self._static}{hostname}'.encode()

    def _to_come(self, registered: Sequence[tuple[str, str]], rows: Rows) -> Sequence[bytes]:
        """The labels of what is registered and not among the rows, each once: two names can have the same label."""
        known, label_sets = self._known
        if registered != known:
            label_sets = list(dict.fromkeys(self._labels(*pair) for pair in registered))
            self._known = registered, label_sets
        shown = set(rows[0])
        return [text for text in label_sets if text not in shown]

    def _rows(self, series: Sequence[Series], *, with_host: bool) -> Rows:
        """Each set of labels once: hosts differ in more than their label shows (``a@box`` and ``b@box``)."""
        by_labels: dict[bytes, Series] = {}
        for item in series:
            key = item.key
            text = self._labels(key.name, key.queue, key.host if with_host else "")
            earlier = by_labels.get(text)
            by_labels[text] = item if earlier is None else _merged(earlier, item)
        return list(by_labels), list(by_labels.values())


def _is_rest(series: Series) -> bool:
    """Whether it holds only the failures of hosts that are gone."""
    return not series.key.host and not series.exceptions and sum(series.counts) == series.counts[FAILED]


def _chunks(rows: Rows, at_once: int) -> Iterator[Rows]:
    label_sets, series = rows
    for start in range(0, len(label_sets), at_once):
        yield label_sets[start : start + at_once], series[start : start + at_once]


def _zeros(sample: bytes, label_sets: Sequence[bytes]) -> Iterator[bytes]:
    for start in range(0, len(label_sets), _COUNTERS_AT_ONCE):
        chunk = label_sets[start : start + _COUNTERS_AT_ONCE]
        yield columns.lines(sample, chunk, [0] * len(chunk))


def _failures(sample: bytes, rows: Rows, *, openmetrics: bool) -> bytes:
    label_sets, items = rows
    counts = [item.counts[FAILED] for item in items]
    ends = [_exemplar(item) + b"\n" if item.exemplar else b"\n" for item in items] if openmetrics else None
    return columns.lines(sample, label_sets, counts, ends)


def _failed(sample: bytes, rows: Rows, *, openmetrics: bool) -> bytes:
    """Failures by exception, and the series with an empty exception that celery-exporter has too."""
    none = sample + b'{%b,exception=""} 0\n'
    lines = []
    for text, one in zip(*rows, strict=True):
        if not one.exceptions:
            lines.append(none % text)
            continue
        last = one.exemplar[0] if openmetrics and one.exemplar else None
        for exception, count in {"": 0, **one.exceptions}.items():
            exemplar = _exemplar(one) if exception == last and count else b""
            label = labels.escaped(exception).encode()
            lines.append(b'%b{%b,exception="%b"} %d%b\n' % (sample, text, label, count, exemplar))
    return b"".join(lines)


def _histograms(name: str, label_sets: Sequence[bytes], histograms: Sequence[Histogram]) -> bytes:
    """All have the same bounds: the aggregator begins a series anew when the settings have others."""
    row = _row(name, histograms[0].bounds)
    size = len(row)
    pieces = [*row] * len(label_sets)
    for column in range(1, size, 4):
        pieces[column::size] = label_sets
    numbers: list[int] = []
    for histogram in histograms:
        numbers += accumulate(histogram.counts)
        numbers += numbers[-1], 0
    pieces[3::4] = columns.numbers(numbers)
    pieces[size - 1 :: size] = columns.sums([histogram.sum for histogram in histograms])
    pieces[0] = pieces[0][1:]
    pieces.append(b"\n")
    return b"".join(pieces)


@functools.lru_cache(8)
def _row(name: str, bounds: tuple[float, ...]) -> tuple[bytes, ...]:
    """The lines of one series in four pieces each: begin, labels to come, what is between, number to come.

    A line begins with the newline of the one before: so nothing has to be added to a number.
    """
    edges = [floatToGoString(bound) for bound in (*bounds, math.inf)]  # type: ignore[no-untyped-call]
    ends = [("bucket", f',le="{edge}"}} ') for edge in edges] + [("count", "} "), ("sum", "} ")]
    return tuple(chain.from_iterable((f"\n{name}_{kind}{{".encode(), b"", end.encode(), b"") for kind, end in ends))


_unusual: Final = re.compile(r"[^0-9A-Za-z._:@/-]").sub


def _exemplar(series: Series) -> bytes:
    if series.exemplar is None:
        return b""
    _, task_id, at = series.exemplar
    # OpenMetrics allows 128 characters for the names and values of an exemplar's labels together. The IDs of Celery
    # need no escaping, and not every parser knows escapes here.
    return f' # {{task_id="{_unusual("?", task_id[:100])}"}} 1.0 {at!r}'.encode()


def _merged(left: Series, right: Series) -> Series:
    """The sum of two series that share their labels."""
    exceptions = dict(left.exceptions)
    for exception, count in right.exceptions.items():
        exceptions[exception] = exceptions.get(exception, 0) + count
    exemplars = [series.exemplar for series in (left, right) if series.exemplar is not None]
    return Series(
        key=left.key,
        counts=_sum(left.counts, right.counts),
        exceptions=exceptions,
        runtime=Histogram(
            left.runtime.bounds, _sum(left.runtime.counts, right.runtime.counts), left.runtime.sum + right.runtime.sum
        ),
        wait=Histogram(left.wait.bounds, _sum(left.wait.counts, right.wait.counts), left.wait.sum + right.wait.sum),
        exemplar=max(exemplars, key=operator.itemgetter(2), default=None),
    )


def _sum(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    return tuple(map(operator.add, left, right))
