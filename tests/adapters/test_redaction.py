"""The configured patterns on hostile texts: the cost is bounded, and no text passes unredacted."""

import threading

import pytest

from celery_monitor.adapters import redaction
from celery_monitor.adapters.redaction import Redaction
from celery_monitor.core.classify import classify
from celery_monitor.core.text import UNREAD, redacted

ENDLESS = "(?:a|aa)+$"
EVIL = "a" * 60 + "!"
"""Takes ENDLESS longer than anybody lives."""


@pytest.fixture
def minute(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock: the last entry of the list."""
    times = [0.0]
    monkeypatch.setattr(redaction, "monotonic", lambda: times[-1])
    return times


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"(?<=password=)\S+", "password=hunter2 failed", "password=[redacted] failed"),
        (r"\d{4}(?: \d{4}){3}", "card 4111 1111 1111 1111", "card [redacted]"),
        (r"(['\"]).*?\1", "key='x' and \"y\"", "key=[redacted] and [redacted]"),
        (r"(?i)TOKEN \w+", "token abc", "[redacted]"),
        (r"(?m)^secret: .*$", "a\nsecret: b\nc", "a\n[redacted]\nc"),
        (r"\S+@\S+", "x" * 32_000, "x" * 32_000),
    ],
)
def test_patterns_mean_what_they_mean_in_python(pattern: str, text: str, expected: str) -> None:
    """Lookbehind, backreferences and flags work as in ``re``."""
    assert redacted(text, Redaction([pattern]).patterns) == expected


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (ENDLESS, EVIL),
        (r"(.*,){11}P", ",".join("1" * 30) * 40),
        (r"(?:[a-z]|[a-c]|\w)+\d$", "abc" * 30),
    ],
)
def test_a_text_that_takes_too_long_is_replaced_as_a_whole(pattern: str, text: str) -> None:
    """Nothing of it passes, and it is counted; the next one is processed normally."""
    made = Redaction(["secret", pattern])
    assert redacted(f"secret {text}", made.patterns) == UNREAD
    assert made.timeouts == 1
    assert redacted("a secret", made.patterns) == "a [redacted]"


def test_other_threads_run_meanwhile() -> None:
    """The engine releases the interpreter lock for a scrape, a probe, or SIGTERM."""
    turns = 0
    over = threading.Event()

    def turn() -> None:
        nonlocal turns
        while not over.wait(0.001):
            turns += 1

    thread = threading.Thread(target=turn)
    thread.start()
    before = turns
    redacted(EVIL, Redaction([ENDLESS]).patterns)
    assert turns > before
    over.set()
    thread.join()


def test_a_flood_of_such_texts_costs_little(minute: list[float]) -> None:
    """Their cost per minute is bounded; harmless texts are processed as long as possible, and after the minute."""
    made = Redaction([ENDLESS])
    allowed = []
    for _ in range(2_000):
        allowed.append(made.limit())
        if allowed[-1]:
            made.note_timeout(allowed[-1], 0)
    assert sum(allowed) < redaction.LOST_BEFORE_NONE + redaction.LIMIT
    assert sorted(set(allowed)) == [0.0, redaction.SHORT_LIMIT, redaction.LIMIT]
    assert redacted("harmless", made.patterns) == UNREAD

    minute.append(redaction.WINDOW)
    assert redacted("harmless", made.patterns) == "harmless"


def test_a_short_limit_reads_what_is_harmless(minute: list[float]) -> None:
    """Also after some texts took too long."""
    made = Redaction([ENDLESS, "secret"])
    made.note_timeout(redaction.LOST_BEFORE_SHORT, 0)
    assert made.limit() == redaction.SHORT_LIMIT
    assert redacted("a secret of a few hundred characters" * 10, made.patterns).startswith("a [redacted]")
    assert redacted(EVIL, made.patterns) == UNREAD


def test_a_failure_keeps_its_class() -> None:
    """Even if none of its texts are kept."""
    what = classify(
        f"ValueError('{EVIL}')", f"Traceback\n  x\nValueError: {EVIL}", Redaction([ENDLESS + "|x{9}"]).patterns
    )
    assert what.exception == "ValueError"
    assert EVIL not in what.message + what.traceback
