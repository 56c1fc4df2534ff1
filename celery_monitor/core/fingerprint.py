"""Detects redelivered messages that were applied before.

Each flush stores a fingerprint of every message in it. A message that the broker flags as redelivered and whose
fingerprint is known, committed or pending, is not counted again. At most ``prefetch`` messages can be unacknowledged on
one connection, so the newest ``prefetch`` fingerprints of a connection (an epoch) are enough. Older epochs matter too:
the messages held by a half-open connection are redelivered minutes later, when the broker closes it.
"""

from collections.abc import Iterable
from hashlib import blake2b, sha1
from typing import Final

from celery_monitor.core.model import Delivery

BYTES: Final = 8
MAX_EPOCHS: Final = 100


def fingerprint_of(body: bytes) -> bytes:
    """The fingerprint of a message body."""
    return blake2b(body, digest_size=BYTES).digest()


class Fingerprints:
    """The newest fingerprints of each recent connection: at least ``capacity`` of each, the prefetch count."""

    def __init__(self, *, capacity: int) -> None:
        """Start empty; ``restore`` fills it."""
        self.on = False
        """Whether the source acknowledges messages, so that they can be redelivered."""
        self.epoch = 0
        self._capacity = capacity
        self._ended: dict[bytes, int] = {}
        """Fingerprints of earlier epochs, each with the newest epoch in which it occurred."""
        self._newer: set[bytes] = set()
        self._older: set[bytes] = set()
        """Those of this epoch. When ``_newer`` has ``capacity`` entries, it replaces ``_older``."""
        self._pending = bytearray()

    def restore(self, epoch: int, stored: Iterable[tuple[int, bytes]]) -> None:
        """Load the stored fingerprints: (epoch, concatenated fingerprints), oldest first.

        All of them are kept, because the prefetch count may have been larger then.
        """
        self.epoch = epoch
        for old, blob in stored:
            self._ended |= dict.fromkeys((blob[at : at + BYTES] for at in range(0, len(blob), BYTES)), old)

    def connected(self, *, acknowledges: bool) -> None:
        """Begin an epoch, in which messages delivered before may be redelivered."""
        self.on = acknowledges
        self._ended |= dict.fromkeys(self._newer | self._older, self.epoch)
        self._newer, self._older = set(), set()
        self.epoch += 1
        oldest = self.epoch - MAX_EPOCHS
        self._ended = {fingerprint: epoch for fingerprint, epoch in self._ended.items() if epoch >= oldest}

    def is_redelivered_duplicate(self, delivery: Delivery) -> bool:
        """Record a message. Returns whether it was applied before."""
        body = delivery.body
        fingerprint = sha1(body, usedforsecurity=False).digest()[:BYTES]  # half the cost of blake2b
        newer = self._newer
        # Also those of this connection: a quorum queue whose leader briefly loses contact with the consumer's node
        # requeues unacknowledged messages (rabbit_fifo: suspected_down), and so does a mirrored classic queue that
        # fails over (RabbitMQ 3); both redeliver them on the same channel. The price: if two messages with equal bodies
        # are redelivered after a crash before their commit, only one is counted. Celery's events are never equal:
        # each contains the sender's clock, which increases with every event.
        repeated = delivery.redelivered and (
            fingerprint in self._ended
            or fingerprint in newer
            or fingerprint in self._older
            or fingerprint_of(body) in self._ended  # stored by version 0.2.0
        )
        newer.add(fingerprint)
        if len(newer) >= self._capacity:
            self._newer, self._older = set(), newer
        self._pending += fingerprint
        return repeated

    def take(self) -> bytes:
        """The fingerprints since the last call, in order of delivery."""
        pending = bytes(self._pending)
        self._pending.clear()
        return pending
