"""The per-task families built and rendered by prometheus_client: slow, and the reference for ours."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, Exemplar, HistogramMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.utils import floatToGoString

from celery_monitor.adapters.prometheus import labels
from celery_monitor.adapters.prometheus.families.tasks import TASK_COUNTERS, TASK_FAILURES, TASK_RUNTIME, TASK_WAIT
from celery_monitor.core.model import FAILED, Histogram, Series

PREFIX = "celery_"


class Reference:
    """A collector of series that share no labels."""

    def __init__(self, series: Sequence[Series], static_labels: Mapping[str, str]) -> None:
        self.series = series
        self.static = static_labels

    def collect(self) -> Iterator[Metric]:
        for position, family in TASK_COUNTERS:
            metric = CounterMetricFamily(PREFIX + family.name, family.help)
            for one in self.series:
                if position == FAILED:
                    for exception, count in ({"": 0} | dict(one.exceptions)).items():
                        last = one.exemplar and one.exemplar[0] == exception and count
                        label_values = self.labels(one) | {"exception": labels.label_text(exception)}
                        metric.add_sample(
                            PREFIX + family.sample, label_values, count, exemplar=exemplar_of(one) if last else None
                        )
                else:
                    metric.add_sample(PREFIX + family.sample, self.labels(one), one.counts[position])
            yield metric
        metric = CounterMetricFamily(PREFIX + TASK_FAILURES.name, TASK_FAILURES.help)
        for one in self.series:
            label_values = {key: value for key, value in self.labels(one).items() if key != "hostname"}
            metric.add_sample(
                PREFIX + TASK_FAILURES.sample, label_values, one.counts[FAILED], exemplar=exemplar_of(one)
            )
        yield metric
        for family, histograms in (
            (TASK_RUNTIME, [one.runtime for one in self.series]),
            (TASK_WAIT, [one.wait for one in self.series]),
        ):
            histogram = HistogramMetricFamily(PREFIX + family.name, family.help)
            for one, numbers in zip(self.series, histograms, strict=True):
                self.add(histogram, self.labels(one), numbers)
            yield histogram

    def labels(self, one: Series) -> dict[str, str]:
        label_values = {
            "name": labels.label_text(one.key.name),
            "queue_name": labels.label_text(one.key.queue),
            **self.static,
        }
        return label_values | ({"hostname": labels.host(one.key.host)} if one.key.host else {})

    def add(self, metric: HistogramMetricFamily, label_values: dict[str, str], numbers: Histogram) -> None:
        cumulative = list(accumulate(numbers.counts))
        for bound, count in zip((*numbers.bounds, float("inf")), cumulative, strict=True):
            metric.add_sample(f"{metric.name}_bucket", label_values | {"le": floatToGoString(bound)}, count)  # type: ignore[no-untyped-call]
        metric.add_sample(f"{metric.name}_count", label_values, cumulative[-1])
        metric.add_sample(f"{metric.name}_sum", label_values, numbers.sum)

    def text(self) -> str:
        return generate_latest(self).decode()

    def openmetrics(self) -> str:
        rendered: bytes = generate_openmetrics(self)  # type: ignore[no-untyped-call]
        return rendered.decode()


def exemplar_of(one: Series) -> Exemplar | None:
    """The exemplar of the last failure."""
    if one.exemplar is None:
        return None
    _, task_id, at = one.exemplar
    return Exemplar({"task_id": re.sub(r"[^0-9A-Za-z._:@/-]", "?", task_id[:100])}, 1.0, at)
