"""The plain manifests are as valid and secure as the rendered chart."""

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from celery_monitor.settings import load
from tests.deploy.conftest import ROOT, Template
from tests.servers.process import require

MANIFESTS = {
    "StatefulSet": (ROOT / "deploy" / "kubernetes", "minimal.yaml"),
    "Deployment": (ROOT / "deploy" / "kubernetes-replicas", "replicas.yaml"),
}
"""What runs the pods → its manifests, and the values with which the chart makes the same."""


@pytest.fixture(scope="module", params=list(MANIFESTS))
def workload(request: pytest.FixtureRequest) -> str:
    """The kind of the workload."""
    kind: str = request.param
    return kind


@pytest.fixture
def chart(workload: str, template: Template) -> list[dict[str, Any]]:
    """The rendered chart."""
    return template(Path(__file__).parent / "values" / MANIFESTS[workload][1])


@pytest.fixture(scope="module")
def objects(workload: str) -> dict[str, dict[str, Any]]:
    """The built objects by kind, one of each."""
    command = [require("kubectl"), "kustomize", str(MANIFESTS[workload][0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    by_kind = {document["kind"]: document for document in documents}
    assert len(by_kind) == len(documents)
    return by_kind


@pytest.mark.parametrize("version", ["1.25", "1.37"])
def test_objects_are_valid(objects: dict[str, dict[str, Any]], version: str) -> None:
    """Every object is valid on the oldest and the newest supported Kubernetes, without unknown fields."""
    for document in objects.values():
        kubernetes_validate.validate(document, version, strict=True)


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The one object of a kind."""
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def without_selectors(affinity: Any) -> list[tuple[int, str]]:
    """Weights and topologies of the terms against other pods of the same kind."""
    terms = affinity["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    return [(term["weight"], term["podAffinityTerm"]["topologyKey"]) for term in terms]


def test_pod_is_the_chart_s(objects: dict[str, dict[str, Any]], chart: list[dict[str, Any]], workload: str) -> None:
    """The pod has the chart's security, probes, resources and arguments."""
    theirs = of_kind(chart, workload)
    expected, pod = theirs["spec"]["template"]["spec"], objects[workload]["spec"]["template"]["spec"]
    other = {"containers", "volumes", "serviceAccountName", "affinity"}
    assert pod.keys() == expected.keys()
    if "affinity" in expected:
        assert without_selectors(pod["affinity"]) == without_selectors(expected["affinity"])
    assert {k: v for k, v in pod.items() if k not in other} == {k: v for k, v in expected.items() if k not in other}
    assert pod["containers"] == expected["containers"]
    assert {volume["name"] for volume in pod["volumes"]} == {volume["name"] for volume in expected["volumes"]}
    rest = {
        "template",
        "selector",
        "serviceName",
        "volumeClaimTemplates",
        "persistentVolumeClaimRetentionPolicy",
    }
    spec, chosen = objects[workload]["spec"], theirs["spec"]
    assert {k: v for k, v in spec.items() if k not in rest} == {k: v for k, v in chosen.items() if k not in rest}


def test_the_rest_is_the_chart_s(objects: dict[str, dict[str, Any]], chart: list[dict[str, Any]]) -> None:
    """The NetworkPolicy, the Service and the disruption budget equal the chart's defaults."""
    policy = of_kind(chart, "NetworkPolicy")["spec"]
    for direction in ("ingress", "egress", "policyTypes"):
        assert objects["NetworkPolicy"]["spec"][direction] == policy[direction]
    service = of_kind(chart, "Service")["spec"]
    assert {**objects["Service"]["spec"], "selector": None} == {**service, "selector": None}
    # Not before Kubernetes 1.27: unhealthyPodEvictionPolicy.
    wanted = [document["spec"]["maxUnavailable"] for document in chart if document["kind"] == "PodDisruptionBudget"]
    assert [one["spec"]["maxUnavailable"] for kind, one in objects.items() if kind == "PodDisruptionBudget"] == wanted


def test_namespace_enforces_pod_security(objects: dict[str, dict[str, Any]]) -> None:
    """The namespace refuses pods that violate `restricted`."""
    labels = objects["Namespace"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_references_meet(objects: dict[str, dict[str, Any]], workload: str) -> None:
    """The pod mounts the generated ConfigMap, and every selector matches the pod."""
    template = objects[workload]["spec"]["template"]
    (config,) = [volume for volume in template["spec"]["volumes"] if volume["name"] == "config"]
    assert config["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    assert template["spec"]["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    if workload == "StatefulSet":
        assert objects[workload]["spec"]["serviceName"] == objects["Service"]["metadata"]["name"]
    affinity = template["spec"].get("affinity", {}).get("podAntiAffinity", {})
    terms = affinity.get("preferredDuringSchedulingIgnoredDuringExecution", ())
    for selector in (
        objects[workload]["spec"]["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(term["podAffinityTerm"]["labelSelector"]["matchLabels"] for term in terms),
        *(one["spec"]["selector"]["matchLabels"] for kind, one in objects.items() if kind == "PodDisruptionBudget"),
    ):
        assert selector
        assert selector.items() <= template["metadata"]["labels"].items()


def test_configuration_is_accepted(objects: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """The daemon accepts the configuration, also with the commented parts enabled."""
    (text,) = objects["ConfigMap"]["data"].values()
    urls = {"broker-url": "amqp://user:password@host:5672//", "store-url": "postgresql://monitor@db/monitoring"}
    for name in ("broker-url", "store-url", "pagerduty-routing-key", "email-password"):
        (tmp_path / name).write_text(urls.get(name, "0123456789abcdef" * 2))
    text = text.replace("/etc/celery-monitor/secrets", str(tmp_path))
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert load(file, environ={}).fleet == "celery"
    title, rest = text.split("\n", 1)
    file.write_text(rest.replace("\n# ", "\n"))
    settings = load(file, environ={})
    assert title.startswith("#")
    assert settings.email.to
    assert settings.pagerduty.routing_key_file


def test_image_is_this_version(objects: dict[str, dict[str, Any]], workload: str) -> None:
    """The manifests use the program's version with which they are shipped."""
    (container,) = objects[workload]["spec"]["template"]["spec"]["containers"]
    version = container["image"].rpartition(":")[2]
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
