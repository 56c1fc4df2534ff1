"""What Prometheus reads."""

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
    """What the names of all metrics of the fleet begin with. The default fits celery-exporter's
    dashboards."""
    hostname_label: bool = False
    """Whether task metrics carry the worker's hostname. It multiplies their number by that of the pods."""
    max_task_names: int = Field(default=10_000, ge=1)
    """Task names with series of their own; more are counted together under one name, so that a fleet that
    invents names cannot fill Prometheus."""
    max_series: int = Field(default=10_000, ge=1)
    """Combinations of task name, queue, host and exception class that are counted apart: what
    ``celery_task_failed_total`` has series of. With the default buckets one without failures is 42 time
    series, 4 kB of a scrape and 3 kB of memory. Beyond it those that were used the longest time ago are
    added up under the name ``other``."""
    max_workers: int = Field(default=5_000, ge=1)
    """Workers that are shown. Beyond it those that are down are dropped first, and new ones are not shown."""
    runtime_buckets: Buckets = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
    """Upper bounds of the histogram of run times, in seconds, ascending."""
    queue_wait_buckets: Buckets = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
    """Upper bounds of the histogram of waiting times (started - sent, less the ETA), in seconds,
    ascending."""
    default_queue_name: Text = "celery"
    """The label ``queue_name`` of tasks whose queue is unknown, as Celery's ``task_default_queue``."""
    static_labels: dict[LabelName, str] = Field(default={})
    """Labels that every metric carries, for example ``{env: production}``."""
    worker_timeout: Annotated[float, duration("1s")] = 5 * MINUTE
    """A worker without a heartbeat for so long has ``worker_up`` 0."""
    worker_purge: Duration = Field(default="10m", validate_default=True)
    """And after so long without a heartbeat its series go, so that dead pods do not pile up."""
    poll_interval: Annotated[float, duration("1s")] = 15.0
    """How often queue lengths and the workers' state are asked for, in the background and never in a
    scrape."""
    queues: tuple[Text, ...] = ()
    """Queues whose length is reported though no worker consumes them yet."""

    @field_validator("worker_purge")
    @classmethod
    def _after_timeout(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("worker_timeout", 0.0):
            raise ValueError("must not be shorter than worker_timeout")
        return value
