"""The answers of workers and the lengths of queues, on real brokers with real workers."""

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery
from kombu import Connection, Exchange, Queue

from celery_monitor.adapters.broker import BrokerFleet, BrokerSource
from celery_monitor.core.model import FleetTask, QueueStats
from celery_monitor.errors import SourceLostError
from tests.adapters.fleet.conftest import Controlling, settings
from tests.conftest import Start
from tests.servers import CeleryWorker, RabbitMQ, Redis, Sentinel, Stopwatch, wait_until

NOW = 1000.0
"""A monotonic time."""


def _by_name(stats: list[QueueStats] | Any) -> dict[str, QueueStats]:
    return {each.name: each for each in stats}


def test_tasks(broker_url: str, app: Celery, controlling: Controlling, start: Start, tmp_path: Path) -> None:
    """Active, reserved and scheduled tasks are returned with name, queue and, if they run, their start."""
    worker = CeleryWorker(tmp_path / "worker", broker_url, concurrency=1, options=("--prefetch-multiplier", "4"))
    start(worker)
    fleet = controlling(broker_url)
    before = time.time()
    running = app.send_task("fleet.sleep", (60,)).id
    wait_until(lambda: any(task.started_at for task in fleet.tasks(0.5)), 60)
    reserved = app.send_task("fleet.succeed", args=("x" * 1000,)).id
    scheduled = app.send_task("fleet.decline", eta=datetime.now(UTC) + timedelta(hours=1)).id
    found: dict[str, FleetTask] = {}

    def all_there() -> bool:
        found.clear()
        found.update({task.uuid: task for task in fleet.tasks(0.5)})
        return len(found) == 3

    wait_until(all_there, 60)
    assert {uuid: (task.name, task.queue) for uuid, task in found.items()} == {
        running: ("fleet.sleep", "fleet"),
        reserved: ("fleet.succeed", "fleet"),
        scheduled: ("fleet.decline", "fleet"),
    }
    started = found[running].started_at
    assert started is not None
    assert before - 1 < started < time.time() + 1
    assert found[reserved].started_at is None
    assert found[scheduled].started_at is None
    asked = [worker.hostname, "celery@nobody"]
    assert fleet.held_task_ids(asked, 2.0, fetched=False) == {worker.hostname: {running}}
    assert fleet.held_task_ids(asked, 2.0, fetched=True) == {worker.hostname: {running, reserved, scheduled}}
    worker.kill()  # it would wait for the task that sleeps


def test_queues(broker_url: str, app: Celery, controlling: Controlling, start: Start, tmp_path: Path) -> None:
    """Queues have their lengths, consumers, workers and processes; configured queues are always reported."""
    start(CeleryWorker(tmp_path / "one", broker_url, hostname="one", concurrency=2, options=("-Q", "fleet,other")))
    start(CeleryWorker(tmp_path / "two", broker_url, hostname="two", pool="threads", concurrency=3))
    with Connection(broker_url) as connection:
        Queue("lonely", Exchange("lonely"), "lonely", channel=connection.default_channel).declare()
    for _ in range(7):
        app.send_task("fleet.succeed", queue="lonely")
    fleet = controlling(broker_url, "lonely", "missing")
    amqp = broker_url.startswith("amqp")
    expected = {
        "lonely": QueueStats("lonely", 7, 0 if amqp else None, 0, 0),
        "missing": QueueStats("missing", None if amqp else 0, None, 0, 0),
        "fleet": QueueStats("fleet", 0, 2 if amqp else None, 2, 5),
        "other": QueueStats("other", 0, 1 if amqp else None, 1, 2),
    }
    # Each worker's answer to each question may come in another round.
    wait_until(lambda: _by_name(fleet.queues(0.5, NOW)) == expected, 60)
    assert {host: sorted(queues) for host, queues in fleet.worker_queues().items()} == {
        "celery@one": ["fleet", "other"],
        "celery@two": ["fleet"],
    }
    wait_until(lambda: fleet.queues(0.5, NOW) and len(fleet.details) == 2, 60)
    one, two = fleet.details["celery@one"], fleet.details["celery@two"]
    assert (one.pool, one.processes, one.prefetch) == ("prefork", 2, 2)
    assert (two.pool, two.processes, two.prefetch) == ("thread", 3, 3)
    assert 0 <= (one.uptime or 0) < 600
    assert (one.peak_memory or 0) > 1 << 20


def test_registered(broker_url: str, controlling: Controlling, start: Start, tmp_path: Path) -> None:
    """The queried workers that answer return the names of their tasks, without Celery's own, and send_events=False."""
    for hostname in ("one", "two"):
        start(CeleryWorker(tmp_path / hostname, broker_url, hostname=hostname, concurrency=1))
    fleet = controlling(broker_url)
    asked = ["celery@two", "celery@gone"]
    found = wait_until(lambda: fleet.registered(asked, 0.5), 60)
    assert found.keys() == {"celery@two"}
    assert {"fleet.succeed", "fleet.sleep"} <= set(found["celery@two"])
    assert all(name.startswith("fleet.") for name in found["celery@two"])
    assert fleet.unreported == {"celery@two": {"fleet.unreported"}}


def test_enable_events(broker_url: str, controlling: Controlling, start: Start, tmp_path: Path, app: Celery) -> None:
    """Workers without -E send task events after the request."""
    start(CeleryWorker(tmp_path / "worker", broker_url, events=False))
    fleet = controlling(broker_url)
    source = BrokerSource(settings(broker_url))
    source.connect()

    def asked() -> bool:
        fleet.enable_events(0.1)
        app.send_task("fleet.succeed")
        batch = source.poll(0.5)
        return any(b"task-succeeded" in delivery.body for delivery in (batch.deliveries if batch else ()))

    wait_until(asked, 60)
    source.close()


def test_nobody_answers(broker_url: str, controlling: Controlling) -> None:
    """A fleet without workers has no tasks and no queues, which is not an error."""
    fleet = controlling(broker_url)
    assert fleet.enable_events(0.1) == {}
    assert fleet.tasks(0.2) == []
    assert fleet.queues(0.2, NOW) == []
    assert fleet.worker_queues() == {}


def test_many_questions_leave_one_reply_queue(
    rabbitmq: RabbitMQ, rabbitmq_url: str, controlling: Controlling, start: Start, tmp_path: Path
) -> None:
    """However many queries, there is one reply queue, drained by the next query and deleted with the monitor."""
    start(CeleryWorker(tmp_path / "worker", rabbitmq_url))
    vhost = urlsplit(rabbitmq_url).path.removeprefix("/")
    fleet = controlling(rabbitmq_url, "missing")

    def replies() -> dict[str, int]:
        return {name: n for name, n in rabbitmq.queues(vhost).items() if "reply" in name}

    for _ in range(50):
        fleet.tasks(0.01)
        fleet.queues(0.01, NOW)
    assert len(replies()) == 1
    wait_until(lambda: list(replies().values()) == [0])
    fleet.close()
    wait_until(lambda: not replies(), 60)


def test_reply_queue_of_a_killed_monitor(
    rabbitmq: RabbitMQ, rabbitmq_url: str, controlling: Controlling, start: Start, tmp_path: Path
) -> None:
    """A monitor that dies during a query leaves no queue on the broker."""
    start(CeleryWorker(tmp_path / "worker", rabbitmq_url))
    vhost = urlsplit(rabbitmq_url).path.removeprefix("/")
    fleet = controlling(rabbitmq_url)
    fleet.tasks(0.01)
    fleet._control._cut()
    wait_until(lambda: not [name for name in rabbitmq.queues(vhost) if "reply" in name], 60)


def test_unacknowledged_tasks_are_left_alone(redis_url: str, controlling: Controlling) -> None:
    """The monitor does not restore tasks that workers hold longer than the default visibility timeout."""
    fleet = controlling(redis_url)
    with Connection(redis_url) as connection:
        client = connection.default_channel.client
        message = json.dumps([{"body": "x", "properties": {}}, "fleet", "fleet"])
        client.hset("unacked", "tag", message)
        client.zadd("unacked_index", {"tag": time.time() - 100_000})
        for _ in range(25):
            fleet.tasks(0.02)
        assert client.hkeys("unacked") == [b"tag"]
        assert client.zcard("unacked_index") == 1


@pytest.mark.parametrize("prefix", ["", "shop:"])
def test_priorities_on_redis(redis_url: str, controlling: Controlling, prefix: str) -> None:
    """The length of a queue includes all its priorities."""
    options = {"priority_steps": list(range(10)), "global_keyprefix": prefix, "queue_order_strategy": "priority"}
    with Celery(broker=redis_url) as app:
        app.conf.update(task_default_queue="fleet", broker_transport_options=options)
        for priority in (0, 1, 5, 5, 9):
            app.send_task("fleet.succeed", priority=priority)
    fleet = controlling(redis_url, "fleet", transport_options=options)
    assert fleet.queues(0.1, NOW) == [QueueStats("fleet", 5, None, 0, 0)]


def test_sentinel(controlling: Controlling, start: Start, tmp_path: Path) -> None:
    """Lengths are read through a Sentinel."""
    master = start(Redis(tmp_path / "redis"))
    sentinel = start(Sentinel(tmp_path / "sentinel", master))
    master.execute("LPUSH", "fleet", "{}")
    fleet = controlling(sentinel.url(), "fleet", transport_options={"master_name": sentinel.service})
    assert fleet.queues(0.1, NOW) == [QueueStats("fleet", 1, None, 0, 0)]


def test_a_worker_whose_queue_is_full(
    rabbitmq_url: str, controlling: Controlling, start: Start, tmp_path: Path
) -> None:
    """A query that RabbitMQ refuses because of one full queue is answered by all other workers."""
    start(CeleryWorker(tmp_path / "worker", rabbitmq_url))
    with Connection(rabbitmq_url) as connection:
        full = {"x-max-length": 0, "x-overflow": "reject-publish"}
        questions = Exchange("celery.pidbox", "fanout", durable=False)
        Queue("stuck", questions, queue_arguments=full)(connection.default_channel).declare()
    fleet = controlling(rabbitmq_url)
    wait_until(lambda: fleet.enable_events(0.5), 60)
    wait_until(lambda: fleet.queues(0.5, NOW), 60)


# --- hostile and broken workers


def _replying(url: str, reply: Callable[[str], Any]) -> Any:
    """A simulated worker: answers each query with ``reply(command)``, in the format of kombu's pidbox."""
    from kombu.pidbox import Mailbox

    connection = Connection(url)
    mailbox = Mailbox("celery", type="fanout", accept=["json"], serializer="json")(connection)
    node = mailbox.Node("hostile@box", channel=connection.default_channel)
    for command in ("active", "reserved", "scheduled", "active_queues", "stats"):
        node.handlers[command] = lambda _state, command=command, **_: reply(command)
    node.listen()
    return connection


_NONSENSE: list[Any] = [
    None,
    1,
    "x",
    [],
    {},
    [None],
    [[]],
    [{}],
    [{"id": 1, "name": 2}],
    [{"id": "x" * 300, "name": "n"}],
    [{"id": "u", "name": ""}],
    [{"id": "u", "name": "n", "delivery_info": []}],
    [{"id": "u", "name": "n", "delivery_info": {"exchange": [], "routing_key": {}}, "time_start": "soon"}],
    [{"request": None}, {"request": {"id": []}}],
    [{"name": 7}, {"name": "x" * 300}, {"name": ""}, {"name": "q", "exchange": 3, "routing_key": []}],
    {"pool": 5},
    {"pool": {"processes": 5, "max-concurrency": "many"}},
    {"pool": {"max-concurrency": -4}},
    {"error": "RuntimeError('x')"},
]


def test_nonsense_is_left_out(broker_url: str, controlling: Controlling) -> None:
    """Any answer of a worker is harmless, and invalid parts are omitted."""
    answers = [answer for answer in _NONSENSE for _ in range(6)]
    fleet = controlling(broker_url)
    fleet.tasks(0.01)
    connection = _replying(broker_url, lambda _command: answers.pop() if answers else None)
    import threading

    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connection.drain_events(timeout=0.05)
            except TimeoutError:
                continue

    worker = threading.Thread(target=serve)
    worker.start()
    try:
        while answers:
            for task in fleet.tasks(0.1):
                assert (task.uuid, task.name, task.started_at) == ("u", "n", None)
            for queue in fleet.queues(0.1, NOW):
                assert queue.name in {"q", "n"}
                assert queue.processes >= 0
    finally:
        ended.set()
        worker.join()
        connection.close()


def test_invented_queues_cost_the_broker_little(
    rabbitmq: RabbitMQ, rabbitmq_url: str, controlling: Controlling
) -> None:
    """A reply with hundreds of missing queues: RabbitMQ has to refuse twenty per round, and none again."""
    import threading

    with Connection(rabbitmq_url) as client:
        Queue("real", Exchange("real"), "real", channel=client.default_channel).declare()
    invented = [{"name": f"invented-{number}"} for number in range(300)]
    fleet = controlling(rabbitmq_url)
    fleet.open()
    connection = _replying(
        rabbitmq_url, lambda command: [*invented, {"name": "real"}] if command == "active_queues" else {}
    )
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connection.drain_events(timeout=0.05)
            except TimeoutError:
                continue

    def refused() -> list[str]:
        return re.findall(r"no queue '(invented-\d+)'", rabbitmq.log.read_text())

    worker = threading.Thread(target=serve)
    worker.start()
    try:
        reported = wait_until(lambda: _by_name(fleet.queues(0.2, NOW)), 60)
        for _ in range(2):
            reported = _by_name(fleet.lengths(NOW))
    finally:
        ended.set()
        worker.join()
        connection.close()
    assert len(reported) == 301
    assert reported["invented-7"] == QueueStats("invented-7", None, None, 1, 0)
    wait_until(lambda: len(refused()) >= 60, 60)
    assert len(refused()) == len({*refused()}) == 60


# --- trouble with the broker


def test_paused_and_killed_broker(
    breakable_broker: RabbitMQ | Redis, patience: pytest.MonkeyPatch, controlling: Controlling
) -> None:
    """Every call has a bounded duration with a suspended broker, and the next one reconnects."""
    patience.undo()
    server = breakable_broker
    fleet = controlling(server.url(), "fleet")
    wait_until(lambda: _works(fleet), 60)
    server.pause()
    for call in (lambda: fleet.tasks(1), lambda: fleet.queues(1, NOW), lambda: fleet.enable_events(1)):
        with Stopwatch() as watch, pytest.raises(SourceLostError, match="does not answer"):
            call()
        assert watch.seconds < 4.5
    server.resume()
    wait_until(lambda: _works(fleet), 60)
    server.kill()
    with pytest.raises(SourceLostError):
        fleet.queues(1, NOW)
    server.start()
    wait_until(lambda: _works(fleet), 60)
    assert fleet.queues(0.2, NOW)[0].name == "fleet"
    server.pause()
    with Stopwatch() as watch:
        fleet.close()
    assert watch.seconds < 3.5
    server.resume()


def _works(fleet: BrokerFleet) -> bool:
    try:
        fleet.queues(0.2, NOW)
    except SourceLostError:
        return False
    return True


def test_alarm(breakable_rabbitmq: RabbitMQ, controlling: Controlling) -> None:
    """Queries that a broker blocks because of an alarm are reported as that."""
    server = breakable_rabbitmq
    fleet = controlling(server.url())
    assert _works(fleet)
    server.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.000001)")
    try:
        wait_until(lambda: "memory" in server.eval("rabbit_alarm:get_alarms()"), 60)
        with pytest.raises(SourceLostError, match="alarm") as caught:
            fleet.queues(0.2, NOW)
        assert "list_alarms" in (caught.value.remedy or "")
    finally:
        server.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.4)")
    wait_until(lambda: _works(fleet), 60)


def test_no_permission(rabbitmq: RabbitMQ, rabbitmq_url: str, controlling: Controlling) -> None:
    """The remedy names the missing permissions, with which all works."""
    vhost = urlsplit(rabbitmq_url).path.removeprefix("/")
    url = rabbitmq.add_user("watcher", "pw", vhost, configure="^celery-monitor$", write=".*", read=".*")
    with pytest.raises(SourceLostError) as caught:
        controlling(url).tasks(1)
    assert caught.value.remedy is not None
    configure, write, read = caught.value.remedy.split(" watcher ")[1].replace("'", "").split()
    rabbitmq.add_user("watcher-granted", "pw", vhost, configure=configure, write=write, read=read)
    fleet = controlling(url.replace("watcher:", "watcher-granted:"), "fleet")
    assert fleet.tasks(0.2) == []
    assert fleet.queues(0.2, NOW)[0].length is None


def test_no_permission_on_redis(controlling: Controlling, start: Start, tmp_path: Path) -> None:
    """The remedy names the missing permissions, with which all works."""
    server = start(Redis(tmp_path / "redis"))
    server.execute("ACL", "SETUSER", "watcher", "on", ">pw", "+ping")
    url = server.url().replace("redis://", "redis://watcher:pw@")
    with pytest.raises(SourceLostError) as caught:
        controlling(url).tasks(1)
    assert caught.value.remedy is not None
    server.execute("ACL", "SETUSER", "watcher", *caught.value.remedy.split("NAME ")[1].split())
    fleet = controlling(url, "fleet")
    assert fleet.tasks(0.2) == []
    assert fleet.queues(0.2, NOW) == [QueueStats("fleet", 0, None, 0, 0)]
    fleet.enable_events(0.1)


# --- the demo


def test_in_memory_fleet(controlling: Controlling) -> None:
    """A fleet of threads in this process also answers, and its queues have lengths."""
    from celery.contrib.testing.worker import start_worker

    app = Celery(broker="memory://", backend="cache+memory://")
    app.conf.update(task_default_queue="fleet-in-memory", broker_transport_options={"polling_interval": 0.01})
    fleet = controlling("memory://", "waiting-in-memory")
    app.send_task("fleet.nobody", queue="waiting-in-memory")
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
        expected = {
            "waiting-in-memory": QueueStats("waiting-in-memory", 1, None, 0, 0),
            "fleet-in-memory": QueueStats("fleet-in-memory", 0, None, 1, 1),
        }
        wait_until(lambda: _by_name(fleet.queues(0.5, NOW)) == expected, 60)
        assert fleet.tasks(0.5) == []
