"""Measures one reader on the streams of one broker, one after the other."""

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
"""Seconds of a steady load before the measurement, by which one-time work is done."""
_IDLE_AFTER: Final = 20.0
"""Seconds before the idle reader is measured: from 10 s after its start, celery-monitor prepares its newest reports and
40 days of earlier ones, once."""
_SETTLE: Final = 2.5
"""Seconds without a new event after which no more events are expected."""
_PATIENCE: Final = 90.0
"""Seconds after the end of a load within which a reader may still count events."""
_EVENTS_PER_TASK: Final = 3.56
"""Approximately, for bench.publish.Load."""


@dataclass(frozen=True)
class Stream:
    """A stream: ``rate`` events per second, FLAT_OUT or 0 (idle), with ``per_message`` events in a message."""

    broker: str
    rate: int
    per_message: int


@dataclass(frozen=True)
class Size:
    """The length of each stream."""

    seconds: float
    """Seconds of a steady load and of an idle stream."""
    tasks: int
    """Tasks of a flat-out load."""


@dataclass(frozen=True)
class Used:
    """The resources that a reader used during a period."""

    published: int
    counted: int
    cpu_per_event: float | None
    """Seconds of CPU time per counted event."""
    cpu_share: float
    """Share of one core; of a flat-out load, during the load."""
    reached: float | None = None
    """Events per second of a steady load, which a busy machine may not reach."""


@dataclass(frozen=True)
class Measured:
    """The measurement of one reader with one stream. The CPU time is that of its process only."""

    run: int
    reader: str
    broker: str
    rate: int
    per_message: int
    published: int = 0
    counted: int | None = None
    """None: the reader died or stopped answering."""
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
    """Start one reader, measure it with these streams of a broker, and stop it."""
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
    """Measure one stream. ``before``: the number of events counted before."""
    if stream.rate == 0:
        return _idle(reader, size.seconds)
    if stream.rate == FLAT_OUT:
        return _flat_out(reader, url, stream, size.tasks, before)
    return _steady(reader, url, stream, size.seconds, before)


def _command(url: str, stream: Stream, tasks: int) -> list[str]:
    """The command of the publisher of a load."""
    found = [sys.executable, "bench/publish.py", "--broker", url, "--tasks", str(tasks), "--rate", str(stream.rate)]
    found += ["--per-message", str(stream.per_message)]
    return [*found, "--even"] if stream.rate <= 1000 else found


def _settled(reader: Reader, per_message: int) -> tuple[int, float, float]:
    """Wait until the count is stable. Returns the count, the CPU time, and when the count was first reached.

    Raises OSError or HTTPException if the reader does not answer at the end or has exited.
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
    """Measure a reader that receives no events."""
    time.sleep(_IDLE_AFTER)
    cpu, began = cpu_seconds(reader), time.monotonic()
    time.sleep(seconds)
    return Used(0, 0, None, (cpu_seconds(reader) - cpu) / (time.monotonic() - began))


def _flat_out(reader: Reader, url: str, stream: Stream, tasks: int, before: int) -> Used:
    """Measure from the start of the load until the reader's count is stable."""
    cpu, began = cpu_seconds(reader), time.monotonic()
    subprocess.run(_command(url, stream, tasks), check=True, stdout=subprocess.DEVNULL)
    counted, used, ended = _settled(reader, stream.per_message)
    counted, used = counted - before, used - cpu
    published = Load(tasks, stream.per_message).events
    return Used(published, counted, used / counted if counted else None, used / (ended - began))


def _steady(reader: Reader, url: str, stream: Stream, seconds: float, before: int) -> Used:
    """Measure in the middle of the load, after one-time work and without a scrape."""
    tasks = int(stream.rate * (_STEADY_AFTER + seconds + 1) / _EVENTS_PER_TASK)
    with subprocess.Popen(_command(url, stream, tasks), stdout=subprocess.PIPE, text=True) as publisher:
        try:
            next(iter(publisher.stdout or ()), "")  # the load starts only now; on a busy machine this takes seconds
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
