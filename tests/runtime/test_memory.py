"""Memory shortage."""

from celery_monitor.adapters.process import resident
from celery_monitor.runtime.memory import MemoryWatch

MIB = 1 << 20


def test_pressed_once_for_each_growth() -> None:
    """Freed memory stays with the process: only further growth counts as a shortage again."""
    uses = [50, 84, 86, 86, 87, 90, 90, 60, 84, 86, 87]
    ahead = iter(uses)
    watch = MemoryWatch(100 * MIB, lambda: next(ahead) * MIB)
    assert [use for use in uses if watch.under_pressure()] == [86, 90, 86]


def test_what_this_process_uses() -> None:
    """A plausible value."""
    assert 10 * MIB < resident() < 100_000 * MIB
