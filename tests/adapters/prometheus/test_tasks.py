"""The per-task families, rendered column by column."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Metric

from celery_monitor.adapters.prometheus import labels
from celery_monitor.core.model import Series
from celery_monitor.settings.metrics import MetricsSettings
from tests.adapters.prometheus import parsing
from tests.adapters.prometheus.reference import Reference
from tests.adapters.prometheus.snapshots import (
    OPENMETRICS,
    histogram,
    hostile,
    rendered,
    series,
    series_lists,
    snapshot,
)
from tests.properties import examples

STATIC = {"env": 'a "b" \\c'}


def fleet(found: list[Metric]) -> list[Metric]:
    """The per-task families, which are the first 11."""
    return found[:11]


@given(series_lists, st.sampled_from([{}, STATIC]))
@settings(max_examples=examples(30))
def test_text_is_what_prometheus_client_writes(rows: list[Series], chosen: dict[str, str]) -> None:
    """For any names, the text format parses to the same values as prometheus_client's."""
    text = rendered(snapshot(*rows), settings=MetricsSettings(static_labels=chosen))
    assert fleet(parsing.plain(text)) == parsing.plain(Reference(rows, chosen).text())


@given(series_lists, st.sampled_from([{}, STATIC]))
@settings(max_examples=examples(30))
def test_openmetrics_is_what_prometheus_client_writes(rows: list[Series], chosen: dict[str, str]) -> None:
    """For any names, OpenMetrics passes the strict parser and equals prometheus_client's, with exemplars."""
    text = rendered(snapshot(*rows), OPENMETRICS, settings=MetricsSettings(static_labels=chosen))
    assert fleet(parsing.openmetrics(text)) == parsing.openmetrics(Reference(rows, chosen).openmetrics())


def test_any_number_of_series() -> None:
    """Beyond the size of a portion, no series is missing or misplaced."""
    rows = [
        series(
            name=f"task{index}",
            failed=index,
            exceptions={"E": index} if index % 7 == 0 else {},
            runtime=histogram(index, 1, total=index / 8),
            wait=histogram(0, index, total=float(index) if index % 70 else math.inf),
        )
        for index in range(1, 1232)
    ]
    text = rendered(snapshot(*rows), OPENMETRICS)
    assert fleet(parsing.openmetrics(text)) == parsing.openmetrics(Reference(rows, {}).openmetrics())


def lines(text: str, start: str) -> list[str]:
    """The lines that begin with ``start``."""
    return [line for line in text.splitlines() if line.startswith(start)]


def test_failed_has_a_zero_without_exception() -> None:
    """A task that never failed has a series with an empty exception at 0, as in celery-exporter."""
    assert lines(rendered(snapshot(series())), "celery_task_failed_total{") == [
        'celery_task_failed_total{name="shop.charge",queue_name="celery",exception=""} 0'
    ]


def test_failures_begin_at_zero() -> None:
    """A task's failures are 0 from its first event on, so that increase() includes the first failure."""
    assert lines(rendered(snapshot(series(received=1))), "celery_monitor_task_failures_total{") == [
        'celery_monitor_task_failures_total{name="shop.charge",queue_name="celery"} 0'
    ]


@pytest.mark.parametrize("counter", ["monitor_task_failures", "task_succeeded"])
def test_a_task_that_has_not_run(counter: str) -> None:
    """A registered task has failures and successes at 0, so that their ratio includes the first ones."""
    row = series(failed=2, succeeded=2)
    shown = snapshot(row, registered=[("shop.charge", "celery"), ("shop.charge", "pay"), ('shop."new"', "pay")])
    assert lines(rendered(shown), f"celery_{counter}_total{{") == [
        f'celery_{counter}_total{{name="shop.charge",queue_name="celery"}} 2',
        f'celery_{counter}_total{{name="shop.charge",queue_name="pay"}} 0',
        f'celery_{counter}_total{{name="shop.\\"new\\"",queue_name="pay"}} 0',
    ]


def test_nothing_else_is_shown_of_a_task_that_has_not_run() -> None:
    """Two series, of which successes are shown only without a hostname label."""
    shown = snapshot(registered=[("shop.new", "pay")])
    both = [line for line in rendered(shown).splitlines() if "shop.new" in line]
    with_hosts = rendered(shown, settings=MetricsSettings(hostname_label=True))
    assert len(both) == 2
    assert [line for line in with_hosts.splitlines() if "shop.new" in line] == both[1:]


def test_successes_of_a_fleet_that_had_hostnames() -> None:
    """After metrics.hostname_label was turned off, new successes have no hostname and start at 0."""
    text = rendered(snapshot(series(host="a@box", succeeded=5), registered=[("shop.charge", "celery")]))
    assert [line.rpartition(" ")[2] for line in lines(text, "celery_task_succeeded_total{")] == ["5", "0"]
    assert len(lines(text, "celery_monitor_task_failures_total{")) == 1


def test_tasks_that_share_their_labels_are_shown_once() -> None:
    """A name that is too long and its shortened label are one line."""
    long = "x" * 300
    pairs = [(long, "pay"), (labels.label_text(long), "pay"), (long, "mail"), (labels.label_text(long), "mail")]
    for rows in ([], [series(name=labels.label_text(long), queue="pay")], [series(name=long, queue="pay")]):
        text = rendered(snapshot(*rows, registered=pairs))
        for counter in ("monitor_task_failures", "task_succeeded"):
            assert sorted(lines(text, f"celery_{counter}_total{{")) == [
                f'celery_{counter}_total{{name="{labels.label_text(long)}",queue_name="{queue}"}} 0'
                for queue in ("mail", "pay")
            ]


@given(series_lists, st.lists(st.tuples(hostile, hostile), max_size=3))
@settings(max_examples=examples(30))
def test_no_sample_is_there_twice(rows: list[Series], pairs: list[tuple[str, str]]) -> None:
    """For any registered tasks, whether they ran or not."""
    known = [*pairs, *((one.key.name, one.key.queue) for one in rows)]
    known += [(labels.label_text(name), labels.label_text(queue)) for name, queue in known]
    found = fleet(parsing.plain(rendered(snapshot(*rows, registered=known))))
    samples = [(sample.name, *sorted(sample.labels.items())) for family in found for sample in family.samples]
    assert len(samples) == len(set(samples))


def test_failures_by_exception_keep_their_zero() -> None:
    """After failures, the series with an empty exception stays at 0 beside the others."""
    row = series(failed=3, exceptions={"ValueError": 2, "KeyError": 1})
    assert lines(rendered(snapshot(row)), "celery_task_failed_total{") == [
        'celery_task_failed_total{name="shop.charge",queue_name="celery",exception=""} 0',
        'celery_task_failed_total{name="shop.charge",queue_name="celery",exception="ValueError"} 2',
        'celery_task_failed_total{name="shop.charge",queue_name="celery",exception="KeyError"} 1',
    ]


def test_exemplars_are_for_openmetrics_only() -> None:
    """The text format has no exemplars."""
    row = series(failed=1, exceptions={"ValueError": 1}, exemplar=("ValueError", "some-task-id", 1.5))
    assert "some-task-id" not in rendered(snapshot(row))
    found = lines(rendered(snapshot(row), OPENMETRICS), "celery_monitor_task_failures_total{")
    assert found[0].endswith(' 1 # {task_id="some-task-id"} 1.0 1.5')


def test_hosts_that_share_a_label_are_added_up() -> None:
    """Two workers of one host have one set of task series with the sums."""
    rows = [
        series(host="a@box", failed=1, exceptions={"E": 1}, exemplar=("E", "first", 1.0)),
        series(host="b@box", failed=2, exceptions={"E": 1, "F": 1}, exemplar=("F", "second", 2.0)),
        series(host="c@other", failed=4, exceptions={"E": 4}),
    ]
    text = rendered(snapshot(*rows), OPENMETRICS)
    expected = 'name="shop.charge",queue_name="celery"'
    assert lines(text, "celery_task_failed_total{")[:3] == [
        f'celery_task_failed_total{{{expected},hostname="box",exception=""}} 0',
        f'celery_task_failed_total{{{expected},hostname="box",exception="E"}} 2',
        f'celery_task_failed_total{{{expected},hostname="box",exception="F"}} 1 # {{task_id="second"}} 1.0 2.0',
    ]
    assert len(lines(text, "celery_task_sent_total{")) == 2
    assert lines(text, "celery_monitor_task_failures_total{") == [
        f'celery_monitor_task_failures_total{{{expected}}} 7 # {{task_id="second"}} 1.0 2.0'
    ]
    assert parsing.openmetrics(text)


def test_failures_of_hosts_that_are_gone() -> None:
    """They stay in the task's failures, which have no host, and in nothing else."""
    gone = series(failed=3)
    live = series(host="a@box", failed=1, received=2, exceptions={"E": 1})
    text = rendered(snapshot(gone, live))
    expected = 'name="shop.charge",queue_name="celery"'
    assert lines(text, "celery_monitor_task_failures_total{") == [f"celery_monitor_task_failures_total{{{expected}}} 4"]
    for family in ("sent_total", "received_total", "failed_total", "runtime_count"):
        assert {"hostname" in line for line in lines(text, f"celery_task_{family}{{")} == {True}


def test_long_names_stay_distinct() -> None:
    """Two tasks whose names differ after 200 characters remain two tasks."""
    names = ["x" * 300, "x" * 300 + "y"]
    label_texts = {labels.label_text(name) for name in names}
    assert len(label_texts) == 2
    assert {len(label) for label in label_texts} == {labels.MAX_LENGTH}


def test_buckets_are_cumulative() -> None:
    """Each bucket contains values up to its bound, the last contains all, and equals the count."""
    row = series()
    row = Series(row.key, row.counts, {}, row.runtime.__class__(row.runtime.bounds, (1, 2, 0, 4, 8), 9.5), row.wait)
    values = [line.rpartition(" ")[2] for line in lines(rendered(snapshot(row)), "celery_task_runtime_")]
    assert values == ["1", "3", "3", "7", "15", "15", "9.5"]


def test_prefix_is_on_every_metric() -> None:
    """Another prefix renames every metric."""
    text = rendered(snapshot(series()), settings=MetricsSettings(prefix="shop_"))
    names = {line.split()[2] for line in lines(text, "# TYPE")}
    assert {name for name in names if not name.startswith(("shop_", "process_"))} == set()
    assert "shop_monitor_task_failures_total" in names


def test_many_series_are_all_there() -> None:
    """More series than a portion are rendered once each, in every family."""
    rows = [series(name=f"task{number}") for number in range(4100)]
    found = fleet(parsing.plain(rendered(snapshot(*rows))))
    assert {len({sample.labels["name"] for sample in family.samples}) for family in found} == {4100}
