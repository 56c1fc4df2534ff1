"""What the workers say of themselves, and how long the broker's queues are (a FleetControl).

Answers come from any process that can reach the broker: whatever does not have the expected shape is left out.
"""

import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from amqp.exceptions import ChannelError, NotFound

from celery_monitor.adapters.broker.census import Census, Size
from celery_monitor.adapters.broker.control import RemoteControl
from celery_monitor.adapters.broker.faults import boundary
from celery_monitor.core.model import LARGEST_INT, LATEST_TIMESTAMP, FleetTask, QueueStats
from celery_monitor.settings.broker import BrokerSettings

_UNIX_TIMES_FROM: Final = 1_000_000_000
"""Smaller values of ``time_start`` are another machine's monotonic clock (Celery before 4.2, some pools)."""
_LENGTHS_TIMEOUT: Final = 3.0
_NAME_LIMIT: Final = 255
_MOST_TASKS: Final = 10_000


class BrokerFleet:
    """Remote control and queue lengths on one connection of its own. For one thread, but for ``close``."""

    def __init__(self, settings: BrokerSettings, queues: Sequence[str] = (), past: Iterable[str] = ()) -> None:
        """``queues`` are reported though no worker consumes them, and of ``past`` those that are not empty."""
        self._control = RemoteControl(settings)
        self._census = Census(queues, filter(_is_name, past))

    def enable_events(self) -> None:
        """As FleetControl.enable_events."""
        self._control.tell("enable_events")

    def tasks(self, timeout: float) -> Sequence[FleetTask]:
        """As FleetControl.tasks."""
        replies = self._control.ask(("active", "reserved", "scheduled", "active_queues"), timeout)
        queues = {host: list(_queues(reply)) for host, reply in replies["active_queues"].items()}
        found: dict[str, FleetTask] = {}
        for command in ("active", "reserved", "scheduled"):
            for host, reply in replies[command].items():
                for task in _tasks(reply, queues.get(host, [])):
                    found.setdefault(task.uuid, task)
        return list(found.values())

    def queues(self, timeout: float, now: float, down: Container[str] = ()) -> Sequence[QueueStats]:
        """As FleetControl.queues."""
        replies = self._control.ask(("active_queues", "stats"), timeout)
        queues = {
            host: [str(queue["name"]) for queue in _queues(reply)]
            for host, reply in replies["active_queues"].items()
            if isinstance(reply, list)
        }
        told = {host: _processes(reply) for host, reply in replies["stats"].items()}
        processes = {host: number for host, number in told.items() if number is not None}
        self._census.hear(queues, processes, down)
        return self._census.measured(self._sizes(self._census.names()), now)

    def registered(self, hostnames: Sequence[str], timeout: float) -> dict[str, list[str]]:
        """As FleetControl.registered."""
        replies = self._control.ask(("registered",), timeout, hostnames)
        answers = ((host, replies["registered"].get(host)) for host in hostnames)
        return {host: list(_names(reply)) for host, reply in answers if isinstance(reply, list)}

    def worker_queues(self) -> dict[str, list[str]]:
        """As FleetControl.worker_queues."""
        return self._census.worker_queues()

    def _sizes(self, names: Sequence[str]) -> dict[str, Size]:
        """Of the queues that exist."""
        until = time.monotonic() + _LENGTHS_TIMEOUT
        sizes: dict[str, Size] = {}
        with boundary(self._control.failed):
            session = self._control.session(until)
            for name in names:
                session.bound(until)
                size = _size(session.inquiry(), name, counts_consumers=session.acknowledges)
                if size is not None:
                    sizes[name] = size
        return sizes

    def close(self) -> None:
        """As FleetControl.close."""
        self._control.close()


def _size(channel: Any, name: str, *, counts_consumers: bool) -> Size | None:  # noqa: ANN401
    """Length and consumers; both None when it is somebody's own. None when there is no such queue.

    On Redis there is no telling: a queue without tasks is no key.
    """
    if not counts_consumers:
        # On Redis kombu's passive declaration looks for the queue without the global_keyprefix, and finds none.
        return channel._size(name), None  # noqa: SLF001
    try:
        declared = channel.queue_declare(name, passive=True)
    except NotFound:
        return None
    except ChannelError:
        return None, None
    return declared.message_count, declared.consumer_count


def _queues(reply: object) -> Iterator[Mapping[str, Any]]:
    for queue in reply if isinstance(reply, list) else ():
        if isinstance(queue, dict) and _is_name(queue.get("name")):
            yield queue


def _names(reply: Sequence[Any]) -> Iterator[str]:
    """Celery writes ``shop.pay [rate_limit=10/m]``."""
    for item in reply[:_MOST_TASKS]:
        if isinstance(item, str) and (name := item.partition(" [")[0]):
            yield name


def _processes(reply: object) -> int | None:
    """None where it does not tell."""
    pool = reply.get("pool") if isinstance(reply, dict) else None
    if not isinstance(pool, dict):
        return None
    if isinstance(processes := pool.get("processes"), list):
        return len(processes)
    limit = pool.get("max-concurrency")
    return limit if isinstance(limit, int) and 0 < limit <= LARGEST_INT else 0


def _tasks(reply: object, queues: Sequence[Mapping[str, Any]]) -> Iterator[FleetTask]:
    for item in reply if isinstance(reply, list) else ():
        request = item.get("request", item) if isinstance(item, dict) else None
        if not isinstance(request, dict):
            continue
        uuid, name, since = request.get("id"), request.get("name"), _time(request.get("time_start"))
        if isinstance(uuid, str) and isinstance(name, str) and _is_name(uuid) and name:
            yield FleetTask(uuid, name, _queue(request.get("delivery_info"), queues), since)


def _time(value: object) -> float | None:
    if isinstance(value, int | float) and _UNIX_TIMES_FROM < value <= LATEST_TIMESTAMP:
        return float(value)
    return None


def _queue(delivery: object, queues: Sequence[Mapping[str, Any]]) -> str | None:
    """The queue that a delivery came from: told by the default exchange, by a binding, or because there is one only."""
    if isinstance(delivery, dict):
        exchange, key = delivery.get("exchange"), delivery.get("routing_key")
        names = [str(queue["name"]) for queue in queues]
        if not exchange and _is_name(key):
            return str(key)
        for queue in queues:
            bound = queue.get("exchange")
            if isinstance(bound, dict) and bound.get("name") == exchange and queue.get("routing_key") == key:
                return str(queue["name"])
        if len(names) == 1:
            return names[0]
    return None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.encode(errors="replace")) <= _NAME_LIMIT
