"""What runs now, as the leader shows it."""

import threading

from celery_monitor.core.lookup import RunFilter
from celery_monitor.core.model import Delivery, Restored
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.runtime.task_view import MemoryTaskView
from tests.builders import NOON, body, raw
from tests.fakes import ManualClock


def test_a_queue_that_no_event_has_told() -> None:
    """Celery sends no task-sent unless it is told to: a run is listed by the queue that is shown with it."""
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
