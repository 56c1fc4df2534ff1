"""Memory that runs short."""

from celery_monitor.adapters.process import resident
from celery_monitor.runtime.memory import MemoryWatch

MIB = 1 << 20


def test_pressed_once_for_each_growth() -> None:
    """What was let go of stays with the process: only what grows beyond it is pressing again."""
    uses = [50, 84, 86, 86, 87, 90, 90, 60, 84, 86, 87]
    ahead = iter(uses)
    watch = MemoryWatch(100 * MIB, lambda: next(ahead) * MIB)
    assert [use for use in uses if watch.under_pressure()] == [86, 90, 86]


def test_what_this_process_uses() -> None:
    """Something between a little and a lot."""
    assert 10 * MIB < resident() < 100_000 * MIB
