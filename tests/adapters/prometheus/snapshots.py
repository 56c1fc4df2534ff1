"""Snapshots for the tests: hand-made, large, and drawn by hypothesis."""

import math
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st
from msgspec import structs

from celery_monitor.adapters.prometheus.exposition import Exposition, Format
from celery_monitor.adapters.prometheus.runtime_stats import RuntimeStats
from celery_monitor.core.model import COUNTS, Histogram, QueueStats, Series, SeriesKey, Snapshot, Worker
from celery_monitor.settings.metrics import MetricsSettings
from tests.fakes import ManualClock

BOUNDS = (0.005, 0.25, 1.0, 30.0)
TEXT = Format(openmetrics=False, gzip=False)
OPENMETRICS = Format(openmetrics=True, gzip=False)


def histogram(*counts: int, total: float = 0.0) -> Histogram:
    """With BOUNDS; counts that are not given are 0."""
    return Histogram(BOUNDS, counts + (0,) * (len(BOUNDS) + 1 - len(counts)), total)


def series(name: str = "shop.charge", queue: str = "celery", host: str = "", **changes: object) -> Series:
    """A series whose counts are 0 except for those given by name (``failed=3``)."""
    counts = tuple(int(str(changes.pop(count, 0))) for count in COUNTS)
    made = Series(SeriesKey(name, queue, host), counts, {}, histogram(), histogram())
    return structs.replace(made, **changes)


def worker(hostname: str = "celery@box", **changes: object) -> Worker:
    """A worker that is up."""
    made = Worker(hostname, up=True, last_heartbeat=1_700_000_000.25, active=2, processed=10, pid=7)
    return structs.replace(made, **changes)


def snapshot(*rows: Series, **changes: object) -> Snapshot:
    """The snapshot of a monitor with these series."""
    made = Snapshot(
        now=1_700_000_000.0,
        series=rows,
        workers=(),
        counters={},
        incidents={},
        incidents_open=0,
        tracked=0,
        lag=None,
        probe_roundtrip=None,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def exposition(
    shown: Snapshot | None,
    *,
    queues: Sequence[QueueStats] = (),
    stats: RuntimeStats | None = None,
    settings: MetricsSettings | None = None,
) -> Exposition:
    """An exposition that always shows this snapshot."""
    return Exposition(
        settings or MetricsSettings(),
        ManualClock(),
        snapshot=lambda: shown,
        queues=lambda: queues,
        runtime=lambda: stats or RuntimeStats(),
    )


def rendered(
    shown: Snapshot | None,
    form: Format = TEXT,
    *,
    queues: Sequence[QueueStats] = (),
    stats: RuntimeStats | None = None,
    settings: MetricsSettings | None = None,
) -> str:
    """The text of an exposition."""
    made = exposition(shown, queues=queues, stats=stats, settings=settings)
    return b"".join(made.render(form).body).decode()


# --- drawn -----------------------------------------------------------------------------------------------------------
hostile = st.text(
    st.one_of(st.characters(), st.sampled_from('\\"\n{}=, #\0\x7f\u2028\ud800é')), min_size=0, max_size=250
)
# Beyond 2**53 prometheus_client, which counts in floats, is the one that is wrong.
_counts = st.integers(0, 2**50)
_seconds = st.floats(0, 1e15)
_histograms = st.builds(
    lambda counts, total: Histogram(BOUNDS, tuple(counts), total),
    st.lists(_counts, min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1),
    _seconds | st.just(math.inf),
)
_exemplars = st.none() | st.tuples(hostile, hostile, st.floats(0, 4e9))
_series = st.builds(
    Series,
    key=st.builds(SeriesKey, hostile, hostile, st.just("") | hostile),
    counts=st.lists(_counts, min_size=len(COUNTS), max_size=len(COUNTS)).map(tuple),
    exceptions=st.dictionaries(hostile, _counts, max_size=3),
    runtime=_histograms,
    wait=_histograms,
    exemplar=_exemplars,
)
series_lists = st.lists(_series, max_size=6, unique_by=lambda one: (one.key.name, one.key.queue))
"""Series that share no labels."""
_workers = st.builds(
    Worker,
    hostname=hostile,
    up=st.booleans(),
    last_heartbeat=_seconds,
    active=_counts,
    processed=_counts,
    pid=st.just(1),
    sw_ident=hostile,
    sw_ver=hostile,
    sw_sys=hostile,
    unobserved=_counts,
)
snapshots = st.builds(
    Snapshot,
    now=_seconds,
    series=series_lists,
    workers=st.lists(_workers, max_size=3, unique_by=lambda one: one.hostname),
    counters=st.dictionaries(st.sampled_from(["messages", "evicted"]) | hostile.map("events.".__add__), _seconds),
    incidents=st.dictionaries(hostile, _counts, max_size=3),
    incidents_open=_counts,
    tracked=_counts,
    lag=st.none() | _seconds,
    probe_roundtrip=st.none() | _seconds,
)
