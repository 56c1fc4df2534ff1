"""Queries lengths of queues and their numbers of consumers.

On Redis, a queue consists of several lists, one for each priority step. Their names depend on the fleet's ``sep`` and
``priority_steps``. kombu would only count the lists that the monitor's own options define.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final

from amqp.exceptions import ChannelError, NotFound

from celery_monitor.adapters.broker.queue_registry import Size
from celery_monitor.adapters.broker.session import Session

_MAX_PIPELINED: Final = 100
"""Queues in one request to Redis."""
MAX_REFUSED: Final = 20
"""Maximum names per round that are not queues, because for each, RabbitMQ closes a channel and logs an error."""


def sizes(
    session: Session, names: Sequence[str], unconfirmed: Sequence[str], suffixes: Collection[str], deadline: float
) -> dict[str, Size | None]:
    """Name → size of each queried queue; None for a queue that does not exist. Raises errors of the libraries.

    ``unconfirmed``: names of queues that may not exist. They are queried after ``names``, until MAX_REFUSED of them
    were not found. ``suffixes``: of the lists of priorities on Redis.
    """
    if session.kind == "redis":
        return dict(_lists(session, [*names, *unconfirmed], suffixes))
    sizes_by_name: dict[str, Size | None] = {}
    refused = 0
    doubted = frozenset(unconfirmed)
    for name in chain(names, unconfirmed):
        if refused >= MAX_REFUSED:
            break
        session.bound(deadline)
        size = sizes_by_name[name] = _size(session.query_channel(), name, counts_consumers=session.acknowledges)
        if name in doubted and (size is None or size[0] is None):
            refused += 1
    return sizes_by_name


def _lists(session: Session, names: Sequence[str], suffixes: Collection[str]) -> Iterator[tuple[str, Size | None]]:
    """Sizes on Redis, where it is unknown whether an empty queue exists, because an empty list has no key."""
    remaining = iter(names)
    width = 1 + len(suffixes)
    while some := list(islice(remaining, _MAX_PIPELINED)):
        with session.channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            for name in some:
                for suffix in ("", *suffixes):
                    pipe.llen(name + suffix)
            # A key of another type may have the name of a queue, which must not affect the others.
            lengths = pipe.execute(raise_on_error=False)
        for number, name in enumerate(some):
            first, *rest = lengths[number * width : (number + 1) * width]
            lengths_known = [first, *(length for length in rest if isinstance(length, int))]
            yield name, (sum(lengths_known) if isinstance(first, int) else None, None)


def _size(channel: Any, name: str, *, counts_consumers: bool) -> Size | None:  # noqa: ANN401 - kombu has no types
    """Length and consumers, both None for another connection's exclusive queue. None if the queue does not exist."""
    if not counts_consumers:
        return channel._size(name), None  # noqa: SLF001 - kombu has no public method
    try:
        declared = channel.queue_declare(name, passive=True)
    except NotFound:
        return None
    except ChannelError:
        return None, None
    return declared.message_count, declared.consumer_count
