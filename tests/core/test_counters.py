"""The monitor's own counters."""

from celery_monitor.core.counters import MAX_CUSTOM_TYPES, Counters
from celery_monitor.core.model import CounterFamily, CounterName


def test_custom_types_are_bounded_over_restarts() -> None:
    """The number of custom types is bounded, also across restarts."""
    values: dict[str, float] = {}
    for start in range(5):
        of = Counters(values, {"task-sent"})
        for number in range(100):
            of.custom(f"task-own-{start}-{number}")
        values = of.all()
    assert len([name for name in values if name.startswith("events.")]) == MAX_CUSTOM_TYPES + 1
    assert values["events.other"] == 500 - MAX_CUSTOM_TYPES
    assert values["discarded.unknown_type"] == 500


def test_what_is_worth_a_flush() -> None:
    """Every counter except those marked as able to wait."""
    of = Counters({}, ())
    of.add(CounterName.UPTIME, 1, flush=False)
    assert not of.flush_needed
    of.discard("malformed")
    assert of.flush_needed


def test_only_own_probes_tell_how_far_the_stream_was_read() -> None:
    """The newest own probe counts, by this monitor's clock, even if the clock was set back."""
    of = Counters({"read_until": 5.0}, (), 77)
    for prober, at, until in ((78, 9.0, 5.0), (None, 9.0, 5.0), (77, 8.0, 8.0), (78, 99.0, 8.0), (77, 7.0, 7.0)):
        of.probed(prober, at)
        assert of.all() == {"read_until": until}
    nobody = Counters({}, ())
    nobody.probed(None, 9.0)
    assert nobody.all() == {}


def test_names_with_labels() -> None:
    """A label may contain any character, including dots; other families and plain names are ignored."""
    name = CounterFamily.EVENTS.counter("order.shipped")
    counters = {name: 3.0, "discarded.malformed": 1.0, "events": 2.0, CounterName.MESSAGES.value: 9.0}
    assert name == "events.order.shipped"
    assert CounterFamily.EVENTS.of(counters) == {"order.shipped": 3.0}


def test_stores_are_given_plain_names() -> None:
    """Stores receive plain strings, because drivers do not know the enumeration."""
    of = Counters({}, ())
    of.add(CounterName.STARTS, 1)
    of.discard("malformed")
    assert {type(name) for name in of.all()} == {str}
