"""The demo as users start it: a separate process with only the installed package."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from celery_monitor.cli.demo import command
from celery_monitor.cli.demo.story import CALM, DAY, HOUR, Story
from tests.servers.ports import free_port
from tests.servers.unencrypted import NO_TLS
from tests.servers.waiting import wait_until

PROGRAM = """
from celery_monitor.cli import main
from celery_monitor.cli.demo import command
command._FLEET_ENDS_WITHIN = command._COUNTED_WITHIN = 60.0
main()
"""
"""Its end waits for its fleet and its counts also on a machine that stalls."""
TASKS = {"shop.payments.charge", "shop.orders.place", "shop.mail.confirmation", "shop.catalog.index"}
WORKERS = ("payments-1", "default-1", "mail-1", "images-1")


class Running:
    """A demo with its output."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.process = process
        self.out, self.err = directory / "out", directory / "err"

    def text(self) -> str:
        return self.out.read_text()

    def url(self) -> str:
        """The address of its page, once it is printed."""
        found = wait_until(lambda: re.search(r"http://\S+(?=/metrics)", self.text()), 90, what="the address")
        assert found is not None
        return found.group()

    def is_ready(self) -> bool:
        return httpx.get(f"{self.url()}/readyz", timeout=60, trust_env=False, verify=NO_TLS).is_success

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url() + path, timeout=60, trust_env=False, verify=NO_TLS).raise_for_status()

    def counts(self) -> dict[str, dict[str, int]]:
        """Task → counts over all queues."""
        found: dict[str, dict[str, int]] = {}
        for item in self.get("/api/v1/tasks").json()["items"]:
            of_task = found.setdefault(item["name"], dict.fromkeys(item["counts"], 0))
            for name, count in item["counts"].items():
                of_task[name] += count
        return found


@contextmanager
def demo(directory: Path, *options: str) -> Iterator[Running]:
    """A demo, killed at the end of the block if it still runs. Its temporary files are below ``directory``."""
    temporary = directory / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-W", "error", "-W", "ignore::UserWarning:pdpyras", "-c", PROGRAM, "demo"]
    with (directory / "out").open("wb") as out, (directory / "err").open("wb") as err:
        process = subprocess.Popen(
            [*command, *options], stdout=out, stderr=err, env={"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
        )
        try:
            yield Running(process, directory)
        finally:
            process.kill()
            process.wait()


def test_demo_shows_the_pipeline_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    """Tasks are counted by name, failures become incidents, and SIGINT ends all of it and leaves nothing.

    Its fleet ends without being left behind: the end takes less than the patience with it, which is 4 s otherwise.
    """
    assert command._FLEET_ENDS_WITHIN + command._COUNTED_WITHIN <= 4.0
    with demo(tmp_path, "--rate", "40", "--days", "0") as running:
        wait_until(lambda: set(running.counts()) >= TASKS, timeout=60, what="counts of the tasks")
        wait_until(lambda: running.counts()["shop.payments.charge"]["failed"] >= 1, what="a failed charge")
        wait_until(lambda: running.counts()["shop.mail.confirmation"]["retried"] >= 1, what="a retry")
        wait_until(lambda: "counts  " in running.text(), what="the counts")
        wait_until(lambda: re.search(r"opened +critical: \[shop\] shop.payments.charge", running.text()), what="a page")
        wait_until(running.is_ready, what="ready")
        for worker in WORKERS:
            assert f'celery_worker_up{{hostname="{worker}"}} 1\n' in running.get("/metrics").text
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(50) == 0
        sent, again, counted = last_line(running)
        assert counted == sent + again > 0
        assert running.err.read_text() == ""
    assert list((tmp_path / "tmp").iterdir()) == []


def test_demo_begins_with_days_that_are_marked_as_made_up(tmp_path: Path) -> None:
    """Its store is filled by the real pipeline before the start, and every page says so; its own count is of its fleet.

    Failures are those of the application's own files, which are there to be read, and nothing of the past is sent.
    """
    with demo(tmp_path, "--days", "1", "--rate", "20") as running:
        counts = running.counts()
        assert counts["shop.orders.place"]["succeeded"] > 500
        wait_until(
            lambda: running.counts()["shop.stock.reserve"]["succeeded"] > counts["shop.stock.reserve"]["succeeded"]
        )
        assert "the 1 days before" not in (page := running.get("/").text)
        assert "The data of the day before " in page
        failures = running.get("/api/v1/failures?task=shop.payments.charge&limit=1").json()["items"]
        failure = running.get(f"/api/v1/failures/{failures[0]['uuid']}").json()["items"][0]
        chain = re.findall(r'File "(.*/app/shop/gateway.py)", line (\d+), in submit', failure["traceback"])
        assert len(chain) == 2  # the provider's answer, and what the shop makes of it
        assert "raise CardDeclinedError" in Path(chain[1][0]).read_text().splitlines()[int(chain[1][1]) - 1]
        groups = running.get("/api/v1/tasks/shop.payments.charge").json()["errors"]
        assert {group["frame"] for group in groups} == {"app/shop/gateway.py:submit"}
        assert "SHOP-482" in running.get("/silences").text
        assert "recovered" not in running.text().partition("counts")[0]
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(50) == 0
        sent, again, counted = last_line(running)
        assert counted == sent + again > 0
        assert running.err.read_text() == ""


def test_generated_days_end_without_open_incidents() -> None:
    """Whatever the time of the start: the fleet that follows must not resolve what was never sent to anybody."""
    failed = []
    for now in range(1_795_887_900, 1_795_887_900 + DAY, HOUR):
        story = Story(now, lambda *_: ("Error()", ""))
        events = [event for _, part in story.minutes(now - 3 * HOUR, now) for event in part]
        failed += [now - event["timestamp"] for event in events if event["type"] == "task-failed"]
    assert len(failed) > 20
    assert min(failed) > CALM - 60


def last_line(running: Running) -> tuple[int, int, int]:
    """The numbers of sent, resent and counted tasks."""
    found = re.search(r"([\d,]+) tasks sent by the shop, ([\d,]+) retried by workers: ([\d,]+) counted", running.text())
    assert found is not None, running.text()
    sent, again, counted = (int(number.replace(",", "")) for number in found.groups())
    return sent, again, counted


def test_demo_ends_by_itself_beside_another_program(tmp_path: Path) -> None:
    """With --seconds it exits with 0; if the port is in use, it uses and prints the next free one."""
    # Not one that the system chooses: the next one may be that of anybody's outgoing connection at any time.
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", port)),
        demo(tmp_path, "--seconds", "2", "--port", str(port), "--days", "0") as running,
    ):
        assert running.url() != f"http://127.0.0.1:{port}"
        assert running.process.wait(120) == 0
        assert running.err.read_text() == ""


def test_demo_says_what_is_wrong_with_its_address(tmp_path: Path) -> None:
    """A foreign address is an error with exit code 1 and without a traceback."""
    with demo(tmp_path, "--host", "192.0.2.1") as running:
        assert running.process.wait(120) == 1
        assert running.err.read_text().startswith("error: cannot listen on 192.0.2.1")
