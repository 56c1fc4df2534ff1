"""The queue of a task that no task-sent tells of, and the tasks that are yet to come."""

import pytest

from celery_monitor.core.model import SeriesKey
from celery_monitor.core.queues import QUEUES_PER_WORKER, Queues

CASES = {
    "the worker's only one": (["mail"], {"t": "pay"}, "mail"),
    "the task's last one, which the worker consumes": (["mail", "pay"], {"t": "pay"}, "pay"),
    "not one that the worker does not consume": (["mail", "web"], {"t": "pay"}, "dflt"),
    "the task's last one, of a worker that was not asked": (None, {"t": "pay"}, "pay"),
    "nothing is known": (None, {}, "dflt"),
}


def queues(most: int = 1000, last_of: dict[str, str] | None = None) -> Queues:
    """Workers that consume one and two."""
    made = Queues(default="dflt", last_of=last_of or {}, most=most)
    made.learn([("one@box", ["mail"]), ("two@box", ["pay", "ship"])], ())
    return made


@pytest.mark.parametrize(("consumed", "last", "queue"), CASES.values(), ids=CASES)
def test_the_likely_queue(consumed: list[str] | None, last: dict[str, str], queue: str) -> None:
    """What the worker consumes decides, then where the task went last."""
    of = queues(last_of=last)
    if consumed is not None:
        of.learn([("w@box", consumed)], ())
    assert of.likely("t", "w@box") == queue


def test_a_new_pod_is_like_the_others() -> None:
    """Before it has told its queues, its tasks come from where they came from on other workers, or before the start."""
    of = queues()
    of.restore([SeriesKey("old", "ship"), SeriesKey("lost", "dflt")])
    of.likely("t", "one@box")
    assert of.likely("t", "new@box") == "mail"
    assert of.likely("t", "two@box") == "dflt"
    assert of.likely("old", "two@box") == "ship"
    assert of.likely("lost", "new@box") == "dflt"


def test_who_is_gone_is_forgotten() -> None:
    """A worker that does not answer this time keeps its queues while it lives."""
    of = queues(last_of={"t": "elsewhere"})
    of.learn([], {"one@box"})
    assert of.likely("t", "one@box") == "mail"
    assert of.likely("t", "two@box") == "elsewhere"


def test_known_tasks() -> None:
    """In each queue that they may be counted in: of many queues any may be, and that tells nothing."""
    of = queues()
    of.learn([("wide@box", [f"q{number}" for number in range(QUEUES_PER_WORKER + 1)])], {"one@box", "two@box"})
    for hostname in ("one@box", "two@box", "new@box", "wide@box"):
        of.register(hostname, [f"of.{hostname}"])
    assert list(of.registered) == [
        ("of.one@box", "mail"),
        ("of.two@box", "pay"),
        ("of.two@box", "ship"),
        ("of.two@box", "dflt"),
        ("of.new@box", "dflt"),
        ("of.wide@box", "dflt"),
    ]


def test_known_tasks_are_bounded() -> None:
    """A worker that invents names fills nothing."""
    of = queues(most=10)
    of.register("two@box", (f"t{number}" for number in range(100)))
    of.register("two@box", (f"u{number}" for number in range(100)))
    assert len(of.registered) == 9
