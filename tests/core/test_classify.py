"""What a failure was."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_monitor.core.classify import LONGEST_MESSAGE, LONGEST_TRACEBACK, classify, group_id, unregistered_name

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/.venv/lib/python3.11/site-packages/celery/app/trace.py", line 477, in trace_task
    R = retval = fun(*args, **kwargs)
  File "/srv/shop/shop/billing.py", line 12, in charge
    gateway.charge(order)
  File "/srv/shop/.venv/lib/python3.11/site-packages/gateway/http.py", line 3, in charge
    raise Declined("card declined")
gateway.errors.Declined: card declined
"""
KILLED = """Traceback (most recent call last):
  File "/x/site-packages/billiard/pool.py", line 1367, in mark_as_worker_lost
    raise WorkerLostError(
billiard.exceptions.WorkerLostError: Worker exited prematurely: signal 9 (SIGKILL) Job: 22.
"""
CASES = [
    ("ValueError('card declined')", None, "ValueError", "ValueError", "card declined"),
    ("ValueError('a', 'b')", None, "ValueError", "ValueError", "a', 'b"),
    ("TimeLimitExceeded(1,)", None, "TimeLimitExceeded", "TimeLimitExceeded", "1,"),
    ("SoftTimeLimitExceeded()", None, "SoftTimeLimitExceeded", "SoftTimeLimitExceeded", ""),
    ("Declined('card declined')", TRACEBACK, "Declined", "gateway.errors.Declined", "card declined"),
    (
        "ExceptionWithTraceback()",
        KILLED,
        "WorkerLostError",
        "billiard.exceptions.WorkerLostError",
        "Worker exited prematurely: signal 9 (SIGKILL) Job: 22.",
    ),
    (
        "reject requeue=False: no",
        "Traceback\n  x\ncelery.exceptions.Reject: no",
        "Reject",
        "celery.exceptions.Reject",
        "no",
    ),
    ('<weird: "q" and\nnewlines>', "Traceback\nfleet.Weird: x", "Weird", "fleet.Weird", "x"),
    ('<weird: "q" and\nnewlines>', None, "Exception", "Exception", '<weird: "q" and\nnewlines>'),
    (None, None, "Exception", "Exception", ""),
    ("", "", "Exception", "Exception", ""),
    ("KeyError('a')", "Traceback\ncelery.exceptions.Retry: Retry in 3s", "KeyError", "KeyError", "a"),
    ("ExceptionWithTraceback()", None, "Exception", "Exception", "ExceptionWithTraceback()"),
    ("Foo.(1)", None, "Exception", "Exception", "Foo.(1)"),
    ("Foo.(1)", "Traceback\nfoo.Bar: x", "Bar", "foo.Bar", "x"),
    ("_...('x')", None, "Exception", "Exception", "_...('x')"),
]


@pytest.mark.parametrize(("exception", "traceback", "short", "qualified", "message"), CASES)
def test_classes(exception: str, traceback: str | None, short: str, qualified: str, message: str) -> None:
    """The repr's head when it parses, else the traceback's last line."""
    found = classify(exception, traceback)
    assert (found.exception, found.qualified, found.message) == (short, qualified, message)


def test_the_innermost_frame_of_the_application() -> None:
    """Libraries, the standard library and the worker are not the application."""
    assert classify("Declined()", TRACEBACK).frame == "shop/shop/billing.py:charge"
    assert classify("WorkerLostError()", KILLED).frame == ""


def test_unregistered() -> None:
    """The name of a task that no worker knows is inside of its only event."""
    assert unregistered_name("NotRegistered('shop.gone')") == "shop.gone"
    assert unregistered_name('NotRegistered("it\'s")') == "it's"
    assert unregistered_name("ValueError('NotRegistered')") is None
    assert unregistered_name(None) is None


def test_redaction_comes_before_the_cut() -> None:
    """A secret that the cut divides does not escape the pattern."""
    secret = re.compile("SECRET[0-9]{8}")
    trace = "x" * 5 + "SECRET12345678" + "y" * (LONGEST_TRACEBACK - 7)
    found = classify("ValueError('SECRET12345678')", trace, [secret])
    assert "SECRET" not in found.message + found.traceback
    assert "5678" not in found.message + found.traceback
    assert found.message == "[redacted]"


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text(exception: str, traceback: str) -> None:
    """Hostile texts give a class that is a safe label, and bounded texts."""
    found = classify(exception * 50, traceback * 200)
    assert re.fullmatch(r"[^\W\d]\w*", found.exception)
    assert len(found.message) <= LONGEST_MESSAGE
    assert len(found.traceback) <= LONGEST_TRACEBACK
    assert len(found.frame) <= 800


def test_groups() -> None:
    """Same task, class and place: same group; and no two fields can pretend to be others."""
    assert group_id("a", "b", "c") == group_id("a", "b", "c")
    assert group_id("a", "b", "c") != group_id("a", "bc", "")
    assert re.fullmatch("[0-9a-f]{16}", group_id("a", "b", "c"))
