"""Answers a scrape: negotiates the format and renders the metrics."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Final

from isal import isal_zlib
from prometheus_client import PROCESS_COLLECTOR, Metric, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from celery_monitor.adapters.prometheus.collector import MonitorCollector
from celery_monitor.adapters.prometheus.runtime_stats import RuntimeStats
from celery_monitor.adapters.prometheus.tasks import TaskRenderer
from celery_monitor.adapters.prometheus.workers import WorkerRenderer
from celery_monitor.core.model import QueueStats, Snapshot
from celery_monitor.ports import Clock, Scrape
from celery_monitor.settings.metrics import MetricsSettings

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_GZIP_LEVEL: Final = 1
"""Level of ISA-L: five times as fast as zlib's level 1 with the same compression (bench/scrape.py has the text)."""
_GZIP_WINDOW: Final = 31
"""zlib's largest window, with a gzip header."""

_MAX_UNCOMPRESSED: Final = 4 * 1024 * 1024
"""Largest answer, in bytes, that is kept uncompressed for clients that do not accept gzip."""
_PACKED_AT_ONCE: Final = 1024 * 1024
"""Bytes of text that are compressed per call. Each call releases the interpreter lock, and may then wait 5 ms for it
(``sys.getswitchinterval``) while another thread computes: with 100 calls, a scrape took ten times as long."""
_UNPACKED_AT_ONCE: Final = 4096
"""Compressed bytes that are decompressed at once; they expand about twentyfold."""


@dataclass(frozen=True, slots=True)
class Format:
    """The negotiated format of an answer."""

    openmetrics: bool
    gzip: bool


class Exposition:
    """Implements ports.Metrics with callables that answer from memory.

    ``snapshot`` returns None until the store has been read; until then no metrics of the fleet are exported.
    ``rendering``: a context that is entered for each scrape.
    """

    def __init__(
        self,
        settings: MetricsSettings,
        clock: Clock,
        *,
        snapshot: Callable[[], Snapshot | None],
        queues: Callable[[], Sequence[QueueStats]],
        runtime: Callable[[], RuntimeStats],
        rendering: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._snapshot = snapshot
        self._queues = queues
        self._runtime = runtime
        self._tasks = TaskRenderer(settings.prefix, settings.static_labels, hostname_label=settings.hostname_label)
        self._workers = WorkerRenderer(settings.prefix, settings.static_labels)
        self._rendering = rendering

    def choose(self, accept: str, accept_encoding: str) -> Format:
        """OpenMetrics if it is accepted and text is not preferred; gzip if it is accepted."""
        return Format(openmetrics=_prefers_openmetrics(accept), gzip=_quality(accept_encoding, "gzip") > 0)

    def render(self, chosen_format: Hashable) -> Scrape:
        """The current metrics in the format that ``choose`` returned."""
        if not isinstance(chosen_format, Format):
            raise TypeError("render takes a format that choose returned")
        with self._rendering():
            return self._render(chosen_format)

    def _render(self, chosen_format: Format) -> Scrape:
        chunks = self._chunks(openmetrics=chosen_format.openmetrics)
        headers = [
            ("content-type", OPENMETRICS if chosen_format.openmetrics else TEXT),
            ("vary", "accept, accept-encoding"),
        ]
        if chosen_format.gzip:
            packed = _Packed(chunks)
            return Scrape([packed.data], [*headers, ("content-encoding", "gzip")], len(packed.data))
        plain, size = [], 0
        for chunk in chunks:
            plain.append(chunk)
            size += len(chunk)
            if size > _MAX_UNCOMPRESSED:
                packed = _Packed(chain(plain, chunks))
                return Scrape(packed, headers, packed.size)
        return Scrape(plain, headers, size)

    def _chunks(self, *, openmetrics: bool) -> Iterator[bytes]:
        stats = self._runtime()
        snapshot = self._snapshot() if stats.leader else None
        if snapshot is not None:
            yield from self._tasks.render(snapshot.series, snapshot.registered, openmetrics=openmetrics)
            yield from self._workers.render(snapshot.workers, openmetrics=openmetrics)
        rest = _Rest(
            MonitorCollector(
                snapshot,
                self._queues(),
                stats,
                now=self._clock.now(),
                prefix=self._settings.prefix,
                static_labels=self._settings.static_labels,
            ),
            self._settings.static_labels,
        )
        yield generate_openmetrics(rest) if openmetrics else generate_latest(rest)  # type: ignore[no-untyped-call]


class _Packed:
    """A body that is kept compressed and decompressed while it is sent.

    Slow clients keep their answers in memory for a long time, and each client has its own.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        packer = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
        packed: list[bytes] = []
        self.size = 0
        for block in _blocks(chunks):
            self.size += len(block)
            packed.append(packer.compress(block))
        packed.append(packer.flush())
        self.data = b"".join(packed)

    def __iter__(self) -> Iterator[bytes]:
        unpacker = isal_zlib.decompressobj(_GZIP_WINDOW)
        for start in range(0, len(self.data), _UNPACKED_AT_ONCE):
            if chunk := unpacker.decompress(self.data[start : start + _UNPACKED_AT_ONCE]):
                yield chunk


def _blocks(chunks: Iterable[bytes]) -> Iterator[bytes | memoryview]:
    """The same bytes in blocks of at most about _PACKED_AT_ONCE, each valid until the next one.

    They share one buffer, because allocating each block would take a third of a scrape's time.
    """
    buffer = memoryview(bytearray(_PACKED_AT_ONCE))
    used = 0
    for chunk in chunks:
        if used + len(chunk) > len(buffer):
            yield buffer[:used]
            used = 0
        if len(chunk) > len(buffer):
            yield chunk
            continue
        buffer[used : used + len(chunk)] = chunk
        used += len(chunk)
    yield buffer[:used]


class _Rest(Collector):
    """The part that prometheus_client renders: the monitor's collector and the standard process metrics."""

    def __init__(self, monitor: Collector, static_labels: Mapping[str, str]) -> None:
        self._monitor = monitor
        self._static = static_labels

    def collect(self) -> Iterator[Metric]:
        yield from self._monitor.collect()
        for metric in PROCESS_COLLECTOR.collect():
            metric.samples = [sample._replace(labels={**sample.labels, **self._static}) for sample in metric.samples]
            yield metric


def _prefers_openmetrics(accept: str) -> bool:
    openmetrics = _quality(accept, "application/openmetrics-text", versions=("", "1.0.0"))
    return openmetrics > 0 and openmetrics >= _quality(accept, "text/plain")


def _quality(header: str, media_type: str, versions: tuple[str, ...] = ()) -> float:
    """The highest ``q`` of ``media_type`` in an Accept or Accept-Encoding header, else 0. Wildcards are ignored."""
    best = 0.0
    for item in header.split(","):
        name, *rest = (part.strip().lower() for part in item.split(";"))
        parameters = dict(part.partition("=")[::2] for part in rest)
        if name == media_type and (not versions or parameters.get("version", "") in versions):
            best = max(best, _number(parameters.get("q", "1")))
    return best


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
