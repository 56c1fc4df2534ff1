"""How long queues are, and how many consume them.

On Redis a queue is several lists, one for each step of its priority, whose names the fleet's ``sep`` and
``priority_steps`` give. kombu would count those of the monitor's own options only.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final

from amqp.exceptions import ChannelError, NotFound

from celery_monitor.adapters.broker.queue_registry import Size
from celery_monitor.adapters.broker.session import Session

_AT_ONCE: Final = 100
"""Queues that Redis is asked for in one go."""
MAX_REFUSED: Final = 20
"""Names in one round that are not those of queues: for each of them RabbitMQ closes a channel and logs an error."""


def sizes(
    session: Session, names: Sequence[str], unconfirmed: Sequence[str], suffixes: Collection[str], deadline: float
) -> dict[str, Size | None]:
    """Of the queues that were asked for; None for one that does not exist. Raises what the libraries do.

    ``unconfirmed`` may not exist: they are asked for after ``names``, until the broker has refused too many of them.
    ``suffixes``: of the lists of priorities, on Redis.
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
    """There is no telling which queues exist: one without tasks is no key."""
    remaining = iter(names)
    width = 1 + len(suffixes)
    while some := list(islice(remaining, _AT_ONCE)):
        with session.channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            for name in some:
                for suffix in ("", *suffixes):
                    pipe.llen(name + suffix)
            # A queue may have the name of a key of another type: that is no error of the others'.
            lengths = pipe.execute(raise_on_error=False)
        for number, name in enumerate(some):
            first, *rest = lengths[number * width : (number + 1) * width]
            lengths_known = [first, *(length for length in rest if isinstance(length, int))]
            yield name, (sum(lengths_known) if isinstance(first, int) else None, None)


def _size(channel: Any, name: str, *, counts_consumers: bool) -> Size | None:  # noqa: ANN401 - kombu has no types
    """Length and consumers; both None when it is somebody's own. None when there is no such queue."""
    if not counts_consumers:
        return channel._size(name), None  # noqa: SLF001 - there is no other way
    try:
        declared = channel.queue_declare(name, passive=True)
    except NotFound:
        return None
    except ChannelError:
        return None, None
    return declared.message_count, declared.consumer_count
