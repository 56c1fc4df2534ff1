"""Which queue a task came from where no task-sent tells it: what its worker consumes, and where the task went last."""

from collections.abc import Container, Iterable, Mapping, Sequence


class Queues:
    """Not thread-safe: it belongs to the monitor. ``last_of``: task name → its last queue, kept by the caller."""

    def __init__(self, *, default: str, last_of: Mapping[str, str]) -> None:
        """``default`` stands for what nothing tells."""
        self._default = default
        self._last_of = last_of
        self._consumed: dict[str, Sequence[str]] = {}
        """Hostname of each worker → the queues it consumes, as far as it was asked."""

    def learn(self, told: Iterable[tuple[str, Sequence[str]]], workers: Container[str]) -> None:
        """Take in what each worker consumes. Who did not answer this time keeps what it said while it is known."""
        kept = {hostname: names for hostname, names in self._consumed.items() if hostname in workers}
        self._consumed = kept | dict(told)

    def likely(self, task: str, hostname: str) -> str:
        """The only one that the worker consumes, else the task's last one if the worker consumes it."""
        consumed = self._consumed.get(hostname)
        if consumed is not None and len(consumed) == 1:
            return consumed[0]
        last = self._last_of.get(task)
        return last if last is not None and (not consumed or last in consumed) else self._default
