"""One reader on the streams of one broker, one after the other: what it used for each of them."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Final

from bench.peers.readers import Reader, cpu_seconds, resident_bytes, start
from bench.publish import Load

FLAT_OUT: Final = 10**9
_WARM_UP: Final = 4.0
_STEADY_AFTER: Final = 3.0
"""Seconds of a steady load before it is measured: what is done once is done by then."""
_IDLE_AFTER: Final = 20.0
"""Seconds before idling is measured: from 10 s after its start, celery-monitor prepares its newest reports and 40 days
of earlier ones, five a second. That is done once."""
_SETTLE: Final = 2.5
"""Seconds without another event, after which nothing more is expected."""
_PATIENCE: Final = 90.0
"""Seconds after the end of a load in which a reader may still count it."""
_EVENTS_PER_TASK: Final = 3.56
"""Of bench.publish.Load, about."""


@dataclass(frozen=True)
class Stream:
    """``rate`` events a second, FLAT_OUT or 0 (idle), ``per_message`` of them in a message."""

    broker: str
    rate: int
    per_message: int


@dataclass(frozen=True)
class Size:
    """How much of each stream."""

    seconds: float
    """Of a steady load, and of idling."""
    tasks: int
    """Of a load that is flat out."""


@dataclass(frozen=True)
class Used:
    """What a reader did in some time."""

    published: int
    counted: int
    cpu_per_event: float | None
    """Seconds for each event that it counted."""
    cpu_share: float
    """Of one core; at a flat-out load, while it lasted."""
    reached: float | None = None
    """Events a second of a steady load, which a busy machine may not come to."""


@dataclass(frozen=True)
class Measured:
    """What one reader did with one stream. CPU time is of its process only."""

    run: int
    reader: str
    broker: str
    rate: int
    per_message: int
    published: int = 0
    counted: int | None = None
    """None: it died, or did not answer any more."""
    cpu_per_event: float | None = None
    cpu_share: float | None = None
    resident: int | None = None
    """Bytes."""
    scrape: float | None = None
    """Seconds."""
    reached: float | None = None


def life(
    name: str, streams: Sequence[Stream], url: str, directory: Path, *, size: Size, run: int
) -> Iterator[Measured]:
    """One reader, started for these streams of a broker, and ended after them."""
    counted = 0
    with start(name, directory, url) as reader:
        time.sleep(_WARM_UP)
        for stream in streams:
            fields: dict[str, object] = {}
            try:
                used = _measure(reader, url, stream, size, counted)
                counted += used.counted
                fields = {**vars(used), "resident": resident_bytes(reader)}
                if stream is streams[-1]:  # one scrape of celery-exporter takes two seconds
                    fields["scrape"] = reader.scrape()
            except (OSError, HTTPException) as exc:
                print(f"{name} does not answer: {exc!r}. The end of its log:\n{_tail(directory)}", file=sys.stderr)
            yield Measured(run, name, stream.broker, stream.rate, stream.per_message, **fields)  # type: ignore[arg-type]


def _tail(directory: Path) -> str:
    logs = [path.read_text(errors="replace")[-500:] for path in directory.glob("*.log")]
    return "\n".join(logs)


def _measure(reader: Reader, url: str, stream: Stream, size: Size, before: int) -> Used:
    """``before``: what it had counted until then."""
    if stream.rate == 0:
        return _idle(reader, size.seconds)
    if stream.rate == FLAT_OUT:
        return _flat_out(reader, url, stream, size.tasks, before)
    return _steady(reader, url, stream, size.seconds, before)


def _command(url: str, stream: Stream, tasks: int) -> list[str]:
    """The publisher of a load."""
    found = [sys.executable, "bench/publish.py", "--broker", url, "--tasks", str(tasks), "--rate", str(stream.rate)]
    found += ["--per-message", str(stream.per_message)]
    return [*found, "--even"] if stream.rate <= 1000 else found


def _settled(reader: Reader, per_message: int) -> tuple[int, float, float]:
    """Wait until it counts no more: the number, its CPU time, and when that was first seen.

    Raises OSError or HTTPException when it does not answer at the end, or has ended.
    """
    until = time.monotonic() + _PATIENCE
    seen, cpu, at = -1, 0.0, 0.0
    while True:
        try:
            now = reader.events(per_message)
        except (OSError, HTTPException):  # busy, perhaps
            if time.monotonic() >= until or not reader.running:
                raise
            now = -1
        if now != seen:
            seen, cpu, at = now, cpu_seconds(reader), time.monotonic()
        if time.monotonic() >= until or (seen >= 0 and time.monotonic() - at >= _SETTLE):
            return seen, cpu, at
        time.sleep(0.25)


def _idle(reader: Reader, seconds: float) -> Used:
    """Nothing comes."""
    time.sleep(_IDLE_AFTER)
    cpu, began = cpu_seconds(reader), time.monotonic()
    time.sleep(seconds)
    return Used(0, 0, None, (cpu_seconds(reader) - cpu) / (time.monotonic() - began))


def _flat_out(reader: Reader, url: str, stream: Stream, tasks: int, before: int) -> Used:
    """From the beginning of the load until the reader counts no more."""
    cpu, began = cpu_seconds(reader), time.monotonic()
    subprocess.run(_command(url, stream, tasks), check=True, stdout=subprocess.DEVNULL)
    counted, used, ended = _settled(reader, stream.per_message)
    counted, used = counted - before, used - cpu
    published = Load(tasks, stream.per_message).events
    return Used(published, counted, used / counted if counted else None, used / (ended - began))


def _steady(reader: Reader, url: str, stream: Stream, seconds: float, before: int) -> Used:
    """In the middle of the load, so that what is done once is done. No scrape falls into the time that is measured."""
    tasks = int(stream.rate * (_STEADY_AFTER + seconds + 1) / _EVENTS_PER_TASK)
    with subprocess.Popen(_command(url, stream, tasks), stdout=subprocess.PIPE, text=True) as publisher:
        try:
            next(iter(publisher.stdout or ()), "")  # it begins only now, on a busy machine after seconds
            time.sleep(_STEADY_AFTER)
            cpu, began = cpu_seconds(reader), time.monotonic()
            time.sleep(seconds)
            used, took = cpu_seconds(reader) - cpu, time.monotonic() - began
            if publisher.poll() is not None:
                raise RuntimeError(f"The load ended early, with exit code {publisher.returncode}; its output is above.")
            said, _ = publisher.communicate(timeout=seconds + 60)
        finally:
            publisher.kill()
    if publisher.returncode:
        raise subprocess.CalledProcessError(publisher.returncode, "bench/publish.py")
    counted = _settled(reader, stream.per_message)[0] - before
    published = Load(tasks, stream.per_message).events
    reached = float(re.findall(r"([\d.]+) events/s", said)[-1])
    share = used / took
    return Used(published, counted, share / (reached * counted / published) if counted else None, share, reached)
