"""A simulated store and two simulated streams: the simplest ones that fail like the real ones."""

import itertools
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from celery_monitor.core.model import Delivery
from celery_monitor.errors import LeaseLostError, StoreUnavailableError

TTL = 4.0
Mutant = Literal["", "fence", "tag", "trim", "barrier", "step-down", "trust", "fingerprints", "release"]
_tokens = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Flush:
    """What one commit writes."""

    at: float
    counted: tuple[str, ...]
    gap: float
    fingerprints: bytes
    epoch: int
    position: str | None


@dataclass
class SimStore:
    """The lease and the committed state. Each method is a transaction, by the store's clock ``now``."""

    mutant: Mutant = ""
    now: float = 1_000.0
    away: bool = False
    writer: int = 0
    lease_until: float = 0.0
    counted: Counter[str] = field(default_factory=Counter)
    gap: float = 0.0
    alive_at: float | None = None
    position: str | None = None
    epoch: int = 0
    fingerprints: list[tuple[int, bytes]] = field(default_factory=list)
    outbox: dict[str, bool] = field(default_factory=dict)
    """Key → whether its delivery was recorded."""

    def lead(self) -> int | None:
        self._available()
        if self.now < self.lease_until:
            return None
        self.writer = next(_tokens)
        self.lease_until = self.now + TTL
        return self.writer

    def renew(self, token: int) -> None:
        self._fence(token)
        self.lease_until = self.now + TTL

    def commit(self, token: int, flush: Flush) -> None:
        self._fence(token)
        if self.mutant != "fence":
            self.lease_until = self.now + TTL
        self.counted.update(flush.counted)
        self.outbox |= {one: False for one in flush.counted if fails(one) and one not in self.outbox}
        self.gap += flush.gap
        self.alive_at, self.epoch = flush.at, max(self.epoch, flush.epoch)
        self.fingerprints.append((flush.epoch, flush.fingerprints))
        self.position = flush.position or self.position

    def record(self, token: int, key: str) -> None:
        self._fence(token)
        self.outbox[key] = True

    def resign(self, token: int) -> None:
        if not self.away and self.writer == token:
            self.writer, self.lease_until = 0, self.now

    def _fence(self, token: int) -> None:
        self._available()
        if self.writer != token and self.mutant != "fence":
            raise LeaseLostError("another replica leads")

    def _available(self) -> None:
        if self.away:
            raise StoreUnavailableError("away")


class CutOff:
    """The store as seen by a replica that cannot reach it."""

    away = True

    def __init__(self, store: SimStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> object:
        if name in {"lead", "renew", "commit", "record", "resign"}:
            raise StoreUnavailableError("cut off")
        return getattr(self.store, name)


class Broadcast:
    """Like Redis: all subscribers receive the same messages in the same order; nothing is kept for others."""

    acknowledges = False

    def __init__(self) -> None:
        self.sockets: dict[str, deque[Delivery]] = {}

    def publish(self, body: str) -> None:
        for socket in self.sockets.values():
            socket.append(Delivery(body.encode(), tag=body))

    def connect(self, name: str) -> bool:
        self.sockets.setdefault(name, deque())
        return True

    def connected(self, name: str) -> bool:
        return name in self.sockets

    def drop(self, name: str) -> None:
        self.sockets.pop(name, None)

    def read(self, name: str, most: int) -> list[Delivery]:
        socket = self.sockets[name]
        return [socket.popleft() for _ in range(min(most, len(socket)))]

    def ack(self, name: str, number: int) -> None:
        """Does nothing."""


class Queue:
    """Like RabbitMQ: one exclusive consumer; unacknowledged messages are redelivered with the flag."""

    acknowledges = True

    def __init__(self) -> None:
        self.ready: deque[Delivery] = deque()
        self.unacked: deque[Delivery] = deque()
        self.consumer: str | None = None

    def publish(self, body: str) -> None:
        self.ready.append(Delivery(body.encode()))

    def connect(self, name: str) -> bool:
        if self.consumer is None:
            self.consumer = name
        return self.consumer == name

    def connected(self, name: str) -> bool:
        return self.consumer == name

    def drop(self, name: str) -> None:
        if self.consumer == name:
            again = [msgspec.structs.replace(one, redelivered=True) for one in self.unacked]
            self.ready.extendleft(reversed(again))
            self.unacked.clear()
            self.consumer = None

    def read(self, name: str, most: int) -> list[Delivery]:
        taken = [self.ready.popleft() for _ in range(min(most, len(self.ready)))]
        self.unacked.extend(taken)
        return taken

    def ack(self, name: str, number: int) -> None:
        if self.consumer == name:
            for _ in range(min(number, len(self.unacked))):
                self.unacked.popleft()


Stream = Broadcast | Queue


def fails(body: str) -> bool:
    """Whether the event is a failure that has to be notified once."""
    return int(body) % 2 == 0
