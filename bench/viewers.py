"""Many viewers with an open page while events arrive: lag of the stream, responses and memory, on RabbitMQ.

    PYTHONPATH=. python bench/viewers.py [--viewers 50] [--rate 10000] [--per-message 3] [--seconds 60] [--write]

Each viewer requests the overview every 10 s like the page's script, on a persistent connection like that of a browser.
The daemon uses its default settings, except for the broker's address and the store; the publisher and the viewers are
one process each. Every request without a response is reported: when it was sent, what happened instead and after how
long, and the lag of the stream. The exit code is 1 if the lag was above 1 s, if a response was lost, if memory in the
last third was a tenth above that of the second third, or if fewer than 95 % of the wanted events were read: then the
machine was too slow, as the CPU times show. ``--write`` writes the section of docs/benchmarks.md.
"""

import argparse
import asyncio
import itertools
import os
import ssl
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.pages import machine, replace_part, require, table
from bench.steady import WARM_UP, daemon_events, load
from celery_monitor.adapters.web.render import REFRESH_SECONDS
from tests.e2e.daemon import Daemon
from tests.servers import RabbitMQ

MAX_LAG = 1.0
READ = 0.95
"""Minimum share of the wanted rate."""
GROWTH = 0.1
"""Maximum growth of the memory from the middle third to the last."""
_TLS = ssl.create_default_context()
"""Not used. Without it, each client would load the certificate authorities, and the others would wait meanwhile."""
SAMPLES_PER_SECOND = 2
_ASKED = {"accept": "text/html", "cache-control": "max-age=3"}
"""Seconds, as in app.js."""
_KEPT = httpx.Limits(keepalive_expiry=60)
"""Seconds for which browsers keep a connection, longer than the time between two requests."""
_TEXT = 200


@dataclass
class Seen:
    """The measurements, in seconds and bytes."""

    began: float = field(default_factory=time.monotonic)
    answers: list[float] = field(default_factory=list)
    sizes: set[int] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    """Requests without a response: when, what happened instead, and after how long."""
    lags: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def lose(self, who: str, sent: float, what: str) -> None:
        """Record a request without a response."""
        lag = f"{self.lags[-1]:.2f} s" if self.lags else "not known"
        took = time.monotonic() - sent
        self.lost.append(f"{who} at {sent - self.began:.1f} s: {what}, after {took:.2f} s; the lag was {lag}")


async def ask(client: httpx.AsyncClient, path: str, who: str, seen: Seen) -> str | None:
    """The response; None if it was lost."""
    sent = time.monotonic()
    try:
        answer = await client.get(path)
    except httpx.HTTPError as exc:
        seen.lose(who, sent, f"{type(exc).__name__} {exc}".strip())
        return None
    if answer.is_error:
        seen.lose(who, sent, f"status {answer.status_code}: {' '.join(answer.text.split())[:_TEXT]}")
        return None
    if path == "/":
        seen.answers.append(time.monotonic() - sent)
        seen.sizes.add(answer.num_bytes_downloaded)
    return answer.text


async def view(url: str, number: int, viewers: int, until: float, seen: Seen) -> None:
    """Run one viewer. Viewers start at different times."""
    await asyncio.sleep(REFRESH_SECONDS * number / viewers)
    options = {"base_url": url, "timeout": 60, "trust_env": False, "verify": _TLS, "limits": _KEPT, "headers": _ASKED}
    async with httpx.AsyncClient(**options) as client:  # type: ignore[arg-type] # of many types
        while time.monotonic() < until:
            await ask(client, "/", f"viewer {number}", seen)
            await asyncio.sleep(REFRESH_SECONDS)


async def watch(daemon: Daemon, until: float, seen: Seen) -> None:
    """Record the lag of the stream and the daemon's memory."""
    async with httpx.AsyncClient(base_url=daemon.url(), timeout=60, trust_env=False, verify=_TLS) as client:
        while time.monotonic() < until:
            text = await ask(client, "/metrics", "scrape", seen) or ""
            found = [line for line in text.splitlines() if line.startswith("celery_monitor_event_lag_seconds ")]
            seen.lags += [float(line.split()[1]) for line in found]
            seen.resident.append(daemon.resident_bytes())
            await asyncio.sleep(1 / SAMPLES_PER_SECOND)


async def both(daemon: Daemon, viewers: int, seconds: float) -> Seen:
    """Run all viewers and the recorder."""
    seen = Seen()
    until = seen.began + seconds
    await asyncio.gather(
        watch(daemon, until, seen), *(view(daemon.url(), number, viewers, until, seen) for number in range(viewers))
    )
    return seen


def print_report(seen: Seen) -> None:
    """Print the measurements of the pages."""
    lags = sorted(seen.lags)
    p95 = lags[int(len(lags) * 0.95)]
    print(f"stream lag: median {statistics.median(lags):.3f} s, p95 {p95:.3f} s, largest {lags[-1]:.3f} s")
    if answers := sorted(seen.answers):
        median, longest = statistics.median(answers) * 1000, answers[-1] * 1000
        sizes = f"{min(seen.sizes):,} to {max(seen.sizes):,} bytes"
        print(f"answers: {len(answers)}, median {median:.0f} ms, longest {longest:.0f} ms, {sizes}")
    print(f"lost: {len(seen.lost)}")
    for one in seen.lost:
        print(f"  {one}")
    sixths = ", ".join(f"{statistics.mean(part):.0f}" for part in parts(seen.resident, 6))
    print(f"memory: {sixths} MiB, the mean of each sixth; {max(seen.resident) / 2**20:.0f} MiB at most")


def section(seen: Seen, arguments: argparse.Namespace, rate: float, cores: float) -> str:
    """The section of docs/benchmarks.md. ``cores``: the number of cores that the daemon used."""
    answers = [1000 * seconds for seconds in seen.answers]
    memory = [f"{statistics.mean(part):.0f}" for part in parts(seen.resident, 6)]
    rows = [
        ["Events read each second", f"{rate:,.0f} of {arguments.rate:,}"],
        ["Lag of the stream: median, largest", f"{statistics.median(seen.lags):.3f} s, {max(seen.lags):.2f} s"],
        ["Pages answered, not answered", f"{len(answers):,}, {len(seen.lost)}"],
        ["Time of an answer: median, longest", f"{statistics.median(answers):.0f} ms, {max(answers):.0f} ms"],
        ["Processor", f"{100 * cores:.0f} % of a core"],
        ["Memory, the mean of each sixth of the time", f"{', '.join(memory)} MiB"],
    ]
    head = (
        f"{arguments.viewers} viewers for {arguments.seconds:.0f} s, {arguments.per_message} events per message. "
        f"Measured {machine()} by `bench/viewers.py`; publisher and viewers share the cores with the daemon."
    )
    return f"{head}\n\n{table(['', ''], rows, text=(0, 1))}"


def parts(sizes: list[int], number: int) -> list[list[float]]:
    """Sizes converted from bytes to MiB and split into parts of about the same length."""
    bounds = [len(sizes) * part // number for part in range(number + 1)]
    return [[size / 2**20 for size in sizes[low:high]] for low, high in itertools.pairwise(bounds) if high > low]


def failures(seen: Seen, rate: float, wanted: int) -> list[str]:
    """The requirements that were not met."""
    found = [f"the lag was above {MAX_LAG:g} s"] if max(seen.lags) > MAX_LAG else []
    found += ["answers were lost"] if seen.lost else []
    *_, middle, last = map(statistics.mean, parts(seen.resident, 3))
    found += [f"memory rose from {middle:.0f} to {last:.0f} MiB"] if last > (1 + GROWTH) * middle else []
    found += [f"only {rate:,.0f} of {wanted:,} events/s were read"] if rate < READ * wanted else []
    return found


def main() -> None:
    """Measure, and report whether all requirements were met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--per-message", type=int, default=3, help="events, as busy workers send them")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--write", action="store_true", help="write the part of docs/benchmarks.md")
    arguments = parser.parse_args()
    if arguments.write:
        require("viewers")
    with tempfile.TemporaryDirectory() as name, RabbitMQ(Path(name) / "rabbitmq") as rabbitmq:
        url = rabbitmq.new_vhost()
        with Daemon(Path(name) / "daemon", url, {"broker": {"probe_interval": "5s"}}) as daemon:
            daemon.until_ready()
            with load(url, arguments.rate, arguments.seconds + REFRESH_SECONDS, arguments.per_message):
                time.sleep(WARM_UP)
                events, began, used = daemon_events(daemon), time.monotonic(), daemon.cpu_seconds()
                load_before, own = os.getloadavg()[0], time.process_time()
                seen = asyncio.run(both(daemon, arguments.viewers, arguments.seconds))
                took = time.monotonic() - began
                used, own = daemon.cpu_seconds() - used, time.process_time() - own
                rate = (daemon_events(daemon) - events) / took
    print(f"load average of the machine: {load_before:.1f} at the start, {os.getloadavg()[0]:.1f} at the end, ", end="")
    print(f"on {os.cpu_count()} processors")
    print(f"{arguments.viewers} viewers, {rate:,.0f} of {arguments.rate:,} events/s read, ", end="")
    print(f"{arguments.per_message} a message")
    print(f"processor time: {100 * used / took:.0f} % of a core in the daemon, {100 * own / took:.0f} % in the viewers")
    print_report(seen)
    if arguments.write:
        replace_part("viewers", section(seen, arguments, rate, used / took))
    if found := failures(seen, rate, arguments.rate):
        sys.exit("; ".join(found))


if __name__ == "__main__":
    main()
