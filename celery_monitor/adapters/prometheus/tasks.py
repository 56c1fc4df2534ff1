"""Renders the per-task families, column by column.

A fleet of 500 tasks on 4 queues has 84,000 such lines, for which prometheus_client's renderer takes 400 ms with the
interpreter lock held. Here the lines of many series are rendered at once: their fixed parts, labels and values are
written into one list, each kind by one slice assignment, and joined. The values are formatted by one call of msgspec,
which takes a third of the time of Python's own formatting. A chunk has at most about a hundred kilobytes, so that no
single call holds the lock for more than a millisecond and delays the thread that reads events.
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
"""Series per chunk, which has at most about a hundred kilobytes. Larger blocks are returned to the operating system
each time, and new memory pages take a fifth of a scrape's time.
"""
Rows = tuple[Sequence[bytes], Sequence[Series]]
"""The text of each series' labels, and the series."""


class TaskRenderer:
    """Renders the tasks' metrics with a name prefix and static labels."""

    def __init__(self, prefix: str, static_labels: Mapping[str, str], *, hostname_label: bool) -> None:
        self._prefix = prefix
        self._hostname_label = hostname_label
        self._known: tuple[Sequence[tuple[str, str]], Sequence[bytes]] = ((), ())
        """The registered tasks at the last scrape and their label texts; they rarely change."""
        self._static = "".join(f',{name}="{labels.escaped(value)}"' for name, value in static_labels.items())

    def render(
        self, series: Sequence[Series], registered: Sequence[tuple[str, str]], *, openmetrics: bool
    ) -> Iterator[bytes]:
        """The text of all per-task families, in chunks.

        ``registered``: (name, queue) of tasks that are exported with failures and successes of 0 before their first
        run; successes only without the hostname label, because the host is not known yet.
        """
        # Without hostnames, which is the default, failures have the same labels as all other families.
        hosts = any(item.key.host for item in series)
        rows = self._rows([item for item in series if not _is_dropped(item)] if hosts else series, with_host=True)
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
                yield from _zeros(sample, self._not_run_yet(registered, rows))
        yield self._head(TASK_FAILURES, openmetrics=openmetrics)
        by_task = self._rows(series, with_host=False) if hosts else rows
        for chunk in _chunks(by_task, _COUNTERS_AT_ONCE):
            yield _failures(self._sample(TASK_FAILURES), chunk, openmetrics=openmetrics)
        yield from _zeros(self._sample(TASK_FAILURES), self._not_run_yet(registered, by_task))
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

    def _not_run_yet(self, registered: Sequence[tuple[str, str]], rows: Rows) -> Sequence[bytes]:
        """Unique label texts of registered tasks that are not in ``rows``; two names can have the same label."""
        known, label_sets = self._known
        if registered != known:
            label_sets = list(dict.fromkeys(self._labels(*pair) for pair in registered))
            self._known = registered, label_sets
        shown = set(rows[0])
        return [text for text in label_sets if text not in shown]

    def _rows(self, series: Sequence[Series], *, with_host: bool) -> Rows:
        """One row per label text: workers on one host share it (``a@box`` and ``b@box``)."""
        by_labels: dict[bytes, Series] = {}
        for item in series:
            key = item.key
            text = self._labels(key.name, key.queue, key.host if with_host else "")
            earlier = by_labels.get(text)
            by_labels[text] = item if earlier is None else _merged(earlier, item)
        return list(by_labels), list(by_labels.values())


def _is_dropped(series: Series) -> bool:
    """Whether it contains only the failures of dropped hosts."""
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
    """Failures by exception, and the series with an empty exception that celery-exporter also exports."""
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
    """The lines of histograms with equal bounds: the aggregator resets a histogram whose bounds are configured anew."""
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
    """The lines of one series as four pieces each: start, placeholder for labels, middle, placeholder for the value.

    A line starts with the newline that ends the previous one, so that nothing has to be appended to a value.
    """
    edges = [floatToGoString(bound) for bound in (*bounds, math.inf)]  # type: ignore[no-untyped-call]
    ends = [("bucket", f',le="{edge}"}} ') for edge in edges] + [("count", "} "), ("sum", "} ")]
    return tuple(chain.from_iterable((f"\n{name}_{kind}{{".encode(), b"", end.encode(), b"") for kind, end in ends))


_unusual: Final = re.compile(r"[^0-9A-Za-z._:@/-]").sub


def _exemplar(series: Series) -> bytes:
    if series.exemplar is None:
        return b""
    _, task_id, at = series.exemplar
    # OpenMetrics allows 128 characters for an exemplar's label names and values together. Celery's task IDs need no
    # escaping, and not every parser supports escapes here.
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
