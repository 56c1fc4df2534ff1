from hypothesis import given
from hypothesis import strategies as st

from celery_monitor.core.excerpt import relevant_tail


def _frame(path: str, function: str) -> str:
    return f'  File "/srv/{path}", line 7, in {function}\n    call({function})\n    ^^^^~~~~\n'


LIBRARY = [_frame(f"venv/lib/python3.12/site-packages/http/client{n}.py", f"step{n}") for n in range(9)]
OWN = _frame("shop/app/tasks.py", "charge")
HEAD = "Traceback (most recent call last):\n"


def test_a_traceback_keeps_the_applications_frame_the_last_ones_and_the_exception() -> None:
    """Celery's frames before them and libraries between them are omitted and marked."""
    text = HEAD + LIBRARY[0] + OWN + "".join(LIBRARY) + "lib.Error: no\n  more of it"
    assert relevant_tail(text, "shop/app/tasks.py:charge").splitlines() == [
        "  …",
        '  File "…/shop/app/tasks.py", line 7, in charge',
        "    call(charge)",
        "  …",
        '  File "…/http/client7.py", line 7, in step7',
        "    call(step7)",
        '  File "…/http/client8.py", line 7, in step8',
        "    call(step8)",
        "lib.Error: no",
        "  more of it",
    ]


def test_a_traceback_that_ends_in_the_application_is_its_frame() -> None:
    """The frames that led there are omitted."""
    text = HEAD + "".join(LIBRARY) + OWN + "ValueError: no"
    assert relevant_tail(text, "shop/app/tasks.py:charge").splitlines() == [
        "  …",
        '  File "…/shop/app/tasks.py", line 7, in charge',
        "    call(charge)",
        "ValueError: no",
    ]


def test_a_traceback_of_libraries_alone_keeps_its_last_frames() -> None:
    """For example that of a killed worker."""
    excerpt = relevant_tail(HEAD + "".join(LIBRARY[:3]) + "WorkerLostError: no").splitlines()
    assert [line for line in excerpt if "File" in line] == [
        '  File "…/http/client1.py", line 7, in step1',
        '  File "…/http/client2.py", line 7, in step2',
    ]
    assert (excerpt[0], excerpt[-1]) == ("  …", "WorkerLostError: no")


def test_a_traceback_without_frames_keeps_its_last_lines() -> None:
    """Remote and foreign tracebacks are also shortened."""
    assert relevant_tail("\n".join(map(str, range(100)))).splitlines() == [str(n) for n in range(88, 100)]
    assert relevant_tail("") == ""


@given(st.text(alphabet=st.sampled_from('ab\n "File,in:'), max_size=400), st.text(max_size=10))
def test_any_traceback_becomes_short(text: str, frame: str) -> None:
    """For any text, the result has a bounded number of bounded lines."""
    excerpt = relevant_tail(text * 50, frame).split("\n")
    assert len(excerpt) <= 30
    assert max(map(len, excerpt)) <= 200
