"""Settings of the Prometheus metrics."""

import math
from itertools import pairwise
from typing import Annotated, Final

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from celery_monitor.settings.section import Section, Text
from celery_monitor.settings.units import MINUTE, Duration, duration

_OWN_LABELS: Final = frozenset({
    "celery", "channel", "exception", "hostname", "kombu", "le", "limit", "name", "outcome", "python", "quantile",
    "queue_name", "reason", "sw_ident", "sw_sys", "sw_ver", "type", "version",
})  # fmt: skip


def _ascending(value: tuple[float, ...]) -> tuple[float, ...]:
    if not value:
        raise ValueError("must contain at least one upper bound")
    if not all(math.isfinite(bound) and bound > 0 for bound in value):
        raise ValueError("must contain seconds above 0; the +Inf bucket is added automatically")
    if any(low >= high for low, high in pairwise(value)):
        raise ValueError("must be in ascending order, without duplicates")
    return value


def _free(name: str) -> str:
    if name in _OWN_LABELS or name.startswith("__"):
        raise ValueError("this name is reserved for the metrics' own labels")
    return name


Buckets = Annotated[tuple[float, ...], AfterValidator(_ascending)]
LabelName = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$"), AfterValidator(_free)]


class MetricsSettings(Section):
    """Names, labels and buckets of the metrics."""

    prefix: str = Field(default="celery_", pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")
    """The prefix of all metric names. The default works with celery-exporter's dashboards."""
    hostname_label: bool = False
    """Whether task metrics have a hostname label. It multiplies the number of series by the number of pods."""
    max_task_names: int = Field(default=10_000, ge=1)
    """The maximum number of task names with their own series. Further names are counted under the name ``other``,
    which protects Prometheus from a fleet that creates task names dynamically.
    """
    max_series: int = Field(default=10_000, ge=1)
    """The maximum number of combinations of task name, queue, host and exception class, which are the series of
    ``celery_task_failed_total``. With the default buckets, a combination without failures has 42 time series,
    and needs 4 kB of a scrape and 3 kB of memory. Beyond the limit, the least recently used combinations are
    merged into the name ``other``.
    """
    max_workers: int = Field(default=5_000, ge=1)
    """The maximum number of workers. Beyond it, workers that are down are dropped first, and new workers are
    ignored.
    """
    runtime_buckets: Buckets = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
    """Buckets of the runtime histogram in seconds, in ascending order."""
    queue_wait_buckets: Buckets = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
    """Buckets of the queue wait time histogram (from sent or ETA to started) in seconds, in ascending order."""
    default_queue_name: Text = "celery"
    """The label ``queue_name`` of tasks whose queue is unknown. The same as Celery's ``task_default_queue``."""
    static_labels: dict[LabelName, str] = Field(default={})
    """Labels that are added to every metric, for example ``{env: production}``."""
    worker_timeout: Annotated[float, duration("1s")] = 5 * MINUTE
    """``worker_up`` becomes 0 after this time without a heartbeat."""
    worker_purge: Duration = Field(default="10m", validate_default=True)
    """The worker's series are removed after this time without a heartbeat."""
    poll_interval: Annotated[float, duration("1s")] = 15.0
    """How often queue lengths and the workers' state are queried, in the background and never during a scrape."""
    queues: tuple[Text, ...] = ()
    """Queues whose length is always reported, even if no worker consumes them."""

    @field_validator("worker_purge")
    @classmethod
    def _after_timeout(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("worker_timeout", 0.0):
            raise ValueError("must not be shorter than worker_timeout")
        return value
