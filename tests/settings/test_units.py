"""The notation of durations and sizes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_monitor.settings.units import Quantity, duration, size

DURATION = duration()
SIZE = size()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("15m", 900), ("24h", 86_400), ("30d", 2_592_000), ("0s", 0), ("0", 0), (0, 0)],
)
def test_duration_is_read(written: object, seconds: float) -> None:
    """Every documented unit is read as seconds."""
    assert DURATION.parse(written) == seconds


@pytest.mark.parametrize(
    ("written", "count"),
    [("1B", 1), ("64KiB", 65_536), ("256MiB", 268_435_456), ("1GiB", 2**30), ("2TiB", 2**41), (0, 0)],
)
def test_size_is_read(written: object, count: int) -> None:
    """Every documented unit is read as whole bytes."""
    parsed = SIZE.parse(written)
    assert parsed == count
    assert isinstance(parsed, int)


@pytest.mark.parametrize("written", [30, 0.5, -1, 10**400, float("nan"), float("inf")])
@pytest.mark.parametrize("quantity", [DURATION, SIZE])
def test_plain_number_is_refused(quantity: Quantity, written: float) -> None:
    """A number without a unit is refused with the right notation."""
    with pytest.raises(ValueError, match=r"has no unit; write (500ms|64KiB)"):
        quantity.parse(written)


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "s",
        "30 s",
        "30S",
        "1.5h",
        "-5s",
        "+5s",
        "1h30m",
        "30s\n",
        "٣s",
        "9" * 17 + "s",
        True,
        False,
        None,
        [],
        {},
    ],
)
@pytest.mark.parametrize("quantity", [DURATION, SIZE])
def test_other_text_is_refused(quantity: Quantity, written: object) -> None:
    """Text other than a number with a unit is refused, and the error does not repeat it."""
    with pytest.raises(ValueError, match="one number and its unit") as caught:
        quantity.parse(written)
    if isinstance(written, str) and len(written.strip()) > 1:
        assert written not in str(caught.value)


@pytest.mark.parametrize(
    ("quantity", "written"),
    [
        (duration("1s", "10m"), "999ms"),
        (duration("1s", "10m"), "601s"),
        (duration("1s"), 0),
        (DURATION, "36501d"),
        (size("1KiB"), "1023B"),
    ],
)
def test_bounds_are_told(quantity: Quantity, written: object) -> None:
    """A value out of range is refused with the range in the user's notation."""
    with pytest.raises(ValueError, match=r"must be from \d+\w+ to \d+\w+"):
        quantity.parse(written)


@given(st.integers(0, 36_500 * 86_400_000))
def test_duration_survives_rendering(milliseconds: int) -> None:
    """Rendering a duration and reading it again gives the same duration, to the millisecond."""
    seconds = milliseconds / 1000
    assert DURATION.parse(DURATION.render(seconds)) == seconds


@given(st.integers(0, 2**50))
def test_size_survives_rendering(count: int) -> None:
    """Rendering a size and reading it again gives the same size."""
    assert SIZE.parse(SIZE.render(count)) == count


@pytest.mark.parametrize(
    ("seconds", "written"), [(0.5, "500ms"), (10, "10s"), (5400, "90m"), (86_400, "1d"), (0, "0s"), (0.0015, "2ms")]
)
def test_rendering_takes_the_largest_unit(seconds: float, written: str) -> None:
    """A duration is written with the largest unit that needs no fraction."""
    assert DURATION.render(seconds) == written


@given(st.text(alphabet="0123456789smhdKMiB. ", max_size=8))
def test_schema_agrees_with_the_parser(written: str) -> None:
    """The pattern of the JSON Schema accepts exactly the texts that are read, bounds aside."""
    for quantity in (DURATION, SIZE):
        pattern = quantity.__get_pydantic_json_schema__(None, None)["pattern"]  # type: ignore[arg-type]
        try:
            quantity.parse(written)
        except ValueError as exc:
            read = "must be from" in str(exc)
        else:
            read = True
        assert read == bool(re.search(pattern, written))
