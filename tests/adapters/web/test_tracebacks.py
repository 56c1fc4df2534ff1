"""A traceback as blocks."""

import json
from pathlib import Path

import pytest

from celery_monitor.adapters.web.tracebacks import blocks

RECORDED = json.loads((Path(__file__).parents[2] / "data" / "tracebacks-celery-5.7.0.json").read_text())
TRACEBACK = """Traceback (most recent call last):
  File "/srv/venv/lib/python3.12/site-packages/celery/app/trace.py", line 453, in trace_task
    R = retval = fun(*args, **kwargs)
                 ^^^^^^^^^^^^^^^^^^^^
  File "/srv/shop/tasks.py", line 8, in charge
    raise Declined(order)
shop.errors.Declined: no money

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "C:\\Users\\shop\\tasks.py", line 9, in charge
    order["x"]
    ~~~~~^^^^^
KeyError: 'x'"""


def text_of(traceback: str, frame: str = "") -> str:
    """The text of all blocks."""
    return "\n".join(line for block in blocks(traceback, frame) for _, line in block.lines)


def test_frames_of_the_application_stand_out() -> None:
    """Celery's frames and the exception lines are separate from the application's, in every part of a chain."""
    assert [block.kind for block in blocks(TRACEBACK)] == [
        "text", "frame", "own", "raised", "text", "own", "raised",
    ]  # fmt: skip
    assert [line for block in blocks(TRACEBACK) for marks, line in block.lines if marks] == [
        "                 ^^^^^^^^^^^^^^^^^^^^",
        "    ~~~~~^^^^^",
    ]


def test_an_installed_application() -> None:
    """An application installed like a library is identified by the frame of its error group."""
    path = "/srv/venv/lib/python3.12/site-packages/shop/tasks.py"
    traceback = f'Traceback (most recent call last):\n  File "{path}", line 3, in pay\n    raise E\nE: no'
    assert "own" not in [block.kind for block in blocks(traceback)]
    assert "own" in [block.kind for block in blocks(traceback, "site-packages/shop/tasks.py:pay")]


@pytest.mark.parametrize(
    "traceback", ["", "\n", TRACEBACK, "no traceback at all", '  File "', "^^^", "a\n" * 500, "\x00\ud800\r\n | x"]
)
def test_nothing_is_lost(traceback: str) -> None:
    """For any text, all of it is shown, in order."""
    assert text_of(traceback) == traceback


def test_recorded_tracebacks() -> None:
    """Each recorded traceback is shown completely."""
    texts = [text for text in _texts(RECORDED) if "Traceback" in text]
    assert texts
    assert all(text_of(text) == text for text in texts)


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for one in inner for text in _texts(one)]
