"""Grafana's dashboards: well-formed, complete, and with queries only for exported metrics."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import ROOT
from tests.servers.process import require

GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
# The metrics that the program promises, and Prometheus' own of every scrape.
METRICS = {f"celery_task_{outcome}_total" for outcome in (
    "sent", "received", "started", "succeeded", "failed", "rejected", "revoked", "retried",
)} | {
    f"celery_task_{name}_{part}" for name in ("runtime", "queue_wait_time") for part in ("bucket", "sum", "count")
} | {f"celery_monitor_commit_seconds_{part}" for part in ("bucket", "sum", "count")} | {
    "celery_worker_up", "celery_worker_tasks_active", "celery_queue_length", "celery_active_consumer_count",
    "celery_active_worker_count", "celery_active_process_count", "celery_worker_last_heartbeat_timestamp_seconds",
    "celery_worker_processed_total", "celery_worker_info", "celery_monitor_task_failures_total",
    "celery_monitor_messages_total", "celery_monitor_events_total", "celery_monitor_events_discarded_total",
    "celery_monitor_event_lag_seconds", "celery_monitor_probe_roundtrip_seconds", "celery_monitor_broker_connected",
    "celery_monitor_reconnects_total", "celery_monitor_stream_gap_seconds_total",
    "celery_monitor_unobserved_tasks_total", "celery_monitor_unnamed_failures_total", "celery_monitor_tracked_tasks",
    "celery_monitor_limit", "celery_monitor_limit_used", "celery_monitor_limit_exceeded_total",
    "celery_monitor_tracked_tasks_evicted_total", "celery_monitor_unacked_messages",
    "celery_monitor_store_bytes", "celery_monitor_store_room_bytes", "celery_monitor_store_given_up_total",
    "celery_monitor_store_rolled_back_total",
    "celery_monitor_commit_failures_total", "celery_monitor_incidents_total", "celery_monitor_incidents_open",
    "celery_monitor_incidents_open_by_condition", "celery_task_oldest_started_seconds", "celery_task_lost_total",
    "celery_queue_load", "celery_monitor_silences_active", "celery_monitor_silenced_failures_total",
    "celery_schedule_last_run_timestamp_seconds", "celery_schedule_missing", "celery_schedule_missed_total",
    "celery_schedule_not_judged_total",
    "celery_monitor_notifications_total", "celery_monitor_outbox_pending", "celery_monitor_outbox_oldest_seconds",
    "celery_monitor_report_last_success_timestamp_seconds", "celery_monitor_build_info", "celery_monitor_leader",
    "up", "scrape_duration_seconds",
}  # fmt: skip
UNITS = {"short", "s", "percentunit", "dateTimeFromNow"}
TYPES = {"stat", "timeseries", "table", "bargauge", "heatmap", "state-timeline"}

each_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def load(path: Path) -> dict[str, Any]:
    """A dashboard's JSON."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def panels(path: Path) -> list[dict[str, Any]]:
    """The panels with data."""
    return [panel for panel in load(path)["panels"] if panel["type"] != "row"]


def queries(path: Path) -> list[str]:
    """Every PromQL expression: of panels, annotations and variables."""
    content = load(path)
    found = [target["expr"] for panel in panels(path) for target in panel["targets"]]
    found += [note["expr"] for note in content["annotations"]["list"] if "expr" in note]
    values = [item["definition"] for item in content["templating"]["list"] if item["type"] == "query"]
    return found + [re.sub(r"label_values\((.*), \w+\)$", r"\1", value) for value in values]


def test_json_is_current() -> None:
    """The dashboards equal the output of deploy/grafana/build.py: run it if this fails."""
    spec = importlib.util.spec_from_file_location("build", GRAFANA / "build.py")
    assert spec
    assert spec.loader
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    files = build.built()
    assert set(files) == set(DASHBOARDS)
    assert [path.name for path, text in files.items() if path.read_text() != text] == []


def test_there_are_three() -> None:
    """Fleet, task and the monitor itself, each with its own uid and title."""
    contents = [load(path) for path in DASHBOARDS]
    assert {path.stem for path in DASHBOARDS} == {"fleet", "task", "monitor"}
    assert len({content["uid"] for content in contents}) == len({content["title"] for content in contents}) == 3
    assert all("id" not in content for content in contents)


@each_dashboard
def test_panels_are_complete(path: Path) -> None:
    """Each panel has a unique id and title, a description, a unit, a known type and a query."""
    everything = load(path)["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    shown = panels(path)
    assert len({panel["title"] for panel in shown}) == len(shown)
    for panel in shown:
        assert panel["type"] in TYPES
        assert len(panel["description"]) > 8, panel["title"]
        unit = panel["fieldConfig"]["defaults"]["unit"]
        assert unit in UNITS or unit.startswith("suffix:"), panel["title"]
        assert panel["targets"], panel["title"]
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH"[: len(panel["targets"])])


@each_dashboard
def test_panels_tile_the_page(path: Path) -> None:
    """Panels do not overlap or exceed the page, and rows have no gaps."""
    taken: set[tuple[int, int]] = set()
    for panel in load(path)["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    height = max(y for _, y in taken) + 1
    assert taken == {(x, y) for x in range(24) for y in range(height)}


@each_dashboard
def test_data_source_is_a_variable(path: Path) -> None:
    """Dashboards are not bound to one installation's data source."""
    content = load(path)
    assert any(item["name"] == "datasource" for item in content["templating"]["list"])
    sources = [item["datasource"] for panel in panels(path) for item in (panel, *panel["targets"])]
    sources += [item["datasource"] for item in content["templating"]["list"] if item["type"] == "query"]
    assert {source["uid"] for source in sources} == {"${datasource}"}


@each_dashboard
def test_metrics_are_known(path: Path) -> None:
    """Every query asks for metrics that the program exports."""
    for query in queries(path):
        names = re.findall(r"(?<![\w$\"])([a-z][a-z_]*)(?=\{)", query) or re.findall(r"^\w+$", query)
        assert names, query
        assert set(names) <= METRICS, query


@each_dashboard
def test_queries_are_filtered(path: Path) -> None:
    """Every selector is limited to the chosen job, so that two monitors do not mix."""
    for target in (target["expr"] for panel in panels(path) for target in panel["targets"]):
        selectors = re.findall(r"\{([^}]*)\}", target)
        assert selectors
        assert all('job=~"$job"' in selector for selector in selectors), target


@each_dashboard
def test_variables_are_defined(path: Path) -> None:
    """Every variable in a query or link is defined by the dashboard or by Grafana."""
    defined = {item["name"] for item in load(path)["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-zA-Z_]+)", path.read_text()))
    builtin = {"__rate_interval", "__range", "__all", "__field", "__value", "__data", "__url_time_range"}
    assert used <= defined | builtin
    assert {"datasource", "job", "fleet", "page"} <= defined


@each_dashboard
def test_links_lead_somewhere(path: Path) -> None:
    """Links between dashboards name an existing one; the others lead to the monitor's page."""
    uids = {load(dashboard)["uid"] for dashboard in DASHBOARDS}
    urls = re.findall(r'"url": "([^"]*)"', path.read_text())
    assert urls
    for url in urls:
        inner = re.match(r"/d/([a-z-]+)\?", url)
        if inner:
            assert inner[1] in uids
        else:
            assert re.match(r"\$\{page\}/(incidents|tasks/\$\{.*\})?$", url), url
    assert {link["type"] for link in load(path)["links"]} == {"dashboards", "link"}


@each_dashboard
def test_incidents_are_annotated(path: Path) -> None:
    """Each dashboard marks when incidents were opened."""
    notes = [note["expr"] for note in load(path)["annotations"]["list"] if "expr" in note]
    assert any("celery_monitor_incidents_total" in expr for expr in notes)


@each_dashboard
def test_queries_are_promql(path: Path, tmp_path: Path) -> None:
    """Prometheus can parse every query."""
    filled = [re.sub(r"\$__(rate_interval|range)", "5m", query).replace("$", "any_") for query in queries(path)]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(filled)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": path.stem, "rules": rules}]}))
    command = [require("promtool"), "check", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout
