"""A real Prometheus scrapes both replicas with the chart's relabelling: each series survives every take-over."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.publish import Load
from tests import outcomes
from tests.conftest import Start
from tests.deploy.conftest import Template
from tests.deploy.relabelling import for_prometheus
from tests.deploy.test_series import rules
from tests.e2e.campaign import publishing
from tests.e2e.replicas import Pair, freeze_leader, kill_leader, pair, roll, side_by_side
from tests.e2e.test_prometheus import falling
from tests.servers import PostgreSQL, Prometheus, wait_until

JOB = "celery-monitor"
_RATE = 500.0
_TOTAL = 'celery_monitor_events_total{type="task-received"}'


@pytest.fixture
def both(rabbitmq_url: str, postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Pair]:
    """Two replicas on the session's servers."""
    with pair(rabbitmq_url, postgresql.new_database(), tmp_path / "rabbitmq") as running:
        yield running


def scraping(both: Pair, relabelling: list[dict[str, Any]], directory: Path) -> Prometheus:
    """Scrape like the Prometheus operator: each pod is a target with its own labels."""
    service = {"namespace": "shop", "service": "celery-monitor"}
    pods = {f"127.0.0.1:{one.port}": {"pod": one.directory.name, **service} for one in both.replicas}
    return Prometheus(
        directory, {JOB: list(pods)}, interval="200ms", labels=pods, relabelling=for_prometheus(relabelling)
    )


@pytest.mark.campaign
@pytest.mark.parametrize("take_overs", [2, 10])
def test_series_continue(take_overs: int, both: Pair, template: Template, start: Start, tmp_path: Path) -> None:
    """No counter decreases, no sum is doubled, nothing is missing; each replica has its own process metrics."""
    load = Load(int(take_overs * 12 * _RATE / 3.6))
    prometheus = start(scraping(both, rules(template, "replicas"), tmp_path / "prometheus"))
    prometheus.wait_for("celery_monitor_leader")
    with publishing(both.broker_url, load, _RATE):
        prometheus.wait_for(_TOTAL)
        for fault in itertools.islice(itertools.cycle([kill_leader, freeze_leader, roll]), take_overs):
            side_by_side([both], [fault], 6)
    outcomes.figures("Prometheus", **{"take-overs": len(both.done), "events": load.events})
    expected = sum(numbers["received"] for numbers in load.counts().values())
    wait_until(lambda: value(prometheus, f"sum({_TOTAL})") == expected, 60, what="all that was published")

    assert falling(prometheus) == []
    assert value(prometheus, f"max_over_time(sum({_TOTAL})[1h:200ms])") == expected
    assert value(prometheus, f"max_over_time(count({_TOTAL})[1h:200ms])") == 1
    ((labels, _),) = prometheus.query(f"last_over_time({_TOTAL}[1h])")
    assert "pod" not in labels
    pods = {"replica-a", "replica-b"}
    assert {labels["pod"] for labels, _ in prometheus.query("celery_monitor_build_info")} == pods
    led = prometheus.query("max_over_time(celery_monitor_leader[1h]) == 1")
    assert {labels["pod"] for labels, _ in led} == pods


def value(prometheus: Prometheus, expression: str) -> float | None:
    """The value of the only sample, if there is one."""
    samples = prometheus.query(expression)
    return samples[0][1] if len(samples) == 1 else None
