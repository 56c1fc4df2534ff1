"""The compose installation: its parts fit together. No engine runs here."""

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from celery_monitor.settings import load
from tests.deploy.conftest import ROOT
from tests.servers.ports import answers, free_port
from tests.servers.process import require
from tests.servers.waiting import wait_until

COMPOSE = ROOT / "deploy" / "compose"
STACK: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
# The keys of the Compose Specification that are used here: another one is a slip of the pen, or joins this list.
KNOWN = {
    "build", "cap_drop", "command", "depends_on", "entrypoint", "environment", "healthcheck", "hostname", "image",
    "init", "ports", "pull_policy", "read_only", "restart", "security_opt", "stop_grace_period", "tmpfs", "volumes",
    "working_dir",
}  # fmt: skip
OWN = "celery-monitor"


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    """Sources and targets of a service's volumes."""
    return [(source, target) for source, target, *_ in (text.split(":") for text in service.get("volumes", []))]


def test_all_parts_are_there() -> None:
    """Broker, fleet, monitor, Prometheus, Grafana, a mailbox and a replacement for PagerDuty."""
    expected = {
        "rabbitmq",
        "monitor",
        "worker",
        "billing",
        "customers",
        "pagerduty",
        "mailpit",
        "prometheus",
        "grafana",
    }
    assert SERVICES.keys() == expected


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_well_formed(name: str) -> None:
    """Each service uses known keys, waits for services that exist, and is pinned to a version."""
    service = SERVICES[name]
    assert service.keys() <= KNOWN
    assert service.get("depends_on", {}).keys() <= SERVICES.keys()
    image = service["image"]
    assert image == OWN or re.search(r":v?[0-9]+\.[0-9]+\.[0-9]+", image), image


@pytest.mark.parametrize("name", SERVICES)
def test_mounted_files_exist(name: str) -> None:
    """Each mounted file or directory exists in the project, each named volume is declared."""
    for source, _ in mounts(SERVICES[name]):
        if source.startswith("."):
            assert (COMPOSE / source).exists(), source
        else:
            assert source in STACK["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_published(name: str) -> None:
    """Ports are bound to the loopback address, because demo passwords must not be reachable from a network."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_own_containers_are_hardened(name: str) -> None:
    """Containers with the project's image have a read-only root and no capabilities."""
    service = SERVICES[name]
    if service["image"] == OWN:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_what_is_waited_for_tells_its_health() -> None:
    """Each service that another waits for has a health check."""
    for service in SERVICES.values():
        for name, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert SERVICES[name]["healthcheck"]["test"]


def test_monitor_s_configuration_is_accepted() -> None:
    """The daemon accepts its file, and the servers in it are services of the stack."""
    settings = load(COMPOSE / "monitor.yaml", environ=SERVICES["monitor"]["environment"])
    assert settings.email.host in SERVICES
    assert settings.pagerduty.url is not None
    assert re.match(r"http://pagerduty:8026/?", settings.pagerduty.url)
    assert ("./monitor.yaml", "/etc/celery-monitor/config.yaml") in mounts(SERVICES["monitor"])


def test_prometheus_scrapes_the_monitor() -> None:
    """Prometheus' configuration is valid, scrapes the monitor, and loads the alert rules."""
    file = COMPOSE / "prometheus" / "prometheus.yml"
    done = subprocess.run(
        [require("promtool"), "check", "config", "--syntax-only", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    config = yaml.safe_load(file.read_text())
    (scrape,) = config["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": ["monitor:9808"]}]
    (pattern,) = config["rule_files"]
    directory, _, glob = pattern.rpartition("/")
    assert ("../prometheus", directory) in mounts(SERVICES["prometheus"])
    rules = list((ROOT / "deploy" / "prometheus").glob(glob))
    assert rules
    assert all(set(yaml.safe_load(rule.read_text())) == {"groups"} for rule in rules)


def test_grafana_is_provisioned() -> None:
    """Grafana has its data source, the dashboards, and the home dashboard."""
    provisioning = COMPOSE / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "celery-monitor.yaml").read_text())["providers"]
    assert ("../grafana/dashboards", provider["options"]["path"]) in mounts(SERVICES["grafana"])
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (ROOT / "deploy" / "grafana" / "dashboards" / home.name).exists()


def test_every_queue_of_the_shop_has_a_worker() -> None:
    """The shop's tasks can be loaded, and each of their queues is consumed."""
    probe = (
        "import json, shop; route = shop.app.amqp.router.route;"
        "queues = {route({}, task)['queue'].name for task in shop.app.tasks if task.startswith('shop.')};"
        "print(json.dumps(sorted(queues)))"
    )
    environment = {**os.environ, "BROKER_URL": "memory://", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=COMPOSE / "fleet",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    workers = (SERVICES[name]["entrypoint"] for name in ("worker", "billing"))
    consumed = {queue for words in workers for queue in words[words.index("--queues") + 1].split(",")}
    assert set(json.loads(done.stdout)) == consumed
    assert set(load(COMPOSE / "monitor.yaml", environ={}).metrics.queues) == consumed


@pytest.fixture
def pagerduty() -> Iterator[http.client.HTTPConnection]:
    """A connection to the replacement for PagerDuty."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(COMPOSE / "pagerduty" / "server.py")],
        env={**os.environ, "PORT": str(port)},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answers(port), 90, what="the stand-in for PagerDuty")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        yield connection
        connection.close()
    finally:
        process.kill()
        process.wait()


def ask(connection: http.client.HTTPConnection, event: object) -> int:
    """Send an event; returns the status of the answer."""
    connection.request("POST", "/v2/enqueue", json.dumps(event))
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def page(connection: http.client.HTTPConnection) -> str:
    """The page of the replacement."""
    connection.request("GET", "/")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def test_stand_in_for_pagerduty_shows_incidents(pagerduty: http.client.HTTPConnection) -> None:
    """It accepts events like the API, and shows each incident once, and its resolution."""
    payload = {"summary": "shop.charge failed", "source": "shop", "severity": "error", "custom_details": {"count": 2}}
    event = {"routing_key": "k" * 32, "event_action": "trigger", "dedup_key": "charge/14", "payload": payload}
    assert [ask(pagerduty, event), ask(pagerduty, event)] == [202, 202]
    assert page(pagerduty).count("shop.charge failed") == 1
    assert "triggered" in page(pagerduty)
    assert ask(pagerduty, {"routing_key": "k" * 32, "event_action": "resolve", "dedup_key": "charge/14"}) == 202
    assert "resolved" in page(pagerduty)


def test_stand_in_for_pagerduty_refuses(pagerduty: http.client.HTTPConnection) -> None:
    """It answers 400 to invalid events, and continues."""
    wrong = [{}, [], "x", {"routing_key": "short"}, {"routing_key": "k" * 32, "event_action": "trigger"}]
    assert [ask(pagerduty, event) for event in wrong] == [400] * len(wrong)
    assert "No incident yet" in page(pagerduty)


def test_stand_in_for_pagerduty_trusts_nobody(pagerduty: http.client.HTTPConnection) -> None:
    """Task names and links are text on its page, never markup."""
    payload = {
        "summary": "<script>alert(1)</script>",
        "source": "s",
        "severity": "info",
        "custom_details": {"<b>": "<i>"},
    }
    links = [{"href": "javascript:alert(1)", "text": "x"}]
    event = {"routing_key": "k" * 32, "event_action": "trigger", "dedup_key": "<u>", "payload": payload, "links": links}
    assert ask(pagerduty, event) == 202
    shown = page(pagerduty)
    assert not [text for text in ("<script>", "<u>", "<i>", "javascript:") if text in shown]
