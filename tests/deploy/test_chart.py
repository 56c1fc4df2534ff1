"""The rendered chart, for every values file next to this one."""

import json
import re
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from celery_monitor.channels import package
from celery_monitor.settings import load
from celery_monitor.settings.channels import entry_types
from celery_monitor.settings.secret import Secret
from tests.deploy.conftest import CHART, NEWEST, OLDEST, ROOT, VALUES, Template

CUSTOM = {"ServiceMonitor", "PrometheusRule"}
SECRETS = "/etc/celery-monitor/secrets"

each_values_file = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The only object of its kind."""
    (found,) = [item for item in objects if item["kind"] == kind]
    return found


def workload(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """The StatefulSet of one replica, or the Deployment of several."""
    (found,) = [item for item in objects if item["kind"] in {"StatefulSet", "Deployment"}]
    return found


def values_file(name: str) -> Path:
    """A values file next to this one."""
    return Path(__file__).parent / "values" / f"{name}.yaml"


def pod_specs(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The specs of all pods."""
    return [item["spec"] for item in objects if item["kind"] == "Pod"] + [
        item["spec"]["template"]["spec"] for item in objects if item["kind"] in {"StatefulSet", "Deployment"}
    ]


def test_there_are_enough_sets_of_values() -> None:
    """At least a dozen installations are tried."""
    assert len(VALUES) >= 12


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@each_values_file
def test_objects_are_valid(template: Template, values: Path, version: str) -> None:
    """Every object is valid, without unknown fields, on the oldest and the newest supported Kubernetes."""
    objects = template(values, kube_version=version)
    assert {workload(objects)["kind"], "Service", "ConfigMap"} <= {item["kind"] for item in objects}
    for item in objects:
        if item["kind"] not in CUSTOM:
            kubernetes_validate.validate(item, version.rpartition(".")[0], strict=True)


@each_values_file
def test_lint(helm: str, values: Path) -> None:
    """`helm lint --strict` reports nothing."""
    command = [helm, "lint", "--strict", str(CHART), "--values", str(values)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@each_values_file
def test_pods_are_restricted(template: Template, values: Path) -> None:
    """Every pod meets Pod Security `restricted`, has a read-only root file system and no token."""
    for spec in pod_specs(template(values)):
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        if values.stem != "openshift":  # which gives the user itself
            assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert not context.get("privileged")
            assert container["resources"]["limits"]["memory"]
        for volume in spec.get("volumes", []):
            assert not {"hostPath", "nfs"} & volume.keys()


@each_values_file
def test_services_leave_no_environment(template: Template, values: Path) -> None:
    """Pods do not get the addresses of Services in their environment, which is read for settings."""
    assert all(spec["enableServiceLinks"] is False for spec in pod_specs(template(values)))


@each_values_file
def test_one_writer(template: Template, values: Path) -> None:
    """One replica of a StatefulSet, replaced only after its end, owns the store; or several share PostgreSQL."""
    found = workload(template(values))
    spec, replicas = found["spec"], yaml.safe_load(values.read_text()).get("replicas", 1)
    assert spec["replicas"] == replicas
    if replicas == 1:
        assert found["kind"] == "StatefulSet"
        assert spec["updateStrategy"] == {"type": "RollingUpdate"}
        return
    assert found["kind"] == "Deployment"
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert [volume for volume in spec["template"]["spec"]["volumes"] if volume["name"] == "data"] == [
        {"name": "data", "emptyDir": {}}
    ]


@pytest.mark.parametrize(("version", "policy"), [(OLDEST, None), (NEWEST, "AlwaysAllow")])
def test_replicas_are_apart(template: Template, version: str, policy: str | None) -> None:
    """On different nodes if possible, drained one at a time; the Service routes to ready ones."""
    objects = template(values_file("replicas"), kube_version=version)
    spec = workload(objects)["spec"]["template"]
    terms = spec["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert {term["podAffinityTerm"]["topologyKey"]: term["weight"] for term in terms} == {
        "kubernetes.io/hostname": 100,
        "topology.kubernetes.io/zone": 50,
    }
    for term in terms:
        selector = term["podAffinityTerm"]["labelSelector"]["matchLabels"]
        assert selector.items() <= spec["metadata"]["labels"].items()
    budget = one(objects, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget.get("unhealthyPodEvictionPolicy") == policy
    assert "publishNotReadyAddresses" not in one(objects, "Service")["spec"]
    assert one(template(values_file("postgresql")), "Service")["spec"]["publishNotReadyAddresses"] is True


def test_own_affinity_is_left_alone(template: Template) -> None:
    """It replaces the chart's completely; with one replica there is none."""
    given = yaml.safe_load(values_file("replicas-postgresql").read_text())["affinity"]
    assert pod_specs(template(values_file("replicas-postgresql")))[-1]["affinity"] == given
    assert "affinity" not in pod_specs(template(values_file("postgresql")))[-1]


@pytest.mark.parametrize(
    ("values", "ports"),
    [
        ("secrets: {storeUrl: {existingSecret: s}}", [5432]),
        ("secrets: {storeUrl: {value: 'postgres://u:p@db/d'}}", [5432]),
        ("secrets: {storeUrl: {value: 'postgresql://u:p:6000@w@db:6432/d?port=1'}}", [6432]),
        ("config: {store: {url: 'postgresql://u@[::1]:6432,db2,db3:6433/d'}}", [6432, 6433]),
        ("extraEnv: [{name: CELERY_MONITOR_STORE__URL, value: 'postgresql://u@db:7000/d'}]", [5432]),
        ("config: {store: {url_file: /x}}\nnetworkPolicy: {egress: {store: {ports: [7]}}}", [7]),
        ("config: {store: {url: 'sqlite:////x/y.db'}}", None),
        ("", None),
    ],
)
def test_the_store_is_let_out(template: Template, tmp_path: Path, values: str, ports: list[int] | None) -> None:
    """The NetworkPolicy opens PostgreSQL's port wherever its URL is given, and none for SQLite."""
    file = tmp_path / "values.yaml"
    broker = {"secrets": {"brokerUrl": {"existingSecret": "broker"}}}
    given = yaml.safe_load(values) or {}
    given["secrets"] = {**broker["secrets"], **given.get("secrets", {})}
    file.write_text(yaml.safe_dump(given))
    rules = one(template(file), "NetworkPolicy")["spec"]["egress"]
    found = [[port["port"] for port in rule["ports"]] for rule in rules]
    usual = [[53, 53, 5353, 5353], [5672, 5671, 6379, 6380, 26379], [25, 465, 587], [443]]
    assert found == (usual if ports is None else [*usual[:2], ports, *usual[2:]])


@each_values_file
def test_everything_finds_its_pod(template: Template, values: Path) -> None:
    """Service, NetworkPolicy and disruption budget select the monitor's pod, and not the test's."""
    objects = template(values)
    found = workload(objects)
    labels = found["spec"]["template"]["metadata"]["labels"].items()
    selectors = [found["spec"]["selector"]["matchLabels"], one(objects, "Service")["spec"]["selector"]]
    selectors += [item["spec"]["podSelector"]["matchLabels"] for item in objects if item["kind"] == "NetworkPolicy"]
    selectors += [item["spec"]["selector"]["matchLabels"] for item in objects if item["kind"] == "PodDisruptionBudget"]
    test_pods = [item["metadata"]["labels"].items() for item in objects if item["kind"] == "Pod"]
    for selector in selectors:
        assert selector.items() <= labels
        assert not any(selector.items() <= test for test in test_pods)


@each_values_file
def test_names_fit(template: Template, values: Path) -> None:
    """No name or label exceeds the limit of Kubernetes, including the suffix of a StatefulSet."""
    objects = template(values)
    assert len(workload(objects)["metadata"]["name"]) <= 52
    for item in objects:
        assert all(len(str(value)) <= 63 for value in item["metadata"]["labels"].values())
    assert len({(item["kind"], item["metadata"]["name"]) for item in objects}) == len(objects)


def configuration(objects: list[dict[str, Any]]) -> str:
    """The daemon's configuration file."""
    (found,) = [item["data"] for item in objects if item["kind"] == "ConfigMap" and "config.yaml" in item["data"]]
    return str(found["config.yaml"])


def secret_files(spec: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The secret files of a pod below SECRETS: name → (Secret, key)."""
    sources = [
        source["secret"]
        for volume in spec.get("volumes", [])
        if volume["name"] == "secrets"
        for source in volume["projected"]["sources"]
    ]
    return {item["path"]: (source["name"], item["key"]) for source in sources for item in source["items"]}


CONTENTS = {
    "broker-url": "amqp://user:password@host:5672//",
    "store-url": "postgresql://user:password@host/db",
    "bot-token": "xoxb-1-2",
    "webhook-url": "https://hooks.slack.com/services/T0/B0/x",
    "chat-url": "json://host.example",
    "secret": "whsec_" + "0123456789abcdef" * 2,
}
"""Of secret files, by how their names end."""


@each_values_file
def test_configuration_is_accepted(template: Template, values: Path, tmp_path: Path) -> None:
    """The daemon accepts the rendered configuration, and every secret file in it is mounted."""
    objects = template(values)
    text = configuration(objects)
    files = secret_files(workload(objects)["spec"]["template"]["spec"])
    for name in files:
        content = next((text for end, text in CONTENTS.items() if name.endswith(end)), "0123456789abcdef" * 2)
        (tmp_path / name).write_text(content)
    file = tmp_path / "config.yaml"
    file.write_text(text.replace(SECRETS, str(tmp_path)))
    settings = load(file, environ={})
    in_postgresql = "postgresql" in values.stem or values.stem == "replicas"
    scheme = "postgresql://" if in_postgresql else "sqlite:////var/lib/celery-monitor/celery-monitor.db"
    assert (settings.store.url_source().get() or "").startswith(scheme)
    assert all(f"{SECRETS}/{name}" in text for name in files)


@each_values_file
def test_created_secrets_are_complete(template: Template, values: Path) -> None:
    """The chart's Secret has exactly the mounted keys."""
    objects = template(values)
    files = secret_files(workload(objects)["spec"]["template"]["spec"])
    own = {item["metadata"]["name"]: set(item["data"]) for item in objects if item["kind"] == "Secret"}
    for secret, keys in own.items():
        assert {key for name, key in files.values() if name == secret} == keys


def texts(value: object) -> Iterator[str]:
    """Every rendered key and value as text."""
    if isinstance(value, dict):
        for pair in value.items():
            yield from texts(pair)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    else:
        yield str(value)


@each_values_file
def test_secrets_are_nowhere_else(template: Template, values: Path) -> None:
    """No secret of the values is in any object except the Secret."""
    given = yaml.safe_load(values.read_text()).get("secrets", {})
    listed = {name: entry for name, entry in given.items() if name not in {"extra", "channels"}}
    secrets = [entry["value"] for entry in [*listed.values(), *given.get("channels", {}).values()] if "value" in entry]
    others = list(texts([item for item in template(values) if item["kind"] != "Secret"]))
    assert not [secret for secret in secrets if any(secret in text for text in others)]


def test_the_secrets_of_channels_are_mounted(template: Template) -> None:
    """Each is read from a separate file, from the chart's Secret or an existing one."""
    objects = template(values_file("channels"))
    entries = {entry["name"]: entry for entry in yaml.safe_load(configuration(objects))["channels"]}
    files = secret_files(workload(objects)["spec"]["template"]["spec"])
    own = one(objects, "Secret")["metadata"]["name"]
    expected = {
        ("shop-slack", "bot_token_file"): (own, "channel-shop-slack-bot-token"),
        ("hook", "webhook_url_file"): ("slack", "webhook-url"),
        ("audit", "secret_file"): ("webhook", "signing-secret"),
        ("chat", "url_file"): ("apprise", "url"),
        ("am", "password_file"): (own, "channel-am-password"),
        ("second", "routing_key_file"): ("pagerduty", "second"),
    }
    found = {(name, field): files[entries[name][field].removeprefix(f"{SECRETS}/")] for name, field in expected}
    assert found == expected
    assert not any(field.endswith("_file") for field in entries["open-am"])


def test_the_chart_knows_every_secret_of_channels() -> None:
    """The chart takes every hidden field of an entry from a Secret, without a list."""
    hidden = {
        name: sorted(
            field for field, info in package(name).ENTRY.model_fields.items() if Secret in flat(info.annotation)
        )
        for name in entry_types()
    }
    assert json.loads((CHART / "files" / "channels" / "secrets.json").read_text()) == hidden
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = schema["definitions"]["channelSecret"]["properties"]["field"]["enum"]
    assert set(known) == {field for fields in hidden.values() for field in fields}


def flat(annotation: Any) -> set[Any]:
    """The types of which an annotation is made."""
    parts = typing.get_args(annotation)
    return {annotation}.union(*map(flat, parts)) if parts else {annotation}


def test_a_changed_configuration_restarts_the_pod(template: Template, tmp_path: Path) -> None:
    """The checksum annotation changes with the configuration and only with it."""

    def checksum(values: str) -> str:
        file = tmp_path / "values.yaml"
        file.write_text("secrets: {brokerUrl: {existingSecret: broker}}\n" + values)
        metadata = workload(template(file))["spec"]["template"]["metadata"]
        return str(metadata["annotations"]["checksum/config"])

    assert checksum("config: {fleet: a}") != checksum("config: {fleet: b}")
    assert checksum("config: {fleet: a}") == checksum("config: {fleet: a}\nservice: {port: 80}")


def test_large_numbers_stay_numbers(template: Template) -> None:
    """A large number like tracking.max_tasks is not written as 5e+06, which YAML reads as a text."""
    text = configuration(template(values_file("everything")))
    assert yaml.safe_load(text)["tracking"]["max_tasks"] == 5_000_000


def test_an_ingress_sets_the_links(template: Template) -> None:
    """Links in incidents lead to the Ingress, unless the configuration names another address."""

    def external_url(name: str) -> str:
        text = configuration(template(values_file(name)))
        return str(yaml.safe_load(text)["web"]["external_url"])

    assert external_url("ingress-tls") == "https://monitor.example.com"
    assert external_url("ingress-behind-proxy") == "https://sso.example.com/monitor"


def test_paths_of_an_ingress(template: Template) -> None:
    """As in other charts; a host without paths uses its root; links use the first one."""
    objects = template(values_file("ingress-path"))
    rules = one(objects, "Ingress")["spec"]["rules"]
    paths = [[(path["path"], path["pathType"]) for path in rule["http"]["paths"]] for rule in rules]
    assert paths == [[("/celery", "Prefix"), ("/monitor", "Exact")], [("/", "Prefix")]]
    assert yaml.safe_load(configuration(objects))["web"]["external_url"] == "https://ops.example.com/celery"


def test_the_name_in_ehlo_has_a_dot(template: Template) -> None:
    """The pod's name has none, which strict mail servers refuse; the configuration overrides it."""

    def hello(name: str) -> object:
        return yaml.safe_load(configuration(template(values_file(name)))).get("email", {}).get("hello")

    assert hello("openshift") == "example.com"
    assert hello("ingress-path") == "ops.example.com"
    assert hello("minimal") is None


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        ("", True),
        ("resources: {limits: {memory: 1Gi}}", True),
        ("resources: {limits: {memory: null}}", False),
        ("resources: null", False),
        ("resources: {limits: null}", False),
        ("config: {tracking: {max_memory: 300MiB}}", False),
    ],
)
def test_the_memory_limit_is_the_daemons(template: Template, tmp_path: Path, values: str, *, asked: bool) -> None:
    """The daemon gets the container's limit, if there is one and the configuration does not override it."""
    file = tmp_path / "values.yaml"
    file.write_text(values_file("minimal").read_text() + f"\n{values}\n")
    (container,) = pod_specs(template(file))[-1]["containers"]
    environment = {item["name"]: item for item in container["env"]}
    assert ("CELERY_MONITOR_TRACKING__MAX_MEMORY" in environment) == asked
    if asked:
        source = environment["MEMORY_LIMIT_MIB"]["valueFrom"]["resourceFieldRef"]
        assert source == {"containerName": container["name"], "resource": "limits.memory", "divisor": "1Mi"}
        # Kubernetes puts in what stands before it in the list.
        text = environment["CELERY_MONITOR_TRACKING__MAX_MEMORY"]["value"].replace("$(MEMORY_LIMIT_MIB)", "700")
        assert list(environment).index("MEMORY_LIMIT_MIB") < list(environment).index(
            "CELERY_MONITOR_TRACKING__MAX_MEMORY"
        )
        assert load(environ={"CELERY_MONITOR_TRACKING__MAX_MEMORY": text}).tracking.max_memory == 700 << 20


def test_a_proxy_is_let_out(template: Template) -> None:
    """The environment names it, and the NetworkPolicy opens its port, and both ports of DNS."""
    objects = template(values_file("proxy"))
    environment = {item["name"]: item.get("value") for item in pod_specs(objects)[-1]["containers"][0]["env"]}
    assert environment["HTTPS_PROXY"] == "http://proxy.example.com:3128"
    assert environment["NO_PROXY"] == ".svc,.cluster.local"
    rules = one(objects, "NetworkPolicy")["spec"]["egress"]
    ports = [[(port["port"], port["protocol"]) for port in rule["ports"]] for rule in rules]
    assert [(3128, "TCP")] in ports
    assert [(53, "UDP"), (53, "TCP"), (5353, "UDP"), (5353, "TCP")] in ports
    assert not any((443, "TCP") in rule for rule in ports)


def test_network_policy_is_as_narrow_as_asked(template: Template) -> None:
    """Only what the values name may be reached; the test's pod may reach the metrics."""
    spec = one(template(values_file("network-restricted")), "NetworkPolicy")["spec"]
    ports = [port["port"] for rule in spec["egress"] for port in rule["ports"]]
    assert ports == [30672, 443]
    assert all("to" in rule for rule in spec["egress"])
    (ingress,) = spec["ingress"]
    assert ingress["ports"] == [{"port": "http", "protocol": "TCP"}]
    assert len(ingress["from"]) == 2


def test_service_monitor_scrapes_the_service(template: Template) -> None:
    """The ServiceMonitor selects the Service and its port, and the job has the program's name."""
    objects = template(values_file("prometheus-operator"))
    monitor, service = one(objects, "ServiceMonitor"), one(objects, "Service")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "celery-monitor"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"


@pytest.mark.parametrize(
    ("values", "annotation", "base"),
    [
        ("prometheus-operator", "runbook", "docs/runbook.md"),
        ("runbook-url", "runbook_url", "https://git.example.com/ops/runbook.md"),
    ],
)
def test_prometheus_rule_holds_all_rules(template: Template, values: str, annotation: str, base: str) -> None:
    """It equals deploy/prometheus except for the runbook's address; without an address there is no dead link."""
    files = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "deploy" / "prometheus").glob("*.yml"))]
    groups = [group for content in files if set(content) == {"groups"} for group in content["groups"]]
    for alert in (rule for group in groups for rule in group["rules"] if "alert" in rule):
        link = alert["annotations"].pop("runbook_url")
        alert["annotations"][annotation] = link.replace("docs/runbook.md", base)
    rule = one(template(values_file(values)), "PrometheusRule")
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert groups
    assert rule["spec"]["groups"][: len(groups)] == groups


def test_own_rule_groups_are_left_alone(template: Template) -> None:
    """Custom groups are unchanged."""
    rule = one(template(values_file("runbook-url")), "PrometheusRule")
    assert rule["spec"]["groups"][-1]["rules"][0]["annotations"]["runbook_url"] == "docs/runbook.md#own"


def test_every_dashboard_is_delivered(template: Template) -> None:
    """Each dashboard is in a ConfigMap for Grafana's sidecar, unchanged except for its release's mark."""
    sources = {path.read_text().strip() for path in (ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")}
    objects = template(values_file("minimal"))
    maps = [item for item in objects if item["metadata"]["labels"].get("grafana_dashboard") == "1"]
    assert len(sources) == 3
    rendered = {text.strip() for item in maps for text in item["data"].values()}
    assert {re.sub("celery-monitor-[0-9a-f]{8}-", "celery-monitor-", text) for text in rendered} == sources


def test_dashboards_of_two_releases_are_beside_each_other(helm: str) -> None:
    """Grafana's sidecar puts all into one directory: files and uids are unique, and links stay within a release."""
    files: list[str] = []
    uids: list[str] = []
    for release, namespace in (("celery-monitor", "shop"), ("celery-monitor", "bank"), ("other", "bank")):
        command = [helm, "template", release, str(CHART), "-n", namespace, "--values", str(values_file("minimal"))]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        maps = [
            item for item in yaml.safe_load_all(done.stdout) if item and "grafana_dashboard" in str(item["metadata"])
        ]
        texts = {name: text for item in maps for name, text in item["data"].items()}
        own = {json.loads(text)["uid"] for text in texts.values()}
        assert all(
            link in own for text in texts.values() for link in re.findall("/d/(celery-monitor-[a-z0-9-]+)", text)
        )
        files, uids = [*files, *texts], [*uids, *own]
    assert len(files) == len(set(files)) == 9
    assert len(uids) == len(set(uids)) == 9
    assert all(len(uid) <= 40 for uid in uids)
