import datetime as dt
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from celery_monitor.adapters.channels.email.text import (
    bar,
    count,
    duration,
    long_date,
    percent,
    plural,
    printable_text,
    short_class,
    short_date,
    shorten,
    unlinked,
)

ANYTHING = st.text(alphabet=st.characters(exclude_categories=()), max_size=300)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("shop.billing.charge", "shop.billing.charge"),
        ("a\r\nBcc: b", "a��Bcc: b"),
        ("\u202edlrow\u202c", "�dlrow�"),
        ("\u2066x\u2069\u200f\u200b\ufeff", "�x����"),
        ("\ud800half\x00\x1b[31m\x7f", "�half��[31m�"),
        ("متجر.الطلبات", "متجر.الطلبات"),
        ("naïve café 🔥", "naïve café 🔥"),
        ("a\u0301\u0302\u0303\u0304\u0305b", "a\u0301\u0302b"),
        ("a\u2028b", "a�b"),
    ],
)
def test_what_misleads_is_replaced_and_what_is_language_stays(text: str, cleaned: str) -> None:
    """Control characters, direction marks, surrogates and stacked marks are replaced; letters are not."""
    assert printable_text(text) == cleaned


def test_lines_stay_lines_where_they_are_wanted() -> None:
    """A traceback keeps its lines and loses all other control characters."""
    assert printable_text("a\n\tb\r\nc\x1b", lines=True) == "a\n    b\nc�"


@given(ANYTHING)
def test_any_name_becomes_one_short_printable_line(text: str) -> None:
    """For any name, the result can be encoded, has the maximum length, and no control characters."""
    shown = shorten(text, 40)
    assert len(shown) <= 40
    shown.encode()
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_long_names_are_cut_in_the_middle() -> None:
    """Both ends of a task's name matter."""
    assert shorten("shop." + "x" * 100 + ".charge", 20) == "shop.xxxx…xxx.charge"
    assert shorten("exactly twenty chars", 20) == "exactly twenty chars"


def test_a_class_is_shown_without_its_module() -> None:
    """But only if it looks like a class: hostile names are shown whole."""
    names = ["requests.exceptions.ReadTimeout", "ValueError", "a b.c", "x..y", ""]
    assert [short_class(name) for name in names] == ["ReadTimeout", "ValueError", "a b.c", "x..y", ""]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("shop.tasks.py", "shop<span>.</span><wbr>tasks<span>.</span><wbr>py"),
        ("https://evil.example", "https<span>:</span><wbr>//evil<span>.</span><wbr>example"),
        ("a@b.c", "a<span>@</span><wbr>b<span>.</span><wbr>c"),
        ("<b>.x", "&lt;b&gt;.x"),
        ("The end. ", "The end. "),
        ("a: b", "a: b"),
    ],
)
def test_names_do_not_become_links(text: str, shown: str) -> None:
    """Dots inside words, @ and :// are in separate elements; ends of sentences are not."""
    assert unlinked(text) == shown


@given(ANYTHING)
def test_breaking_links_changes_nothing_that_is_read(text: str) -> None:
    """Without the added elements, the escaped text remains."""
    assert str(unlinked(text)).replace("<span>", "").replace("</span><wbr>", "") == str(escape(text))


@pytest.mark.parametrize(
    ("rate", "shown"),
    [
        (None, "\N{EN DASH}"),
        (0.0, "0 %"),
        (0.000001, "<0.01 %"),
        (0.0008, "0.08 %"),
        (0.0123, "1.2 %"),
        (0.5, "50 %"),
        (0.9999, ">99 %"),
        (1.0, "100 %"),
    ],
)
def test_a_rate_is_never_rounded_to_nothing_or_to_all(rate: float | None, shown: str) -> None:
    """0 % and 100 % are exact."""
    assert percent(rate) == shown


def test_numbers_are_readable() -> None:
    """Thousands are separated, means have a decimal if it is significant, nouns agree."""
    assert [count(48_211), count(9.4), count(9.0), count(61.42), count(0)] == ["48,211", "9.4", "9", "61", "0"]
    assert [plural(1, "failure"), plural(2, "failure"), plural(0, "other class", "other classes")] == [
        "1 failure",
        "2 failures",
        "0 other classes",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.9, "1 min"),
        (754, "13 min"),
        (3_600, "1 h"),
        (76_320, "21 h 12 min"),
        (3_599, "1 h"),
        (90_000, "25 h"),
    ],
)
def test_durations_are_readable(seconds: float, shown: str) -> None:
    """Two units, rounded, and never 60 of one."""
    assert duration(seconds) == shown


def test_dates_are_english() -> None:
    """They do not depend on the locale of the process."""
    assert (long_date(dt.date(2026, 11, 22)), short_date(dt.date(2026, 5, 4))) == (
        "Sunday 22 November 2026",
        "Monday 4 May",
    )


def test_a_bar_shows_that_there_is_something() -> None:
    """One of a million is a small bar, zero is no bar."""
    assert [bar(0, 9), bar(1, 1_000_000), bar(5, 10), bar(10, 10)] == [" ", "▁", "▄", "█"]
