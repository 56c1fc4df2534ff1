"""The status at the top of every page: whether the numbers can be trusted, and whether the fleet is healthy.

These are independent: a monitor that works correctly may watch a failing fleet, and a broken monitor must not look like
a healthy fleet.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal

from celery_monitor.adapters.web.filters import number, seconds
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.core.model import CounterFamily, Snapshot

Tone = Literal["good", "bad", "warn", "none"]

_BEHIND_SECONDS: Final = 10.0
"""Stream lag in seconds above which the header shows a warning."""


@dataclass(frozen=True, slots=True)
class HeaderState:
    """One of the two states."""

    tone: Tone
    subject: str
    text: str
    link: str
    """Relative to the root."""


@dataclass(frozen=True, slots=True)
class Status:
    """Both states, and whether anything was ever received."""

    numbers: HeaderState
    fleet: HeaderState
    silent: bool
    """The monitor is healthy, but has never received an event."""


def status(sources: Sources) -> Status:
    """The current status, from memory."""
    snapshot = sources.snapshot()
    silent = snapshot is not None and not snapshot.workers and not _has_events(snapshot)
    numbers, fleet = _numbers(sources, snapshot, silent=silent), _fleet(snapshot, silent=silent)
    if numbers.tone == "bad" and fleet.tone != "none":
        # The state of the fleet may be outdated.
        tone: Tone = "none" if fleet.tone == "good" else fleet.tone
        fleet = replace(fleet, tone=tone, text=f"{fleet.text} when last seen")
    return Status(numbers, fleet, silent)


def _has_events(snapshot: Snapshot) -> bool:
    """Whether any event of the fleet was ever counted; the monitor's own probes are excluded."""
    events = CounterFamily.EVENTS.of(snapshot.counters)
    return any(count for kind, count in events.items() if not kind.startswith("monitor-"))


def _numbers(sources: Sources, snapshot: Snapshot | None, *, silent: bool) -> HeaderState:
    health = sources.readyz()
    if not health.ok:
        wrong = next(name for name, problem in health.checks.items() if problem is not None)
        return HeaderState("bad", "Numbers", f"may be out of date ({wrong})", "#problems")
    if "standby" in health.notes:
        return HeaderState("none", "Numbers", "as of the leader's last commit", "workers")
    if snapshot is None:
        return HeaderState("none", "Numbers", "not read yet: the monitor is starting", "")
    if silent:
        return HeaderState("warn", "Numbers", "no events yet", "workers")
    if snapshot.lag is not None and snapshot.lag > _BEHIND_SECONDS:
        return HeaderState("warn", "Numbers", f"{seconds(snapshot.lag)} behind", "workers")
    behind = f", {seconds(snapshot.lag)} behind" if snapshot.lag is not None else ""
    return HeaderState("good", "Numbers", f"current{behind}", "workers")


def _fleet(snapshot: Snapshot | None, *, silent: bool) -> HeaderState:
    if snapshot is None or silent:
        return HeaderState("none", "Fleet", "not known yet", "workers")
    up = sum(worker.up for worker in snapshot.workers)
    down = len(snapshot.workers) - up
    workers = f"{_counted(up, 'worker')} up" + (f", {number(down)} down" if down else "")
    if snapshot.incidents_open:
        incidents = _counted(snapshot.incidents_open, "open incident")
        return HeaderState("bad", "Fleet", f"{incidents}, {workers}", "incidents?state=open")
    if not up:
        return HeaderState("bad" if down else "warn", "Fleet", workers if down else "no workers seen", "workers")
    tone: Tone = "warn" if down else "good"
    return HeaderState(tone, "Fleet", f"no open incidents, {workers}", "workers")


def _counted(many: int, noun: str) -> str:
    return f"{number(many)} {noun}" + ("" if many == 1 else "s")
