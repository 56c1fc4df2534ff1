"""A fleet whose events cannot be read is told of; a stray message is not."""

import msgspec

from celery_monitor.core.model import Delivery, Restored
from celery_monitor.core.monitor import Limits, Monitor
from tests.builders import NOON, body, raw

PICKLE = Delivery(b"\x80\x04", "application/x-python-serialize")
READ = Delivery(body(raw("sent")))


def _monitor(*chunks: list[Delivery], step: float = 30.0) -> Monitor:
    monitor, now = Monitor(Limits(), Restored(), NOON), NOON
    for chunk in ([], *chunks):
        monitor.receive(chunk, now)
        monitor.tick(now)
        now += step
    return monitor


def test_a_fleet_that_sends_pickles() -> None:
    """What comes, and what to change, is said for as long as most of it cannot be read."""
    told = _monitor([PICKLE] * 5).undecodable.told
    assert told is not None
    assert "5 of 5 messages" in told
    assert "application/x-python-serialize" in told
    assert "event_serializer = 'json'" in told
    assert _monitor([PICKLE] * 5, *[[READ]] * 6).undecodable.told is None


def test_a_stray_message_is_no_fault() -> None:
    """Nor are some among many, or ones of long ago."""
    assert _monitor([PICKLE] * 2).undecodable.told is None
    assert _monitor([PICKLE] * 5 + [READ] * 6).undecodable.told is None
    assert _monitor([PICKLE] * 5, *[[]] * 12).undecodable.told is None


def test_compressed_events() -> None:
    """They are told as such."""
    told = _monitor([msgspec.structs.replace(READ, refused="compressed")] * 3).undecodable.told
    assert "compressed" in (told or "")


def test_probes_are_not_the_fleet() -> None:
    """What the monitor sends itself does not make a fleet readable; nor does a clock that is set back."""
    probe = Delivery(body(raw("sent") | {"type": "monitor-probe", "probe_number": 1, "probe_instance": 1}))
    assert _monitor([PICKLE] * 3 + [probe] * 20).undecodable.told is not None
    assert _monitor([PICKLE] * 3, [PICKLE], step=-30.0).undecodable.told is None
