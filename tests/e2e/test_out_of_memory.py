"""Memory is out, and the kernel kills: a child of a worker, or the whole worker (real memory cgroups)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.e2e.paging import KEY, pager
from tests.e2e.test_conditions import SETTINGS, SHORT, VISIBILITY, incidents, started, until
from tests.fleet.outcomes import client
from tests.servers import CeleryWorker, wait_until
from tests.servers.memory_limit import MemoryLimit, memory_limit
from tests.servers.pagerduty import PagerDutyServer

MEGABYTES = 300
"""A worker with two children takes some 120."""


class LimitedWorker(CeleryWorker):
    """A worker of the fleet in a memory cgroup."""

    limit: MemoryLimit | None = None

    def command(self) -> Sequence[str]:
        command = super().command()
        return command if self.limit is None else self.limit.within(command)


def worker(
    directory: Path, broker_url: str, hostname: str, limit: MemoryLimit | None = None, **options: Any
) -> LimitedWorker:
    """One of the fleet, with a queue of its own unless told otherwise."""
    settings = {
        "FLEET_CONF": f'{{"broker_transport_options": {{"visibility_timeout": {VISIBILITY}}}}}',
        "FLEET_QUEUE": options.pop("queue", hostname),
    }
    made = LimitedWorker(directory, broker_url, hostname=hostname, settings=settings, **options)
    made.limit = limit
    return made


def counted(daemon: Daemon, task: str, outcome: str, number: int = 1) -> None:
    """Wait until so many of a task have ended in this way."""
    wait_until(lambda: daemon.counts().get(task, {}).get(outcome) == number, 120, what=f"{task}: {number} {outcome}")


def gone(one: LimitedWorker) -> None:
    """Wait until its main process has ended."""
    wait_until(lambda: not one.running, 60, what=f"the end of {one.name}")


@pytest.mark.campaign
@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_the_kernel_kills_a_child(request: pytest.FixtureRequest, broker: str, start: Start, tmp_path: Path) -> None:
    """One failure with its id, also with ``acks_late``; a second delivery with ``reject_on_worker_lost`` is none.

    What another child of the worker runs goes on, and nothing is lost.
    """
    broker_url = request.getfixturevalue(f"{broker}_url")
    with PagerDutyServer(keys={KEY}) as server, memory_limit(f"child-{broker}", MEGABYTES) as limit:
        daemon = start(pager(tmp_path, broker_url, server, SETTINGS | {"alerts": {"rules": SHORT}}))
        first = start(worker(tmp_path, broker_url, "first", limit))
        daemon.until_ready()
        with client(broker_url) as fleet:
            running = fleet.send_task("fleet.sleep", [600], queue="first").id
            started(daemon, "fleet.sleep")
            failing = {}
            for kills, task in enumerate(("fleet.fill_memory", "fleet.fill_memory_late"), start=1):
                failing[task] = fleet.send_task(task, queue="first").id
                counted(daemon, task, "failed")
                assert limit.kills == kills
            fleet.send_task("fleet.fill_memory_again", queue="first")
            counted(daemon, "fleet.fill_memory_again", "succeeded")
            assert limit.kills == 3
            wait_until(lambda: len(server.opened()) == 2, 60, what="two pages")
            found = {one["task"]: one["samples"] for one in incidents(daemon, "failure")}
            assert found == {task: [uuid] for task, uuid in failing.items()}
            assert incidents(daemon, "lost") == []
            first.kill()
            assert until(daemon, "lost", "open")["samples"] == [running]
        wait_until(lambda: len(server.opened()) == 3, 60, what="three pages")
        assert set(server.opened().values()) == {1}
        assert daemon.metric("task_lost_total") == 1
        assert server.violations == []


@pytest.mark.campaign
@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_the_kernel_kills_the_whole_worker(
    request: pytest.FixtureRequest, broker: str, pool: str, start: Start, tmp_path: Path
) -> None:
    """One loss for each worker, with names and ids; it resolves when all of it has run again (``acks_late``)."""
    broker_url = request.getfixturevalue(f"{broker}_url")
    with (
        PagerDutyServer(keys={KEY}) as server,
        memory_limit(f"mixed-{pool}-{broker}", MEGABYTES) as mixed,
        memory_limit(f"late-{pool}-{broker}", MEGABYTES) as late,
    ):
        daemon = start(pager(tmp_path, broker_url, server, SETTINGS | {"alerts": {"rules": SHORT}}))
        workers = {
            name: start(worker(tmp_path, broker_url, name, limit, pool=pool))
            for name, limit in (("mixed", mixed), ("late", late))
        }
        daemon.until_ready()
        for one in workers.values():
            Path(f"/proc/{one.pid}/oom_score_adj").write_text("1000")  # the kernel's choice, before any child
        with client(broker_url) as fleet:
            sleeping = fleet.send_task("fleet.sleep", [600], queue="mixed").id
            started(daemon, "fleet.sleep")
            filling = {name: fleet.send_task("fleet.fill_memory_again", queue=name).id for name in workers}
            for one in workers.values():
                gone(one)
                one.kill()  # its children, as the end of a container does
            assert (mixed.kills > 0, late.kills > 0) == (True, True)
            wait_until(lambda: len(incidents(daemon, "lost")) == 2, 120, what="two incidents")
            lost = {one["subject"]: one for one in incidents(daemon, "lost")}
            assert lost["celery@mixed"]["tasks"] == {"fleet.sleep": 1, "fleet.fill_memory_again": 1}
            assert set(lost["celery@mixed"]["samples"]) == {sleeping, filling["mixed"]}
            assert lost["celery@late"]["samples"] == [filling["late"]]
            start(worker(tmp_path, broker_url, "second", pool=pool, options=("-Q", "late,mixed")))
            counted(daemon, "fleet.fill_memory_again", "succeeded", 2)
            key = lost["celery@late"]["key"]
            wait_until(lambda: key in server.opened() and not server.alerts[KEY, key].open, 60, what="the resolve")
        states = {one["subject"]: (one["state"], one["count"]) for one in incidents(daemon, "lost")}
        assert states["celery@late"][0] == "resolved"
        assert states["celery@mixed"][0] == "open"
        assert sorted(server.opened().values()) == [1, 1]
        assert daemon.metric("task_lost_total") == 3
        assert server.violations == []
