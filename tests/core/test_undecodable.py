"""Reports a fleet whose events cannot be decoded, but not single messages."""

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
    """The format and the remedy are reported as long as most events cannot be decoded."""
    problem = _monitor([PICKLE] * 5).undecodable.problem
    assert problem is not None
    assert "5 of 5 messages" in problem
    assert "application/x-python-serialize" in problem
    assert "event_serializer = 'json'" in problem
    assert _monitor([PICKLE] * 5, *[[READ]] * 6).undecodable.problem is None


def test_a_stray_message_is_no_fault() -> None:
    """Nor are a few among many, or old ones."""
    assert _monitor([PICKLE] * 2).undecodable.problem is None
    assert _monitor([PICKLE] * 5 + [READ] * 6).undecodable.problem is None
    assert _monitor([PICKLE] * 5, *[[]] * 12).undecodable.problem is None


def test_compressed_events() -> None:
    """They are reported as compressed."""
    problem = _monitor([msgspec.structs.replace(READ, refused="compressed")] * 3).undecodable.problem
    assert "compressed" in (problem or "")


def test_probes_are_not_the_fleet() -> None:
    """The monitor's own events do not make a fleet decodable, nor does a clock that is set back."""
    probe = Delivery(body(raw("sent") | {"type": "monitor-probe", "probe_number": 1, "probe_instance": 1}))
    assert _monitor([PICKLE] * 3 + [probe] * 20).undecodable.problem is not None
    assert _monitor([PICKLE] * 3, [PICKLE], step=-30.0).undecodable.problem is None
