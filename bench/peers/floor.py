"""The lower bound: kombu receives and acknowledges each message and does nothing else.

    python bench/peers/floor.py BROKER_URL COUNTER_FILE

The first eight bytes of the file contain the number of messages.
"""

import mmap
import sys
from pathlib import Path

from celery.events.event import get_exchange
from kombu import Connection, Consumer, Queue


def main(url: str, counter: Path) -> None:
    """Read until the process is killed."""
    counter.write_bytes(bytes(8))
    with counter.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared, Connection(url) as connection:
        queue = Queue("floor", get_exchange(connection), routing_key="#", exclusive=True, auto_delete=True)
        count = 0

        def take(message: object) -> None:
            nonlocal count
            message.ack()  # type: ignore[attr-defined]
            count += 1
            shared[:] = count.to_bytes(8, "little")

        with Consumer(connection, [queue], on_message=take, prefetch_count=1000):
            print("ready", flush=True)
            while True:
                connection.drain_events()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
