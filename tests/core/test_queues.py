"""The queue of a task without task-sent, and registered tasks that never ran."""

import gc
import tracemalloc
from collections.abc import Container
from itertools import chain

import pytest

from celery_monitor.core.model import Delivery, Restored, SeriesKey
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.core.queues import QUEUES_PER_WORKER, Queues
from celery_monitor.core.text import shared
from tests.builders import NOON, body, raw

CASES = {
    "the worker's only one": (["mail"], {"t": "pay"}, "mail"),
    "the task's last one, which the worker consumes": (["mail", "pay"], {"t": "pay"}, "pay"),
    "not one that the worker does not consume": (["mail", "web"], {"t": "pay"}, "dflt"),
    "the task's last one, of a worker that was not asked": (None, {"t": "pay"}, "pay"),
    "nothing is known": (None, {}, "dflt"),
}


def queues(most: int = 1000, last_of: dict[str, str] | None = None) -> Queues:
    """Two workers, one of which consumes two queues."""
    made = Queues(default="dflt", last_of=last_of or {}, max_tasks=most)
    made.learn({"one@box": ["mail"], "two@box": ["pay", "ship"]}, ())
    return made


def registered(of: Queues, refused: Container[str] = (), counted: int = 0) -> list[tuple[str, str]]:
    """The registered tasks that have not run. ``refused`` names are not counted separately; ``counted`` have run."""
    return list(of.registered(lambda name, _: name not in refused, counted))


@pytest.mark.parametrize(("consumed", "last", "queue"), CASES.values(), ids=CASES)
def test_the_likely_queue(consumed: list[str] | None, last: dict[str, str], queue: str) -> None:
    """The queues of the worker decide, then the last queue of the task."""
    of = queues(last_of=last)
    if consumed is not None:
        of.learn({"w@box": consumed}, ())
    assert of.likely_queue("t", "w@box") == queue


def test_a_new_pod_is_like_the_others() -> None:
    """Before it reports its queues, its tasks have the queue of other workers or of the time before the start."""
    of = queues()
    of.restore([SeriesKey("old", "ship"), SeriesKey("lost", "dflt")])
    of.likely_queue("t", "one@box")
    assert of.likely_queue("t", "new@box") == "mail"
    assert of.likely_queue("t", "two@box") == "dflt"
    assert of.likely_queue("old", "two@box") == "ship"
    assert of.likely_queue("lost", "new@box") == "dflt"


def test_who_is_gone_is_forgotten() -> None:
    """A worker that misses one answer keeps its queues while it is alive."""
    of = queues(last_of={"t": "elsewhere"})
    of.learn({}, {"one@box"})
    assert of.likely_queue("t", "one@box") == "mail"
    assert of.likely_queue("t", "two@box") == "elsewhere"


def test_tasks_without_events() -> None:
    """A task is unreported while any known worker sends no events of it."""
    of, names = queues(), ["a", "b"]
    of.register({"one@box": names, "two@box": names}, {"one@box": ["a"], "two@box": ["a", "other"]})
    assert of.unreported == {"a"}
    of.register({"one@box": names}, {"one@box": ["b"]})
    assert of.unreported == {"a", "b"}
    of.forget(["two@box"])
    assert of.unreported == {"b"}
    of.register({"one@box": names})
    assert of.unreported == frozenset()


def test_known_tasks() -> None:
    """A task is listed in each queue in which it may be counted. With many queues it is not listed."""
    of = queues()
    of.learn({"wide@box": [f"q{number}" for number in range(QUEUES_PER_WORKER + 1)]}, {"one@box", "two@box"})
    of.register({hostname: [f"of.{hostname}"] for hostname in ("one@box", "two@box", "new@box", "wide@box")})
    assert sorted(registered(of)) == [
        ("of.new@box", "dflt"),
        ("of.one@box", "mail"),
        ("of.two@box", "dflt"),
        ("of.two@box", "pay"),
        ("of.two@box", "ship"),
        ("of.wide@box", "dflt"),
    ]


def test_known_tasks_are_bounded() -> None:
    """A worker that invents names does not use unbounded memory."""
    of = queues(most=10)
    for kind in "tu":
        of.register({"two@box": (f"{kind}{number}" for number in range(100))})
    assert len(registered(of)) == 10
    tracemalloc.start()
    for number in range(1000):
        of.register({f"w{number}@box": [f"{number}.{name}" for name in range(100)]})
    gc.collect()  # also frees the memory that Python keeps for new tuples
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert allocated < 10_000


def test_what_only_dead_workers_know_is_forgotten() -> None:
    """The tasks of a release are listed until its last pod is gone."""
    of = queues()
    generations = [[f"w@{generation}.{number}" for number in range(20)] for generation in range(8)]
    for generation, hosts in enumerate(generations):
        of.learn(dict.fromkeys(hosts, ("pay",)), list(chain.from_iterable(generations)))
        of.register(dict.fromkeys(hosts, ("shop.kept", f"shop.of{generation}")))
    assert len(registered(of)) == 1 + 8
    for hosts in generations[:7]:
        of.forget(hosts[1:])
    assert len(registered(of)) == 1 + 8
    of.forget(hosts[0] for hosts in generations[:7])
    assert sorted(registered(of)) == [("shop.kept", "pay"), ("shop.of7", "pay")]
    of.forget(generations[7])
    assert registered(of) == []


def test_a_worker_with_other_code() -> None:
    """Its new tasks and queues replace the old ones."""
    of = queues()
    of.register({"one@box": ["shop.old", "shop.kept"]})
    of.register({"one@box": ["shop.kept", "shop.new"]})
    assert registered(of) == [("shop.kept", "mail"), ("shop.new", "mail")]
    of.learn({"one@box": ["post"]}, ())
    assert registered(of) == [("shop.kept", "post"), ("shop.new", "post")]


def test_who_is_no_worker_is_forgotten() -> None:
    """A responder without heartbeats is forgotten as soon as it stops answering."""
    of = queues()
    of.register({"one@box": ["shop.pay"], "made-up@box": ["shop.none"]})
    of.learn({"one@box": ["mail"]}, ())
    assert registered(of) == [("shop.pay", "mail")]
    of.learn({}, ())
    assert registered(of) == []


def test_queues_of_one_worker_each() -> None:
    """If the worker has other queues, no tasks are listed for its own one. Queues of all workers come first."""
    of = queues(most=60)
    hosts = [f"celery@{number}" for number in range(20)]
    for number, host in enumerate(hosts):
        of.learn({host: [f"{host}.dq2", f"only{number}", "pay"]}, hosts)
    of.learn({"celery@x": ["celery@x.dq2"]}, hosts)
    of.register(dict.fromkeys(hosts, ("a", "b")))
    of.register({"celery@x": ["c"]})
    listed = registered(of)
    assert listed[:4] == [("a", "pay"), ("b", "pay"), ("a", "dflt"), ("b", "dflt")]
    assert sorted(listed[4:]) == sorted([(name, f"only{number}") for name in "ab" for number in range(20)] + [OWN])


OWN = ("c", "celery@x.dq2")
"""Of a worker that consumes nothing else."""


def test_what_would_not_be_counted_is_not_told() -> None:
    """A name beyond the limit is not listed at 0 while its failures count as other, and uses no memory."""
    of = queues(most=2)
    of.register({"one@box": ["t1", "t2"]})
    of.register({"new@box": ["t3"]})
    assert registered(of) == [("t1", "mail"), ("t2", "mail")]
    assert registered(of, {"t1"}, counted=1) == [("t2", "mail"), ("t3", "dflt")]


def test_pods_with_the_same_code_share_its_names() -> None:
    """1,000 pods with the same 500 tasks store their names once."""
    of = queues(most=10_000)
    hosts = [f"celery@pod-{number}" for number in range(1000)]
    of.learn(dict.fromkeys(hosts, ("pay", "mail")), hosts)
    tracemalloc.start()
    for host in hosts:
        of.register({host: [f"shop.task{number}" for number in range(500)]})
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(registered(of)) == 1500
    assert allocated < 400_000


def test_nothing_is_worked_out_again_where_nothing_has_changed() -> None:
    """Without changes, a scrape reuses the result of the last one, however many workers there are."""
    of = queues()
    of.register({"one@box": ["t"]})
    listed = of.registered(lambda _name, _queue: True, 1)
    of.learn({"one@box": ["mail"], "two@box": ["pay", "ship"]}, ())
    of.register({"one@box": ["t"]})
    assert of.registered(lambda _name, _queue: True, 1) is listed


@pytest.mark.parametrize(
    ("queue", "expected"),
    [
        ("bcast.0f8fad5b-d9cb-469f-a165-70867728950e", "bcast.*"),
        ("reload.0F8FAD5B-D9CB-469F-A165-70867728950E", "reload.*"),
        ("0f8fad5b-d9cb-469f-a165-70867728950e", "*"),
        ("amq.gen-JzTY20BRgKO-HjmUJj0wLg", "amq.gen-*"),
        ("orders-0f8fad5b-d9cb-469f-a165-70867728950e", "orders-0f8fad5b-d9cb-469f-a165-70867728950e"),
        ("0f8fad5b-d9cb-469f-a165-70867728950e.high", "0f8fad5b-d9cb-469f-a165-70867728950e.high"),
        ("celery", "celery"),
        ("", ""),
    ],
)
def test_names_that_each_process_makes_anew(queue: str, expected: str) -> None:
    """Random suffixes of a name are treated as one name; random parts elsewhere belong to the name."""
    assert shared(queue) == expected


def test_a_broadcast_is_one_series() -> None:
    """Every client and worker has its own queue for a broadcast, with a new name in each process."""
    monitor = Monitor(Limits(), Restored(), NOON)
    for number in range(3):
        queue = f"bcast.{number:08x}-d9cb-469f-a165-70867728950e"
        monitor.receive([Delivery(body(raw("sent", uuid=f"u{number}", name="shop.reload", queue=queue)))], NOON)
    [series] = monitor.snapshot().series
    assert (series.key.name, series.key.queue) == ("shop.reload", "bcast.*")
