"""Our own dashboards and alerts, asked of a real Prometheus that scrapes the daemon beside a real fleet.

Every query of a panel, an annotation or a variable returns data, and every selector of every alert and recording rule
finds series, but for those that are listed here with the reason.
"""

import itertools
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from tests.conftest import Start
from tests.deploy.test_dashboards import DASHBOARDS, load, queries
from tests.deploy.test_rules import RULES
from tests.e2e.daemon import Daemon
from tests.fleet.outcomes import client, send_outcomes
from tests.servers import CeleryWorker, Prometheus
from tests.servers.pagerduty import PagerDutyServer

JOB = "celery-monitor"
EMPTY: Mapping[str, str] = {
    r"celery_monitor_report_last_success": "no daily mail is due while the test runs",
    r"celery_monitor_unobserved_tasks_total.*> 0": "shows losses only, and nothing is lost",
    r"celery_task_lost_total.*> 0": "shows losses only, and nothing is lost",
    r"celery_monitor_events_discarded_total.*> 0": "shows what was discarded only",
    r"== 0|> bool|< bool": "a condition that is not met while all is well",
}


def filled(query: str) -> str:
    """The query with all variables set to everything."""
    query = re.sub(r"\$__(rate_interval|range|interval)", "1m", query)
    query = query.replace("$job", JOB)
    return re.sub(r"\$\{?\w+(:\w+)?\}?", ".*", query)


def variables_as_regex(query: str) -> str:
    """In a dashboard, a variable compared with ``=`` has one value; here it must match all."""
    return re.sub(r'(\w+)="(\$\w+)"', r'\1=~"\2"', query)


def excused(query: str) -> bool:
    """Whether it is listed above."""
    return any(re.search(pattern, query) for pattern in EMPTY)


def unanswered(
    prometheus: Prometheus, wanted: Mapping[str, str], seconds: float, between: Callable[[], object] = lambda: None
) -> dict[str, str]:
    """The queries without samples at the deadline. ``between`` is called every 20 s."""
    left, until, again = dict(wanted), time.monotonic() + seconds, time.monotonic() + 20
    while left and time.monotonic() < until:
        if time.monotonic() > again:
            between()
            again = time.monotonic() + 20
        left = {query: where for query, where in left.items() if not prometheus.query(query)}
        threading.Event().wait(1)
    return left


def selectors(expression: str) -> set[str]:
    """The series of an expression without conditions: metric names with their matchers."""
    names = re.findall(r"(celery_[a-z_]+|celery:[a-z0-9_:]+|up)(\{[^}]*\})?", expression)
    return {name + matchers for name, matchers in names}


def test_every_query_has_an_answer(rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """Panels, annotations, variables, alerts and recording rules."""
    rules = sorted(RULES.glob("*.rules.yml"))
    with PagerDutyServer() as pagerduty:
        settings = {
            "metrics": {"poll_interval": "1s"},
            "pagerduty": {"url": pagerduty.url, "routing_key": "k" * 32},
        }
        daemon = Daemon(tmp_path / "daemon", rabbitmq_url, settings)
        daemon.settings["schedules"] = [{"task": "fleet.sleep", "every": "1h"}]  # type: ignore[assignment]
        start(daemon)
        start(CeleryWorker(tmp_path / "worker", rabbitmq_url, concurrency=4))
        prometheus = start(Prometheus(tmp_path / "prometheus", {JOB: [f"127.0.0.1:{daemon.port}"]}, rules))
        daemon.until_ready()
        app = client(rabbitmq_url)
        ended = threading.Event()

        def work() -> None:
            for number in itertools.count():
                # Some last long enough for a scrape to meet them while they run.
                app.send_task("fleet.sleep", args=[0.02 if number % 20 else 4])
                if ended.wait(0.3):
                    return

        sender = threading.Thread(target=work, name="client", daemon=True)
        sender.start()
        try:
            prometheus.wait_for("celery_monitor_incidents_total", 60)  # at 0: else there is no increase to see
            send_outcomes(app)
            prometheus.wait_for('celery_task_failed_total{exception="ValueError"} >= 1', 60)
            send_outcomes(app, "exception", "success")
            panels = {
                filled(variables_as_regex(query)): f"{path.stem}: {query}"
                for path in DASHBOARDS
                for query in queries(path)
            }
            asked = {query: where for query, where in panels.items() if not excused(query)}
            assert len(asked) > len(panels) * 0.8
            # Where it is slow, a rate over a minute has forgotten the first ones.
            left = unanswered(prometheus, asked, 120, lambda: send_outcomes(app))
            assert left == {}, "\n".join(f"{q}  {prometheus.query(q.removesuffix('> 0'))}" for q in left)
            loaded = [
                rule
                for path in rules
                for group in yaml.safe_load(path.read_text())["groups"]
                for rule in group["rules"]
            ]
            series = {one: rule.get("alert") or rule["record"] for rule in loaded for one in selectors(rule["expr"])}
            wanted = {
                one: where for one, where in series.items()
                if not one.startswith(("celery_monitor_report_last_success", "celery_monitor_notifications_total{"))
            }  # fmt: skip
            # The recording rules have an interval of their own, of 30 s, and one of them asks for another.
            assert unanswered(prometheus, wanted, 180) == {}
            assert prometheus.firing() <= {"CeleryTaskFailed", "CeleryTaskFailureRatioHigh"}
        finally:
            ended.set()
            sender.join()


def test_the_excuses_are_needed() -> None:
    """Each listed reason belongs to an existing query."""
    everything = [filled(query) for path in DASHBOARDS for query in queries(path)]
    unused = [pattern for pattern in EMPTY if not any(re.search(pattern, query) for query in everything)]
    assert unused == []
    assert all(load(path)["title"] for path in DASHBOARDS)
