"""Values that are unusual, but that people set."""

import subprocess
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.conftest import CHART

BROKER = "secrets: {brokerUrl: {existingSecret: broker}}\n"
TWICE = [
    "commonLabels: {team: a}\npodLabels: {team: b}",
    "commonLabels: {release: prometheus}\nserviceMonitor: {enabled: true, labels: {release: prometheus}}",
    "commonLabels: {release: prometheus}\nprometheusRule: {enabled: true, labels: {release: prometheus}}",
    "commonLabels: {team: a}\nservice: {labels: {team: a}}",
    "commonLabels: {grafana_dashboard: '1'}",
    "commonLabels: {app.kubernetes.io/part-of: shop, app.kubernetes.io/component: metrics}",
    "podLabels: {app.kubernetes.io/component: metrics, app.kubernetes.io/name: metrics}",
    "extraEnv: [{name: CELERY_MONITOR_TRACKING__MAX_MEMORY, value: 300MiB}]",
    "extraEnv: [{name: HTTPS_PROXY, value: 'http://u:p@h:3128'}]\nproxy: {https: 'http://h:3128'}",
]
ODD = [
    "config:",
    "livenessProbe:\nreadinessProbe:\nstartupProbe:",
    "podSecurityContext:\nsecurityContext:",
    "persistence: {storageClass: '-'}",
    "nameOverride: '123'\npriorityClassName: '1'",
    "ingress: {enabled: true, allowUnauthenticated: true, hosts: [{host: example.com}], tls: }",
]


class _Strict(yaml.SafeLoader):
    """Refuses duplicate keys, as Kustomize does, which Flux and others run over the rendered chart."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - the library's signature
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a duplicate key: {sorted(keys)}"
        return super().construct_mapping(node, deep)


def render(helm: str, tmp_path: Path, values: str, release: str = "shop") -> list[dict[str, Any]]:
    """The chart's objects, each valid."""
    base, file = tmp_path / "base.yaml", tmp_path / "values.yaml"
    base.write_text(BROKER)
    file.write_text(values)
    command = [helm, "template", release, str(CHART), "--values", str(base), "--values", str(file)]
    command += ["--kube-version", "1.30.0", "--api-versions", "monitoring.coreos.com/v1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    objects = [item for item in yaml.load_all(done.stdout, Loader=_Strict) if item]
    for item in objects:
        if item["apiVersion"] != "monitoring.coreos.com/v1":
            kubernetes_validate.validate(item, "1.30", strict=True)
    return objects


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The only object of its kind."""
    (found,) = [item for item in objects if item["kind"] == kind]
    return found


@pytest.mark.parametrize("values", TWICE)
def test_what_is_given_twice_stands_once(helm: str, tmp_path: Path, values: str) -> None:
    """Labels and variables that the chart sets, too: the values win, except over the labels that select."""
    objects = render(helm, tmp_path, values)
    spec = of_kind(objects, "StatefulSet")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert of_kind(objects, "Service")["spec"]["selector"].items() <= labels.items()
    variables = [item["name"] for item in spec["template"]["spec"]["containers"][0]["env"]]
    assert len(variables) == len(set(variables))
    given = yaml.safe_load(values)
    for key, value in {**given.get("commonLabels", {}), **given.get("podLabels", {})}.items():
        assert labels[key] == value or key in spec["selector"]["matchLabels"]
    environment = {item["name"]: item.get("value") for item in spec["template"]["spec"]["containers"][0]["env"]}
    assert {item["name"]: item["value"] for item in given.get("extraEnv", [])}.items() <= environment.items()


@pytest.mark.parametrize("values", ODD)
def test_objects_are_valid(helm: str, tmp_path: Path, values: str) -> None:
    """A key whose lines are all comments is null, which Helm removes; texts may look like numbers."""
    render(helm, tmp_path, values)


@pytest.mark.parametrize("release", ["123", "true"])
def test_name_of_a_release_may_look_like_a_number(helm: str, tmp_path: Path, release: str) -> None:
    """Labels are texts, whatever the release's name is, such as the number of a merge request."""
    (name,) = {item["metadata"]["labels"]["app.kubernetes.io/instance"] for item in render(helm, tmp_path, "", release)}
    assert name == release


def test_one_replica_if_there_is_no_number(helm: str, tmp_path: Path) -> None:
    """As after `helm upgrade --reuse-values` from a chart without the value: the daemon must not be removed."""
    objects = render(helm, tmp_path, "replicas:")
    assert of_kind(objects, "StatefulSet")["spec"]["replicas"] == 1
    assert of_kind(objects, "Service")["spec"]["publishNotReadyAddresses"] is True


def test_probes_can_be_turned_off(helm: str, tmp_path: Path) -> None:
    """A probe that is null is left out."""
    pod = of_kind(render(helm, tmp_path, "livenessProbe:"), "StatefulSet")["spec"]["template"]["spec"]
    assert {"readinessProbe", "startupProbe"} <= pod["containers"][0].keys()
    assert "livenessProbe" not in pod["containers"][0]


def test_no_storage_class(helm: str, tmp_path: Path) -> None:
    """`-` means a claim without a class, as in other charts; nothing means the cluster's default."""
    for values, expected in [("persistence: {storageClass: '-'}", ""), ("", None)]:
        (claim,) = of_kind(render(helm, tmp_path, values), "StatefulSet")["spec"]["volumeClaimTemplates"]
        assert claim["spec"].get("storageClassName") == expected


def test_pod_of_helm_test_runs_where_the_daemon_runs(helm: str, tmp_path: Path) -> None:
    """On a node of the image's architecture, and in spite of taints."""
    values = "nodeSelector: {kubernetes.io/arch: arm64}\ntolerations: [{key: a, operator: Exists}]"
    pod = of_kind(render(helm, tmp_path, values), "Pod")["spec"]
    assert pod["nodeSelector"] == {"kubernetes.io/arch": "arm64"}
    assert pod["tolerations"] == [{"key": "a", "operator": "Exists"}]


@pytest.mark.parametrize("section", ["ingress", "networkPolicy", "service", "secrets", "image"])
def test_section_without_content_is_named(helm: str, tmp_path: Path, section: str) -> None:
    """A section that the templates need is not null: the error has its name."""
    file = tmp_path / "values.yaml"
    file.write_text(f"{section}:\n")
    command = [helm, "template", "shop", str(CHART), "--values", str(file)]
    command += ["--set", "secrets.brokerUrl.existingSecret=b"] if section != "secrets" else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert f"{section} is required" in done.stderr
