"""The chart's relabelling: which series belong to the fleet, and which to a process."""

from typing import Any

import pytest

from celery_monitor.adapters.prometheus.families import FAMILIES, OF_THE_PROCESS, Family, Kind
from tests.deploy.conftest import Template
from tests.deploy.relabelling import relabelled
from tests.deploy.test_chart import one, values_file

OF_THE_POD = {"instance": "10.0.0.7:9808", "pod": "celery-monitor-5c9f-abcde", "node": "node-1"}
LASTING = {"job": "celery-monitor", "namespace": "shop", "service": "celery-monitor", "endpoint": "http"}
_SAMPLES = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}


def samples(family: Family, prefix: str) -> list[str]:
    """The names of a family's samples."""
    return [f"{prefix}{family.sample}{end}" for end in _SAMPLES.get(family.kind, ("",))]


def rules(template: Template, values: str) -> list[dict[str, Any]]:
    """The ServiceMonitor's rules for each sample."""
    (endpoint,) = one(template(values_file(values)), "ServiceMonitor")["spec"]["endpoints"]
    found: list[dict[str, Any]] = endpoint["metricRelabelings"]
    return found


@pytest.mark.parametrize(
    ("values", "prefix"), [("prometheus-operator", "celery_"), ("replicas-postgresql", "shop_celery_")]
)
def test_the_fleets_series_outlive_their_pod(template: Template, values: str, prefix: str) -> None:
    """They have no label of the pod; metrics of the process and of other programs keep these labels."""
    given = rules(template, values)
    for family in FAMILIES:
        for name in samples(family, prefix):
            labels = {"__name__": name, "name": "shop.pay", **OF_THE_POD, **LASTING}
            pod_labels = OF_THE_POD if family in OF_THE_PROCESS else {}
            assert relabelled(labels, given) == {"__name__": name, "name": "shop.pay", **pod_labels, **LASTING}
    for name in ("scrape_duration_seconds", "go_goroutines"):
        assert relabelled({"__name__": name, **OF_THE_POD}, given) == {"__name__": name, **OF_THE_POD}


def test_old_operators_leave_out_what_is_empty(template: Template) -> None:
    """Without the empty replacements, which such an operator omits, the effect is the same."""
    given = rules(template, "replicas")
    handed_on = [{key: value for key, value in rule.items() if value} for rule in given]
    assert handed_on != given
    for name in ("celery_task_failed_total", "celery_monitor_leader", "process_start_time_seconds"):
        labels = {"__name__": name, **OF_THE_POD, **LASTING}
        assert relabelled(labels, handed_on) == relabelled(labels, given)


def test_own_rules_come_last(template: Template) -> None:
    """They follow the chart's rules."""
    assert relabelled({"__name__": "process_open_fds", **OF_THE_POD}, rules(template, "replicas-postgresql")) is None


def test_counters_that_begin_anew_are_the_processes() -> None:
    """Counters since the process's start keep the pod's labels: as one series, they would decrease at a take-over."""
    since = {family for family in FAMILIES if "since the process started" in family.help}
    assert since <= OF_THE_PROCESS
