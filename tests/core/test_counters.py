"""The monitor's own counters."""

from celery_monitor.core.counters import CUSTOM_TYPES, Counters


def test_custom_types_are_bounded_over_restarts() -> None:
    """Whatever they are called, and however often the monitor is restarted."""
    values: dict[str, float] = {}
    for start in range(5):
        of = Counters(values, {"task-sent"})
        for number in range(100):
            of.custom(f"task-own-{start}-{number}")
        values = of.all()
    assert len([name for name in values if name.startswith("events.")]) == CUSTOM_TYPES + 1
    assert values["events.other"] == 500 - CUSTOM_TYPES
    assert values["discarded.unknown_type"] == 500


def test_what_is_worth_a_flush() -> None:
    """Everything but what was said to be able to wait."""
    of = Counters({}, ())
    of.add("uptime_seconds", 1, flush=False)
    assert not of.news
    of.discard("malformed")
    assert of.news


def test_latest() -> None:
    """A time never goes back."""
    of = Counters({"read_until": 5.0}, ())
    for time in (3.0, 7.0, 6.0):
        of.latest("read_until", time)
    assert of.all() == {"read_until": 7.0}
