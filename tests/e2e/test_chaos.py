"""All harm at once, with a real fleet on each broker: the fleet's tasks are counted exactly, and pages are sent."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import outcomes
from tests.conftest import Start
from tests.e2e.campaign import Size, assert_drained, seeded, sizes
from tests.e2e.chaos import MIB, Arena, arena, beside, delays, peak_bytes, settled, until_counted
from tests.e2e.disk import small_disk
from tests.e2e.paging import KEY
from tests.servers import RabbitMQ, Redis
from tests.servers.pagerduty import PagerDutyServer

MEMORY = 512 * MIB
DISK = 100
"""Megabytes."""


@pytest.fixture
def servers() -> Iterator[dict[str, PagerDutyServer]]:
    """A simulated PagerDuty for each broker."""
    with PagerDutyServer(keys={KEY}) as one, PagerDutyServer(keys={KEY}) as other:
        yield {"rabbitmq": one, "redis": other}


@sizes(Size(tasks=0, faults=45, rate=0), Size(tasks=0, faults=600, rate=0))
def test_all_harm_at_once(
    size: Size, servers: dict[str, PagerDutyServer], rabbitmq: RabbitMQ, start: Start, tmp_path: Path
) -> None:
    """The daemon lives within its memory and its disk, answers, counts the fleet's tasks as they are, and pages.

    ``faults`` are the seconds of harm.
    """
    seed, strict = seeded().getrandbits(32), size.faults > 100
    # A subscriber that is behind is not cut off: what Redis has thrown away cannot be counted by anybody.
    redis = start(Redis(tmp_path / "redis", options=("--client-output-buffer-limit", "pubsub 0 0 0")))
    urls = {"rabbitmq": rabbitmq.new_vhost(), "redis": redis.url()}
    with ExitStack() as stack:
        stack.callback(rabbitmq.delete_vhost, urls["rabbitmq"])
        arenas: list[Arena] = []
        for name, url in urls.items():
            disk = stack.enter_context(small_disk(tmp_path / f"{name}-disk", DISK))
            server = servers[name]
            arenas.append(arena(name, url, tmp_path, disk=disk, server=server, seconds=size.faults, seed=seed))
        for one in arenas:
            start(one.daemon).until_ready()
        for one in arenas:
            start(one.worker)
        processes = [one.daemon.pid for one in arenas]
        with ExitStack() as running:
            for one in arenas:
                start(one.harm)
                running.enter_context(beside(one, size.faults))

        times: list[tuple[str, float, float]] = []
        for one, process in zip(arenas, processes, strict=True):
            books = settled(one)
            late = delays(one, books)
            peak, slowest = peak_bytes(one.daemon), max(one.scrapes)
            outcomes.figures(
                one.name,
                tasks=sum(one.sent.values()),
                pages=len(late),
                latest_page=f"{max(late.values()):.1f} s",
                scrapes=len(one.scrapes),
                slowest_scrape=f"{slowest:.2f} s",
                most_memory=f"{peak / MIB:.0f} MiB",
            )
            if one.name == "rabbitmq":
                until_counted(one, books)
            assert one.trouble == []
            assert one.daemon.pid == process
            assert one.daemon.running
            assert peak < MEMORY
            assert one.server.violations == []
            times.append((one.name, max(late.values()), slowest))
        assert_drained(rabbitmq, urls["rabbitmq"])
        # Last, so that a slow answer of one daemon hides nothing that the other one did wrong.
        for name, latest, slowest in times:
            assert latest < (2 if strict else 30), name
            assert slowest < (0.5 if strict else 15), name
        for one in arenas:
            one.daemon.stop()
