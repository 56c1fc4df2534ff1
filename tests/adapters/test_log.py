"""The log: only repeated lines are omitted, and they are counted."""

import io
import json
import logging
import os
from collections.abc import Iterator

import pytest
import structlog

from celery_monitor.adapters import log
from celery_monitor.adapters.log import MAX_INFO_REPEATS, MAX_KINDS, MAX_REPEATS, REPEATS_WINDOW, Repeats


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time: the last entry of the list."""
    times = [1.0]
    monkeypatch.setattr(Repeats.__init__, "__defaults__", (lambda: times[-1],))
    return times


@pytest.fixture
def lines(clock: list[float]) -> Iterator[io.StringIO]:
    """The log output as JSON."""
    root = logging.getLogger()
    before, level = root.handlers, root.level
    stream = io.StringIO()
    log.configure("info", "json", to=stream)
    yield stream
    structlog.reset_defaults()
    root.handlers, root.level = before, level


def events(stream: io.StringIO) -> list[dict[str, object]]:
    """The lines so far."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_what_repeats_is_left_out(lines: io.StringIO, clock: list[float]) -> None:
    """The first ones in a minute are written; the next one has the number of omitted lines. Other kinds are written."""
    logger = structlog.get_logger()
    for number in range(10_000):
        logger.warning("The disk is full", number=number)
    logger.error("Another trouble")
    assert [line["event"] for line in events(lines)] == ["The disk is full"] * MAX_REPEATS + ["Another trouble"]
    clock.append(1.0 + REPEATS_WINDOW)
    logger.warning("The disk is full")
    logger.warning("The disk is full")
    assert [line.get("left_out") for line in events(lines)[-2:]] == [10_000 - MAX_REPEATS, None]


def test_a_place_that_takes_nothing(lines: io.StringIO) -> None:
    """A full disk or a closed pipe loses lines, and ends no thread."""
    reader, gone = os.pipe()
    os.close(reader)
    for place in (os.open("/dev/full", os.O_WRONLY), gone):
        # Like standard error: each line is written at once.
        stream = io.TextIOWrapper(io.FileIO(place, "w"), line_buffering=True, write_through=True)
        log.configure("info", "json", to=stream)
        structlog.get_logger().error("lost")
        logging.getLogger("a library").error("lost too")
        stream.close()
    log.configure("info", "json", to=lines)
    structlog.get_logger().error("said")
    assert [line["event"] for line in events(lines)] == ["said"]


def test_what_is_told_has_more_room(lines: io.StringIO) -> None:
    """Incidents without a channel are reported only in the log; the last lines before the end are always written."""
    logger = structlog.get_logger()
    for number in range(MAX_INFO_REPEATS * 2):
        logger.info("A task failed", incident=number)
        logger.critical("Stuck")
    logged = [line["event"] for line in events(lines)]
    assert (logged.count("A task failed"), logged.count("Stuck")) == (MAX_INFO_REPEATS, MAX_INFO_REPEATS * 2)


def test_other_libraries(lines: io.StringIO) -> None:
    """Their lines are limited by logger name, however different their texts are."""
    for number in range(1_000):
        logging.getLogger("asyncio").error("socket.accept() out of system resource %s", number)
    logging.getLogger("another").error("once")
    assert [line["event"] for line in events(lines)][MAX_REPEATS:] == ["once"]


def test_the_kinds_are_bounded() -> None:
    """Even if each text is different."""
    made = Repeats(lambda: 1.0)
    for number in range(MAX_KINDS * 2):
        assert made.left_out(number) == 0
    assert len(made._kinds) == MAX_KINDS
