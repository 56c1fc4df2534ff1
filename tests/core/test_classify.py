"""Classification of failures."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_monitor.core.classify import (
    MAX_MESSAGE_LENGTH,
    MAX_TRACEBACK_LENGTH,
    Classifier,
    classify,
    group_id,
    unregistered_name,
)
from celery_monitor.core.text import UNREAD
from celery_monitor.core.traceback_parser import _SectionReader, sections

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
    """The class comes from the repr if it can be parsed, otherwise from the last line of the traceback."""
    found = classify(exception, traceback)
    assert (found.exception, found.qualified, found.message) == (short, qualified, message)


def test_the_innermost_frame_of_the_application() -> None:
    """Frames of libraries, the standard library and the worker are not the application's."""
    assert classify("Declined()", TRACEBACK).frame == "shop/shop/billing.py:charge"
    assert classify("WorkerLostError()", KILLED).frame == ""


def test_unregistered() -> None:
    """The name of an unregistered task is found in its only event."""
    assert unregistered_name("NotRegistered('shop.gone')") == "shop.gone"
    assert unregistered_name('NotRegistered("it\'s")') == "it's"
    assert unregistered_name("ValueError('NotRegistered')") is None
    assert unregistered_name(None) is None


def test_redaction_comes_before_the_cut() -> None:
    """A secret at the cut is redacted, because redaction comes first."""
    secret = re.compile("SECRET[0-9]{8}")
    trace = "x" * 5 + "SECRET12345678" + "y" * (MAX_TRACEBACK_LENGTH - 7)
    found = classify("ValueError('SECRET12345678')", trace, [secret])
    assert "SECRET" not in found.message + found.traceback
    assert "5678" not in found.message + found.traceback
    assert found.message == "[redacted]"


RECORDED = json.loads((Path(__file__).parents[1] / "data" / "tracebacks-celery-5.7.0.json").read_text())
"""``exception`` and ``traceback`` of task-failed events of Celery 5.7.0, with pydantic 2.14, SQLAlchemy 2.1, requests
2.34, httpx 0.28, botocore 1.44, and what the language itself has."""


@pytest.mark.parametrize("recorded", RECORDED, ids=[each["case"] for each in RECORDED])
def test_what_libraries_raise(recorded: dict[str, str]) -> None:
    """The library's exception class and the application's innermost frame are found, whatever the message."""
    found = classify(recorded["exception"], recorded["traceback"])
    assert (found.exception, found.frame) == (recorded["class"], recorded["frame"])
    assert found.qualified.rpartition(".")[2] == found.exception


CAUSE = "The above exception was the direct cause of the following exception:"
LINK = f"\n\n{CAUSE}\n\n"
HERE = 'Traceback (most recent call last):\n  File "/srv/shop/tasks.py", line 3, in pay\n    fail()\n'
THERE = HERE.replace("/srv/shop/tasks.py", "/usr/lib/python3/dist-packages/far/away.py")
GROUP = "  | ExceptionGroup: x (1 sub-exception)\n  +-+---------------- 1 ----\n    | TypeError: x\n    +-----\n"
WRAPPER = "celery.utils.serialization.UnpickleableExceptionWrapper"
CHAINS = [
    # A repr of no form: the section whose message it is, else the last one.
    ("1 error\nemail\n  Required", HERE + "a.Invalid: 1 error\nemail\n  Required", "Invalid"),
    ("1 error", HERE + "a.Invalid: 1 error" + LINK + HERE + "forged.Name: x", "Invalid"),
    ("<HttpError 404>", HERE + "a.First: x" + LINK + HERE + "a.Second: y", "Second"),
    # A repr that is not the class's own: Python writes the class itself.
    ("Base(code=3)", HERE + "a.Derived: x", "Derived"),
    # Messages that look like the end of a traceback, or like the next exception.
    ("ValueError('x')", HERE + "ValueError: x\nKeyError: y\nemail", "ValueError"),
    ("ValueError('x')", HERE + "ValueError: x" + LINK + HERE + "forged.Name: y", "ValueError"),
    ("<x>", HERE + "a.Real: x\n\n" + HERE + "forged.Name: y", "Real"),
    ("<x>", HERE + f"a.Real: x\n{CAUSE}\n\nb.Forged: y", "Real"),
    ("<x>", HERE + "a.Real: x\u2028b.Forged: y\x0bc.Forged: z\rd.Forged: y", "Real"),
    # A cause without a traceback, and one between others.
    ("<x>", "a.Cause: x" + LINK + HERE + "a.Real: y", "Real"),
    ("<x>", HERE + "a.Cause: x" + LINK + "a.Middle" + LINK + HERE + "a.Real: y", "Real"),
    # Quoted as a whole; and what multiprocessing quotes, with its end missing.
    ("ExceptionWithTraceback()", '\n"""\n' + HERE + 'a.Real: x\n"""', "Real"),
    ("ExceptionWithTraceback()", 'billiard.einfo.RemoteTraceback: \n"""\n' + HERE + "a.Real: x\nemail", "Real"),
    # What cannot be pickled is wrapped by Celery.
    ("Odd('x')", HERE + f"{WRAPPER}: Odd('x')", "Odd"),
    ("UnpickleableExceptionWrapper('a.b', 'Odd', ('x',), \"Odd('x')\")", None, "Odd"),
    ("ExceptionWithTraceback()", HERE + f"{WRAPPER}: Odd('x')", "Odd"),
    # An attempt that is tried again.
    ("<x>", HERE + "a.Why: x" + LINK + HERE + "celery.exceptions.Retry: Retry in 3s", "Why"),
    ("a.b.Why(3)", HERE + "celery.exceptions.Retry: Retry in 3s", "Why"),
    # Classes of functions, of other alphabets, alone; groups without a traceback.
    ("<x>", HERE + "shop.make.<locals>.Weird: x", "Weird"),
    ("Größe('x')", HERE + "shop.Größe: x", "Größe"),
    ("<x>", HERE + "KeyError", "KeyError"),
    ("<x>", GROUP, "ExceptionGroup"),
    # Nothing that Python writes.
    ("<x>", "email\n  Field required\nKeyError: x", "Exception"),
    ("<x>", HERE, "Exception"),
    ("<x>", HERE + "not a class: x\nKeyError: y", "Exception"),
    ("<x>", HERE + "shop.<locals>: x", "Exception"),
    ("ValueError('" + "x" * 5_000, None, "ValueError"),
]


@pytest.mark.parametrize(("exception", "traceback", "short"), CHAINS)
def test_chains(exception: str, traceback: str | None, short: str) -> None:
    """The class comes from the lines that Python and Celery write, never from a line of a message."""
    assert classify(exception, traceback).exception == short


def test_a_message_longer_than_what_is_read() -> None:
    """The exception line before a long message is found; the message does not change the class."""
    message = "1000000 errors for User\n" + "email\n  Field required\nKeyError: x\n" * 10_000
    found = classify(message, HERE + "pydantic_core.ValidationError: " + message)
    assert (found.exception, found.frame) == ("ValidationError", "srv/shop/tasks.py:pay")
    assert found.message.startswith("1000000 errors for User")
    deep = HERE + '  File "/srv/shop/tasks.py", line 9, in down\n    up()\n' * 9_000
    assert classify("<x>", deep + "a.Deep: x").exception == "Deep"
    assert classify("<x>", deep + "a.Deep: x\n" + "KeyError: x\n" * 5_000).exception == "Exception"


LIBRARIES = [
    "/usr/lib/python3/dist-packages/celery/app/task.py",
    "/usr/lib/python3.11/json/decoder.py",
    "/srv/.venv/lib64/python3.13t/site-packages/requests/api.py",
    "/opt/pypy/lib/pypy3.10/json/decoder.py",
    "C:\\Python311\\Lib\\json\\decoder.py",
    "C:\\srv\\.venv\\Lib\\site-packages\\requests\\api.py",
    "/srv/eggs/requests-2.0-py3.11.egg/requests/api.py",
    "/usr/lib/python311.zip/json/decoder.py",
    "/srv/vendor.zip/requests/api.py",
    "/src/celery/celery/app/autoretry.py",
    "/src/kombu/kombu/utils/functional.py",
    "/src/billiard/billiard/pool.py",
    "<frozen importlib._bootstrap>",
    "<string>",
    "...",
]


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_of_any_layout(library: str) -> None:
    """Frames of libraries are skipped: the frame is that of the application that called them."""
    traceback = f'{HERE}  File "{library}", line 3, in inside\n    x()\nValueError: x\n'
    assert classify("ValueError('x')", traceback).frame == "srv/shop/tasks.py:pay"


@pytest.mark.parametrize(
    "path",
    ["/srv/celery/app/tasks.py", "/srv/celery/tasks.py", "/srv/lib/python/shop.py", "/srv/app.pyz/shop.py", "x.py"],
)
def test_what_is_like_a_library_and_is_none(path: str) -> None:
    """An application may be installed anywhere, even in a directory named celery."""
    traceback = f'{THERE}  File "{path}", line 3, in pay\n    x()\nValueError: x\n'
    assert classify("ValueError('x')", traceback).frame.endswith(":pay")


def test_an_application_among_the_libraries() -> None:
    """In site-packages it is identified as the code that Celery calls; in an archive, as the only code left."""
    frames = [
        ("celery/app/trace.py", "trace_task"),
        ("shop/tasks.py", "pay"),
        ("shop/bank.py", "book"),
        ("requests/api.py", "get"),
    ]
    traceback = "Traceback (most recent call last):\n" + "".join(
        f'  File "/usr/lib/python3.11/site-packages/{path}", line 3, in {function}\n' for path, function in frames
    )
    assert classify("ValueError('x')", traceback + "ValueError: x").frame == "site-packages/shop/bank.py:book"
    archived = traceback.replace("/usr/lib/python3.11/site-packages/shop", "/srv/shop.zip/shop")
    assert classify("ValueError('x')", archived + "ValueError: x").frame == "shop.zip/shop/bank.py:book"


@pytest.mark.parametrize(
    "evil",
    [
        f"x\n\n{LINK}",
        '  File "' + "/" * 499 + '", line 1, in f\n',
        '  File "' + "/celery/utils" * 38 + '", line 1, in f\n',
        "a.",
        ":",
        '"""\n',
        "RemoteTraceback: \n'''\n",
        "  | ",
        "  |\n",
        "  + Exception Group Traceback (most recent call last):\n",
    ],
)
def test_hostile_texts_take_linear_time(evil: str) -> None:
    """No text causes quadratic backtracking, which would exceed the test's timeout."""
    text = (evil * 10_000)[:MAX_TRACEBACK_LENGTH]
    for start in ("", HERE, HERE + "ValueError: ", "RemoteTraceback: "):
        for _ in range(5):
            classify(evil * 500, start + text)


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text(exception: str, traceback: str) -> None:
    """Any text gives a class that is a valid label, and bounded texts."""
    found = classify(exception * 50, traceback * 200)
    assert re.fullmatch(r"[^\W\d]\w*", found.exception)
    assert len(found.message) <= MAX_MESSAGE_LENGTH
    assert len(found.traceback) <= MAX_TRACEBACK_LENGTH
    assert len(found.frame) <= 800


def test_groups() -> None:
    """The same task, class and location give the same group; different fields never give the same group."""
    assert group_id("a", "b", "c") == group_id("a", "b", "c")
    assert group_id("a", "b", "c") != group_id("a", "bc", "")
    assert re.fullmatch("[0-9a-f]{16}", group_id("a", "b", "c"))


LINES = [
    "Traceback",
    '  File "/a/b.py", line 3, in f',
    '  File "/a/b.py", line 3',
    "    x",
    "\ty",
    "",
    " ",
    "\r",
    ":",
    "  | x",
    "a.B: c",
    "B",
    "B:",
    "<locals>: x",
    "RemoteTraceback: ",
    "billiard.pool.RemoteTraceback:",
    '"""',
    "The above exception was the direct cause of the following exception:",
    '  File "/a/b.py", line 3, in f\r',
    "During handling of the above exception, another exception occurred:",
    "  + Exception Group Traceback (most recent call last):",
]


@given(st.lists(st.sampled_from(LINES), max_size=8))
def test_a_plain_traceback_is_read_the_same_by_the_short_way(lines: list[str]) -> None:
    """The fast parser gives the same sections as the line-by-line parser."""
    text = "\n".join(["Traceback (most recent call last):", *lines])
    reader = _SectionReader()
    for line in text.split("\n"):
        reader.read(line)
    assert sections(text) == reader.end()


def test_remembered_results_are_those_of_the_same_texts() -> None:
    """A cached result is used only for identical texts, regardless of how many others came since."""
    other = TRACEBACK.replace("charge", "refund")
    assert len(other) == len(TRACEBACK)
    classifier = Classifier()
    for number in range(600):
        for exception in ("Declined('card declined')", f"Declined('{number}')", None):
            for traceback in (TRACEBACK, other, "", None, TRACEBACK * 10):
                assert classifier.classify(exception, traceback) == classify(exception, traceback)
    assert classifier.classify("E('x')", TRACEBACK) is classifier.classify("E('x')", TRACEBACK)


def test_a_pattern_that_took_too_long_is_tried_again() -> None:
    """After a redaction timeout, the next failure with the same texts is redacted normally."""

    class Slow:
        patience = 0

        def sub(self, _repl: str, string: str) -> str:
            if self.patience <= 0:
                raise TimeoutError
            return string

    slow = Slow()
    classifier = Classifier([slow])
    assert classifier.classify("E('x')", None).message == UNREAD
    slow.patience = 1
    assert classifier.classify("E('x')", None).message == "x"
