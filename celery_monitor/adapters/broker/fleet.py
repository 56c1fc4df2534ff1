"""Queries the workers, and the lengths of the broker's queues (a FleetControl).

Any process that can reach the broker could send answers, so parts that do not have the expected shape are ignored.
"""

import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any, Final, NamedTuple

from celery_monitor.adapters.broker.addresses import KnownAddress
from celery_monitor.adapters.broker.configuration import suffixes_of
from celery_monitor.adapters.broker.control import RemoteControl
from celery_monitor.adapters.broker.dial import Dialer
from celery_monitor.adapters.broker.faults import Boundary
from celery_monitor.adapters.broker.lengths import sizes
from celery_monitor.adapters.broker.queue_registry import QueueRegistry, Size
from celery_monitor.adapters.broker.reply import is_name, is_text
from celery_monitor.core.model import LATEST_TIMESTAMP, MAX_INT, FleetTask, QueueStats, WorkerDetail
from celery_monitor.core.text import printable, shared
from celery_monitor.core.workers import MAX_WORKERS
from celery_monitor.settings.broker import BrokerSettings

_MIN_UNIX_TIME: Final = 1_000_000_000
"""Smaller values of ``time_start`` are from another machine's monotonic clock (Celery before 4.2, some pools)."""
_LENGTHS_TIMEOUT: Final = 3.0
_MAX_REGISTERED: Final = 10_000
_MAX_TASKS: Final = 200_000
"""Maximum tasks in the answers of one round."""
_MAX_BINDINGS: Final = 1_000
"""Maximum queues of one worker that are searched for the queue of a task."""
_MAX_NAMES: Final = 100_000
"""Maximum queue names in the answers of one round. Further names are ignored."""
_MAX_SILENCE: Final = 0.5
"""Seconds after the last answer until which further answers are awaited."""
_CONF_INTERVAL: Final = 3600.0
_MAX_CONF_WORKERS: Final = 5
"""Maximum workers whose configuration is requested."""
_MAX_SUFFIXES: Final = 64
_HELD_COMMANDS: Final = ("active", "reserved", "scheduled")
_MAX_POOL: Final = 40
_MAX_IMPLEMENTATION: Final = 200
"""Characters of a pool's name."""
_NEWLY_ENABLED: Final = "task events enabled"
"""The answer of a worker that did not send task events before (``celery.worker.control``)."""


class BrokerFleet:
    """Remote control and queue lengths on a separate connection. For use by one thread, except ``close``."""

    def __init__(
        self,
        settings: BrokerSettings,
        queues: Sequence[str] = (),
        past: Iterable[str] = (),
        known: KnownAddress | None = None,
    ) -> None:
        """``queues`` are reported even if no worker consumes them, and those of ``past`` if they are not empty.

        ``known``: see Dialer.
        """
        self._control = RemoteControl(settings, known)
        self._registry = QueueRegistry(queues, filter(is_name, past))
        self._has_priorities = Dialer(settings).kind == "redis"
        options = settings.transport_options
        self._own_suffixes = suffixes_of({"broker_transport_options": options})
        self._suffixes = sorted(self._own_suffixes)
        self._ask_conf_at = 0.0
        self.responders: AbstractSet[str] = frozenset()
        """As FleetControl.responders."""
        self.details: dict[str, WorkerDetail] = {}
        """As FleetControl.details."""
        self.busy: set[str] = set()
        """As FleetControl.busy."""
        self.unreported: dict[str, frozenset[str]] = {}
        """As FleetControl.unreported."""

    def open(self) -> None:
        """As FleetControl.open."""
        self._control.open()

    def enable_events(self, timeout: float, hostnames: Sequence[str] = ()) -> dict[str, bool]:
        """As FleetControl.enable_events."""
        newly_enabled: dict[str, bool] = {}

        def take(_command: str, hostname: str, answer: Any) -> None:  # noqa: ANN401 - any JSON
            newly_enabled[hostname] = isinstance(answer, dict) and answer.get("ok") == _NEWLY_ENABLED

        self._control.ask(("enable_events",), timeout, take, list(hostnames) or None, max_silence=_MAX_SILENCE)
        if not hostnames:
            self.responders = frozenset(newly_enabled)
        return newly_enabled

    def ping(self, timeout: float) -> AbstractSet[str]:
        """As FleetControl.ping."""
        hostnames: set[str] = set()
        self._control.ask(
            ("ping",), timeout, lambda _command, hostname, _answer: hostnames.add(hostname), max_silence=_MAX_SILENCE
        )
        self.responders = frozenset(hostnames)
        return hostnames

    def tasks(self, timeout: float, hostnames: Sequence[str] = ()) -> Sequence[FleetTask]:
        """As FleetControl.tasks."""
        queues: dict[str, list[_ConsumedQueue]] = {}
        held_tasks: dict[str, _WorkerTask] = {}
        answered: set[str] = set()

        def take(command: str, hostname: str, answer: Any) -> None:  # noqa: ANN401 - any JSON
            answered.add(hostname)
            if command == "active_queues":
                queues[hostname] = list(islice(_consumed_queues(answer), _MAX_BINDINGS))
                return
            for task in _worker_tasks(hostname, answer):
                if len(held_tasks) < _MAX_TASKS:
                    # Prefer the answer to "active", which contains the start time.
                    held_tasks[task.uuid] = task if command == "active" else held_tasks.get(task.uuid, task)

        self._control.ask(("active", "reserved", "scheduled", "active_queues"), timeout, take, list(hostnames) or None)
        if not hostnames:
            self.responders = frozenset(answered)
        return [
            FleetTask(task.uuid, task.name, queue and shared(queue), task.since)
            for task in held_tasks.values()
            for queue in [_queue(task, queues.get(task.hostname, []))]
        ]

    def queues(self, timeout: float, now: float, down: Container[str] = ()) -> Sequence[QueueStats]:
        """As FleetControl.queues."""
        self.details = {}
        queues: dict[str, list[str]] = {}
        processes: dict[str, int] = {}
        names_left = _MAX_NAMES

        def take(command: str, hostname: str, answer: Any) -> None:  # noqa: ANN401 - any JSON
            nonlocal names_left
            if command == "active_queues" and isinstance(answer, list):
                queues[hostname] = [bound.name for bound in islice(_consumed_queues(answer), names_left)]
                names_left -= len(queues[hostname])
            elif command == "stats" and (number := _processes(answer)) is not None:
                processes[hostname] = number
                self.details[hostname] = _detail(answer, number)
                if _is_solo(answer) and len(self.busy) < MAX_WORKERS:
                    self.busy.add(hostname)
                else:
                    self.busy.discard(hostname)

        self._control.ask(("active_queues", "stats"), timeout, take)
        self.responders = frozenset({*queues, *processes})
        self._learn_priorities(list(queues), timeout, now)
        self._registry.record_answers(queues, processes, down)
        return self._registry.measured(self._sizes(now), now)

    def lengths(self, now: float, *, down: Container[str] = ()) -> Sequence[QueueStats]:
        """As FleetControl.lengths."""
        self._registry.record_answers({}, {}, down)
        return self._registry.measured(self._sizes(now), now)

    def registered(self, hostnames: Sequence[str], timeout: float) -> dict[str, list[str]]:
        """As FleetControl.registered."""
        names_by_host: dict[str, list[str]] = {}
        unreported: dict[str, frozenset[str]] = {}

        def take(_command: str, hostname: str, answer: Any) -> None:  # noqa: ANN401 - any JSON
            if isinstance(answer, list):
                names_by_host[hostname] = list(_names(answer))
                unreported[hostname] = frozenset(_names([item for item in answer if _is_unreported(item)]))

        self._control.ask(("registered",), timeout, take, hostnames, arguments={"taskinfoitems": ["send_events"]})
        self.unreported = unreported
        return names_by_host

    def held_task_ids(self, hostnames: Sequence[str], timeout: float, *, fetched: bool) -> dict[str, set[str]]:
        """As FleetControl.held_task_ids."""
        commands = _HELD_COMMANDS if fetched else _HELD_COMMANDS[:1]
        ids_by_host: dict[str, dict[str, set[str]]] = {}

        def take(command: str, hostname: str, answer: Any) -> None:  # noqa: ANN401 - any JSON
            if isinstance(answer, list) and len(answer) <= _MAX_TASKS:
                ids_by_host.setdefault(hostname, {})[command] = {task.uuid for task in _worker_tasks(hostname, answer)}

        self._control.ask(commands, timeout, take, list(hostnames))
        complete = {
            hostname: ids_by_command
            for hostname, ids_by_command in ids_by_host.items()
            if len(ids_by_command) == len(commands)
        }
        return {hostname: set().union(*ids_by_command.values()) for hostname, ids_by_command in complete.items()}

    @property
    def discarded(self) -> Counter[str]:
        """As FleetControl.discarded."""
        return self._control.discarded

    def worker_queues(self) -> dict[str, list[str]]:
        """As FleetControl.worker_queues."""
        return self._registry.worker_queues()

    def _sizes(self, now: float) -> dict[str, Size | None]:
        """The sizes of the registry's queues."""
        names, unconfirmed = self._registry.names(), self._registry.unconfirmed(now)
        deadline = time.monotonic() + _LENGTHS_TIMEOUT
        with Boundary(self._control.failed):
            return sizes(self._control.session(deadline), names, unconfirmed, self._suffixes, deadline)

    def _learn_priorities(self, hostnames: Sequence[str], timeout: float, now: float) -> None:
        """On Redis, ask some workers once an hour how they name the lists of a queue's priorities."""
        if not self._has_priorities or not hostnames or now < self._ask_conf_at:
            return
        self._ask_conf_at = now + _CONF_INTERVAL
        suffixes: set[str] = set()

        def take(_command: str, _hostname: str, answer: Any) -> None:  # noqa: ANN401 - any JSON
            suffixes.update(suffixes_of(answer))

        self._control.ask(("conf",), timeout, take, hostnames[:_MAX_CONF_WORKERS])
        self._suffixes = sorted(suffixes | self._own_suffixes)[:_MAX_SUFFIXES]

    def close(self) -> None:
        """As FleetControl.close."""
        self._control.close()


class _ConsumedQueue(NamedTuple):
    """A queue that a worker consumes, and its binding."""

    name: str
    exchange: str | None
    routing_key: str | None


def _consumed_queues(answer: object) -> Iterator[_ConsumedQueue]:
    for queue in answer if isinstance(answer, list) else ():
        if isinstance(queue, dict) and is_name(name := queue.get("name")):
            exchange = queue.get("exchange")
            bound = exchange.get("name") if isinstance(exchange, dict) else None
            yield _ConsumedQueue(name, _text(bound), _text(queue.get("routing_key")))


def _names(reply: Sequence[Any]) -> Iterator[str]:
    """Names of registered tasks, without additions such as ``shop.pay [send_events=True]``."""
    for item in reply[:_MAX_REGISTERED]:
        if isinstance(item, str) and is_text(name := item.partition(" [")[0]):
            yield name


def _is_unreported(item: object) -> bool:
    return isinstance(item, str) and item.endswith(" [send_events=False]")


def _processes(reply: object) -> int | None:
    """Number of pool processes, 0 if the pool does not report it; None if there is no information about the pool."""
    pool = reply.get("pool") if isinstance(reply, dict) else None
    if not isinstance(pool, dict):
        return None
    if isinstance(processes := pool.get("processes"), list):
        return len(processes)
    limit = pool.get("max-concurrency")
    return limit if isinstance(limit, int) and 0 < limit <= MAX_INT else 0


def _detail(reply: dict[str, Any], processes: int) -> WorkerDetail:
    """Details from a worker's statistics. Values that do not have Celery's format are None."""
    pool, used = reply.get("pool"), reply.get("rusage")
    # Such as "celery.concurrency.prefork:TaskPool".
    implementation = pool.get("implementation") if isinstance(pool, dict) else None
    kilobytes = _whole(used.get("maxrss")) if isinstance(used, dict) else None
    uptime = reply.get("uptime")
    return WorkerDetail(
        pool=printable(implementation.partition(":")[0].rpartition(".")[2], _MAX_POOL)
        if isinstance(implementation, str)
        else None,
        processes=processes or None,
        prefetch=_whole(reply.get("prefetch_count")),
        uptime=float(uptime) if isinstance(uptime, int | float) and 0 <= uptime <= MAX_INT else None,
        peak_memory=kilobytes and kilobytes * 1024,
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INT else None


def _is_solo(reply: object) -> bool:
    """Whether the worker runs tasks in its main thread, so that it does nothing else while a task runs."""
    pool = reply.get("pool") if isinstance(reply, dict) else None
    return isinstance(pool, dict) and "solo" in str(pool.get("implementation"))[:_MAX_IMPLEMENTATION]


class _WorkerTask(NamedTuple):
    """A task that a worker holds, and its delivery."""

    hostname: str
    uuid: str
    name: str
    exchange: str | None
    routing_key: str | None
    delivered: bool
    """Whether the answer contains information about the delivery."""
    since: float | None


def _worker_tasks(hostname: str, answer: object) -> Iterator[_WorkerTask]:
    for item in answer if isinstance(answer, list) else ():
        request = item.get("request", item) if isinstance(item, dict) else None
        if not isinstance(request, dict):
            continue
        uuid, name, since = request.get("id"), request.get("name"), _time(request.get("time_start"))
        if is_name(uuid) and is_text(name):
            delivery = request.get("delivery_info")
            how = delivery if isinstance(delivery, dict) else {}
            exchange, key = _text(how.get("exchange")), _text(how.get("routing_key"))
            yield _WorkerTask(hostname, uuid, name, exchange, key, how is delivery, since)


def _time(value: object) -> float | None:
    if isinstance(value, int | float) and _MIN_UNIX_TIME < value <= LATEST_TIMESTAMP:
        return float(value)
    return None


def _queue(task: _WorkerTask, queues: Sequence[_ConsumedQueue]) -> str | None:
    """The queue of a delivery: by the default exchange, by a binding, or because the worker consumes only one queue."""
    if not task.delivered:
        return None
    if not task.exchange and is_name(task.routing_key):
        return task.routing_key
    for queue in queues:
        if queue.exchange is not None and (queue.exchange, queue.routing_key) == (task.exchange, task.routing_key):
            return queue.name
    return queues[0].name if len(queues) == 1 else None


def _text(value: object) -> str | None:
    return value if is_text(value) else None
