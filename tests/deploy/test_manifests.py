"""The plain manifests: as valid and as safe as what the chart renders."""

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from celery_monitor.settings import load
from tests.deploy.conftest import ROOT, Template
from tests.servers.process import require

MANIFESTS = ROOT / "deploy" / "kubernetes"


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    """The built objects by kind; there is one of each."""
    command = [require("kubectl"), "kustomize", str(MANIFESTS)]
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


def test_pod_is_the_chart_s(objects: dict[str, dict[str, Any]], template: Template) -> None:
    """The pod has the chart's security, probes, resources and arguments: neither way is the weaker one."""
    minimal = template(Path(__file__).parent / "values" / "minimal.yaml")
    (chart,) = [document for document in minimal if document["kind"] == "StatefulSet"]
    expected, pod = chart["spec"]["template"]["spec"], objects["StatefulSet"]["spec"]["template"]["spec"]
    other = {"containers", "volumes", "serviceAccountName"}
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
    spec = objects["StatefulSet"]["spec"]
    assert {k: v for k, v in spec.items() if k not in rest} == {k: v for k, v in chart["spec"].items() if k not in rest}


def test_network_policy_is_the_chart_s(objects: dict[str, dict[str, Any]], template: Template) -> None:
    """What may be reached is what the chart's defaults allow."""
    minimal = template(Path(__file__).parent / "values" / "minimal.yaml")
    (chart,) = [document for document in minimal if document["kind"] == "NetworkPolicy"]
    for direction in ("ingress", "egress", "policyTypes"):
        assert objects["NetworkPolicy"]["spec"][direction] == chart["spec"][direction]


def test_namespace_enforces_pod_security(objects: dict[str, dict[str, Any]]) -> None:
    """The namespace refuses pods that are less than `restricted`."""
    labels = objects["Namespace"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_references_meet(objects: dict[str, dict[str, Any]]) -> None:
    """The pod mounts the generated ConfigMap, and every selector finds the pod."""
    template = objects["StatefulSet"]["spec"]["template"]
    (config,) = [volume for volume in template["spec"]["volumes"] if volume["name"] == "config"]
    assert config["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    assert template["spec"]["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    assert objects["StatefulSet"]["spec"]["serviceName"] == objects["Service"]["metadata"]["name"]
    for selector in (
        objects["StatefulSet"]["spec"]["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector
        assert selector.items() <= template["metadata"]["labels"].items()


def test_configuration_is_accepted(objects: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """The daemon accepts the configuration, also with the commented parts in force."""
    (text,) = objects["ConfigMap"]["data"].values()
    for name in ("broker-url", "pagerduty-routing-key", "email-password"):
        content = "amqp://user:password@host:5672//" if name == "broker-url" else "0123456789abcdef" * 2
        (tmp_path / name).write_text(content)
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


def test_image_is_this_version(objects: dict[str, dict[str, Any]]) -> None:
    """The manifests run the version that they are shipped with."""
    (container,) = objects["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    version = container["image"].rpartition(":")[2]
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
