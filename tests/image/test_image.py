"""The container image, built and run with podman as in a hardened cluster."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.conftest import Start
from tests.fleet.outcomes import client
from tests.servers import CeleryWorker
from tests.servers.ports import free_port
from tests.servers.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
BASE = Path(__file__).parent / "base-image.sh"
IMAGE = "localhost/celery-monitor:test"
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "10001")
# Health checks of podman need systemd; what they would run is run by the test.
HERE = ("--network", "host", "--no-healthcheck")
MAXIMUM_SIZE = 142_000_000
STOP_SECONDS = 10

# The first test waits for the base image and the build.
pytestmark = pytest.mark.timeout(600)


def missing(what: str) -> NoReturn:
    """The image cannot be built here: the test is skipped, or fails with CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true: every test must run, but {what}")
    pytest.skip(what)


@dataclass(frozen=True)
class Podman:
    """Podman with a separate store."""

    environment: dict[str, str] = field(repr=False)

    def __call__(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            ["podman", *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def answer(self, *arguments: str, timeout: float = 120) -> str:
        """The output of a command that must succeed."""
        done = self(*arguments, timeout=timeout)
        assert done.returncode == 0, f"podman {shlex.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="session")
def podman() -> Podman:
    """Podman with the base image in its store."""
    if shutil.which("podman", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        missing("podman is not installed")
    done = subprocess.run([str(BASE)], capture_output=True, text=True, timeout=540, check=False)
    if done.returncode != 0:
        missing(done.stderr.strip())
    exports = subprocess.run([str(BASE), "--env"], capture_output=True, text=True, timeout=10, check=True).stdout
    pairs = (line.removeprefix("export ").split("=", 1) for line in exports.splitlines())
    return Podman({**os.environ, **dict(pairs)})


@pytest.fixture(scope="session")
def image(podman: Podman) -> str:
    """The project's image, built from its Dockerfile."""
    podman("image", "prune", "--force", "--filter", "until=24h")  # What builds of other days have left.
    podman.answer("build", "--isolation", "chroot", "--pull=never", "--tag", IMAGE, ".", timeout=540)
    return IMAGE


@pytest.fixture
def volume(podman: Podman) -> Iterator[str]:
    """A volume for one test."""
    name = f"celery-monitor-{uuid.uuid4().hex[:12]}"
    podman.answer("volume", "create", name)
    yield name
    podman("volume", "rm", "--force", name)


@dataclass
class Daemon:
    """The daemon in a container, which may be stopped and restarted."""

    podman: Podman
    broker_url: str
    volume: str
    port: int
    name: str = field(default_factory=lambda: f"celery-monitor-{uuid.uuid4().hex[:12]}")

    def start(self, image: str) -> None:
        """Start a new container with the volume."""
        environment = {"BROKER__URL": self.broker_url, "WEB__PORT": str(self.port), "BROKER__PROBE_INTERVAL": "500ms"}
        variables = [word for key, value in environment.items() for word in ("--env", f"CELERY_MONITOR_{key}={value}")]
        mount = ("--volume", f"{self.volume}:/var/lib/celery-monitor")
        self.podman.answer("run", "--detach", "--name", self.name, *HARDENED, *HERE, *mount, *variables, image)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an answer; 0 without one."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def wait_ready(self) -> None:
        """Wait until it is connected and counts."""
        state = ("container", "inspect", "--format", "{{.State.Running}}", self.name)

        # The answer that was waited for: with probes this frequent, the next one may be another on a slow machine.
        answer = (0, "not asked")

        def settled() -> bool:
            nonlocal answer
            answer = self.get("/readyz")
            return answer[0] == 200 or self.podman.answer(*state).strip() != "true"

        with contextlib.suppress(TimeoutError):
            wait_until(settled, 90, every=0.1)
        status, reasons = answer
        assert status == 200, f"{reasons}\n{self.log()}"

    def total(self, counter: str, **labels: str) -> int:
        """The sum of a counter over the series with these labels."""
        wanted = {f'{name}="{value}"' for name, value in labels.items()}
        lines = re.findall(rf"^{counter}{{(.*)}} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return sum(int(float(value)) for found, value in lines if wanted <= set(found.split(",")))

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM; returns the exit code and the duration in seconds. The container is removed."""
        self.podman.answer("kill", "--signal", "TERM", self.name)
        began = time.monotonic()  # without podman's own start
        code = int(self.podman.answer("wait", self.name, timeout=60))
        took = time.monotonic() - began
        self.podman.answer("rm", self.name)
        return code, took

    def log(self) -> str:
        """Its output."""
        done = self.podman("logs", "--tail", "60", self.name)
        return done.stdout + done.stderr

    def remove(self) -> None:
        """Remove it in any state."""
        self.podman("rm", "--force", "--time", "0", self.name)


@pytest.fixture
def daemon(podman: Podman, volume: str, rabbitmq_url: str) -> Iterator[Daemon]:
    """A daemon for one test, not yet started."""
    made = Daemon(podman, rabbitmq_url, volume, free_port())
    yield made
    made.remove()


def inspect(podman: Podman, image: str) -> dict[str, Any]:
    """The image's description."""
    (found,) = json.loads(podman.answer("image", "inspect", image))
    assert isinstance(found, dict)
    return found


def run(podman: Podman, image: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the image to its end."""
    entrypoint, *arguments = command
    return podman("run", "--rm", *HARDENED, *HERE, "--entrypoint", entrypoint, image, *arguments)


def test_is_small(podman: Podman, image: str) -> None:
    """The image adds at most 142 MB to its base: 14 for PostgreSQL, 15 for Apprise, 21 for OpenID Connect."""
    base = inspect(podman, "docker.io/library/python:3.13-slim")["Size"]
    added = inspect(podman, image)["Size"] - base
    assert added < MAXIMUM_SIZE, f"{added / 1e6:.1f} MB over the base"


def test_describes_itself(podman: Podman, image: str) -> None:
    """User, entry point, port, volume, health check and labels are what an orchestrator needs."""
    config = inspect(podman, image)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["celery-monitor"]
    assert config["Cmd"] == ["run"]
    assert list(config["ExposedPorts"]) == ["9808/tcp"]
    assert list(config["Volumes"]) == ["/var/lib/celery-monitor"]
    assert inspect(podman, image)["Healthcheck"]["Test"] == ["CMD", "celery-monitor", "healthcheck"]
    version = config["Labels"]["org.opencontainers.image.version"]
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
    assert run(podman, image, "celery-monitor", "--version").stdout.strip().endswith(version)


def test_holds_no_installer(podman: Podman, image: str) -> None:
    """There is no pip, no compiler and none of the project's tests in it."""
    probe = "import importlib.util as u; print([n for n in ('pip', 'ensurepip', 'tests', 'pytest') if u.find_spec(n)])"
    assert run(podman, image, "python", "-c", probe).stdout.strip() == "[]"
    for tool in ("pip", "pip3", "gcc", "cc"):
        assert run(podman, image, tool, "--version").returncode == 127


def test_writes_to_its_volume_alone(podman: Podman, image: str) -> None:
    """As 10001 with a read-only root, the working directory can be written, and nothing of the program."""
    done = run(podman, image, "sh", "-c", "id -u && touch x && ! touch /opt/celery-monitor/x && ! touch /etc/x")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "10001"


def test_starts_from_bytecode(podman: Podman, image: str) -> None:
    """Every module of the environment is compiled already, because nothing can be compiled where it runs."""
    probe = (
        "import pathlib, importlib.util as u; root = pathlib.Path('/opt/celery-monitor/lib');"
        "print([str(p) for p in root.rglob('*.py') if not pathlib.Path(u.cache_from_source(str(p))).exists()])"
    )
    assert run(podman, image, "python", "-c", probe).stdout.strip() == "[]"


def test_refuses_a_wrong_configuration(podman: Podman, image: str) -> None:
    """A wrong setting ends it with 2 and its name, instead of a daemon that does nothing."""
    done = podman("run", "--rm", *HARDENED, *HERE, "--env", "CELERY_MONITOR_WEB__PORT=http", image)
    assert done.returncode == 2
    assert "CELERY_MONITOR_WEB__PORT" in done.stderr


def test_counts_survive_a_restart(daemon: Daemon, image: str, start: Start, tmp_path: Path) -> None:
    """Hardened, beside a real fleet, it counts every task, ends on SIGTERM with 0, and a restart loses nothing."""
    start(CeleryWorker(tmp_path / "worker", daemon.broker_url))
    fleet = client(daemon.broker_url)
    daemon.start(image)
    daemon.wait_ready()

    def send(succeed: int, fail: int) -> None:
        for _ in range(succeed):
            fleet.send_task("fleet.succeed")
        for _ in range(fail):
            fleet.send_task("fleet.fail")

    def counted(succeeded: int, failed: int) -> bool:
        sent = daemon.total("celery_task_sent_total")
        done = daemon.total("celery_task_succeeded_total", name="fleet.succeed")
        return (sent, done, daemon.total("celery_task_failed_total", name="fleet.fail")) == (
            succeeded + failed,
            succeeded,
            failed,
        )

    send(40, 10)
    wait_until(lambda: counted(40, 10), 90, what="the first counts")
    code, took = daemon.stop()
    assert code == 0
    assert took < STOP_SECONDS

    send(30, 5)
    daemon.start(image)
    daemon.wait_ready()
    wait_until(lambda: counted(70, 15), 90, what="the counts with those of the absence")
    assert daemon.total("celery_task_failed_total", exception="ValueError") == 15
    assert "\ncelery_monitor_unnamed_failures_total 0.0\n" in daemon.get("/metrics")[1]
    health = daemon.podman("exec", daemon.name, "celery-monitor", "healthcheck")
    assert health.returncode == 0, health.stdout + health.stderr
    assert daemon.stop()[0] == 0
    fleet.close()
