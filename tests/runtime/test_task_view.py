"""The running tasks as the leader shows them."""

import threading

from celery_monitor.core.lookup import RunFilter
from celery_monitor.core.model import Delivery, Restored
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.runtime.task_view import MemoryTaskView
from tests.builders import NOON, body, raw
from tests.fakes import ManualClock


def test_since_when_tasks_wait() -> None:
    """The oldest waiting task by queue, from its sending or due time. Running tasks and those not due do not wait."""
    monitor = Monitor(Limits(), Restored(), NOON)
    monitor.connected(acknowledges=True)
    monitor.learn_queues({"w1@box": ["pay"]})
    eta = {"due": "2023-11-15T12:00:40+00:00", "later": "2023-11-15T13:00:00+00:00"}
    events = [
        raw("sent", "s1", NOON + 30, name="t", queue="mail"),
        raw("sent", "s2", NOON + 20, name="t", queue="mail"),
        raw("sent", "due", NOON, name="t", queue="due", eta=eta["due"]),
        raw("sent", "later", NOON, name="t", queue="later", eta=eta["later"]),
        raw("received", "r1", NOON + 50, name="t"),
        raw("sent", "runs", NOON, name="t", queue="busy"),
        raw("received", "runs", NOON + 1, name="t"),
        raw("started", "runs", NOON + 2),
    ]
    monitor.receive([Delivery(body(*events))], NOON + 60)
    view = MemoryTaskView(monitor, threading.Lock(), ManualClock(time=NOON + 60), ())
    assert view.waiting_since() == {"mail": NOON + 20, "due": NOON + 40, "pay": NOON + 50}


def test_a_queue_that_no_event_has_told() -> None:
    """Celery sends task-sent only if enabled: a run is listed by the queue that is shown with it."""
    monitor = Monitor(Limits(), Restored(), NOON)
    monitor.connected(acknowledges=True)
    monitor.learn_queues({"w1@box": ["pay"], "w2@box": ["mail"]})
    events = [
        raw("received", "u1", name="shop.pay"),
        raw("received", "u2", name="shop.pay") | {"hostname": "w2@box"},
        raw("received", "u3"),
    ]
    monitor.receive([Delivery(body(*events))], NOON)
    view = MemoryTaskView(monitor, threading.Lock(), ManualClock(time=NOON), ())
    assert [(run.uuid, run.queue) for run in view.page(RunFilter()).runs] == [
        ("u1", "pay"), ("u2", "mail"), ("u3", None),
    ]  # fmt: skip
    for queue, wanted in {"pay": ["u1"], "mail": ["u2"], "other": []}.items():
        page = view.page(RunFilter(queue=queue))
        assert ([run.uuid for run in page.runs], page.total) == (wanted, len(wanted))
