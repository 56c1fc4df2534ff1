"""The queue of a task that no task-sent tells of."""

import pytest

from celery_monitor.core.queues import Queues

CASES = {
    "the worker's only one": (["mail"], {"t": "pay"}, "mail"),
    "the task's last one, which the worker consumes": (["mail", "pay"], {"t": "pay"}, "pay"),
    "not one that the worker does not consume": (["mail", "web"], {"t": "pay"}, "dflt"),
    "the task's last one, of a worker that was not asked": (None, {"t": "pay"}, "pay"),
    "nothing is known": (None, {}, "dflt"),
}


@pytest.mark.parametrize(("consumed", "last", "queue"), CASES.values(), ids=CASES)
def test_the_likely_queue(consumed: list[str] | None, last: dict[str, str], queue: str) -> None:
    """What the worker consumes decides, then where the task went last."""
    of = Queues(default="dflt", last_of=last)
    if consumed is not None:
        of.learn([("w@box", consumed)], ())
    assert of.likely("t", "w@box") == queue
