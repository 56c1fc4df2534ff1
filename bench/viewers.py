"""Many people with an open page while events come in: lag of the stream, answers, memory, on RabbitMQ.

    PYTHONPATH=. python bench/viewers.py [--viewers 50] [--rate 10000] [--seconds 60]

Each viewer asks for the overview as the page's script does, every 10 s, on a connection of its own. The daemon has its
default settings, but for the address of the broker and the store; the publisher is a process of its own.
"""

import argparse
import asyncio
import os
import ssl
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.steady import WARM_UP, daemon_events, load
from celery_monitor.adapters.web.render import REFRESH_SECONDS
from tests.e2e.daemon import Daemon
from tests.servers import RabbitMQ

MAX_LAG = 1.0
_TLS = ssl.create_default_context()
"""Not used: but each client would load the certificate authorities again, and the others would wait meanwhile."""
SAMPLES_PER_SECOND = 2


@dataclass
class Seen:
    """What was measured."""

    answers: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Requests without an answer: what happened."""
    lags: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)


async def view(url: str, number: int, viewers: int, until: float, seen: Seen) -> None:
    """One viewer; they do not all come at once."""
    await asyncio.sleep(REFRESH_SECONDS * number / viewers)
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, verify=_TLS) as client:
        while time.monotonic() < until:
            begun = time.monotonic()
            try:
                (await client.get("/")).raise_for_status()
                seen.answers.append(time.monotonic() - begun)
            except httpx.HTTPError as exc:
                seen.failed.append(f"{type(exc).__name__} after {time.monotonic() - begun:.1f} s")
            await asyncio.sleep(REFRESH_SECONDS)


async def watch(daemon: Daemon, until: float, seen: Seen) -> None:
    """How far the stream is behind, and how much memory the daemon has."""
    async with httpx.AsyncClient(base_url=daemon.url(), timeout=60, trust_env=False, verify=_TLS) as client:
        while time.monotonic() < until:
            text = (await client.get("/metrics")).text
            found = [line for line in text.splitlines() if line.startswith("celery_monitor_event_lag_seconds ")]
            seen.lags += [float(line.split()[1]) for line in found]
            seen.resident.append(daemon.resident_bytes())
            await asyncio.sleep(1 / SAMPLES_PER_SECOND)


async def both(daemon: Daemon, viewers: int, seconds: float) -> Seen:
    """All viewers and the watch."""
    seen, until = Seen(), time.monotonic() + seconds
    await asyncio.gather(
        watch(daemon, until, seen), *(view(daemon.url(), number, viewers, until, seen) for number in range(viewers))
    )
    return seen


def main() -> None:
    """Measure, and say whether the lag was within its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, RabbitMQ(Path(name) / "rabbitmq") as rabbitmq:
        url = rabbitmq.new_vhost()
        with Daemon(Path(name) / "daemon", url, {"broker": {"probe_interval": "5s"}}) as daemon:
            daemon.until_ready()
            with load(url, arguments.rate, arguments.seconds + REFRESH_SECONDS, 1):
                time.sleep(WARM_UP)
                events, began = daemon_events(daemon), time.monotonic()
                seen = asyncio.run(both(daemon, arguments.viewers, arguments.seconds))
                rate = (daemon_events(daemon) - events) / (time.monotonic() - began)
    answers, lags, memory = sorted(seen.answers), sorted(seen.lags), [size / 2**20 for size in seen.resident]
    print(f"load average of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    print(f"{arguments.viewers} viewers, {rate:,.0f} of {arguments.rate:,} events/s read")
    print(f"stream lag: median {statistics.median(lags):.3f} s, largest {lags[-1]:.3f} s")
    median, longest = statistics.median(answers) * 1000, answers[-1] * 1000
    print(f"answers: {len(answers)}, median {median:.0f} ms, longest {longest:.0f} ms; none {len(seen.failed)} times")
    for told in sorted(set(seen.failed))[:5]:
        print(f"  {told}")
    print(f"memory: {memory[0]:.0f} MiB at the start, {memory[-1]:.0f} MiB at the end, {max(memory):.0f} MiB at most")
    if lags[-1] > MAX_LAG:
        sys.exit(f"the lag was above {MAX_LAG:g} s")


if __name__ == "__main__":
    main()
