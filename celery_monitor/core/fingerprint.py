"""Which messages were applied before.

With each flush goes a fingerprint of every message in it. A message that the broker flags as redelivered and whose
fingerprint is known, committed or pending, is not counted again. No more than ``prefetch`` messages can be
unacknowledged on one connection, so the newest ``prefetch`` fingerprints of a connection (an epoch) are enough. Older
epochs matter too: what a half-open connection held comes back when the broker notices, minutes later.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from celery_monitor.core.model import Delivery

BYTES: Final = 8
MAX_EPOCHS: Final = 100


def fingerprint_of(body: bytes) -> bytes:
    """Of one message."""
    return blake2b(body, digest_size=BYTES).digest()


class Fingerprints:
    """The newest fingerprints of each recent connection. ``capacity``: the least of each, the broker's prefetch."""

    def __init__(self, *, capacity: int) -> None:
        """Start without any; ``restore`` fills it."""
        self.on = False
        """The source acknowledges, so messages can come twice."""
        self.epoch = 0
        self._capacity = capacity
        self._ended: dict[bytes, int] = {}
        """Of earlier epochs, each with its newest one."""
        self._newer: set[bytes] = set()
        self._older: set[bytes] = set()
        """Of this epoch. The newer ones become the older ones when they are enough by themselves."""
        self._pending = bytearray()

    def restore(self, epoch: int, stored: Iterable[tuple[int, bytes]]) -> None:
        """Take over what the store kept: (epoch, concatenated fingerprints), oldest first.

        All of it: the prefetch may have been a larger one then.
        """
        self.epoch = epoch
        for old, blob in stored:
            self._ended |= dict.fromkeys((blob[at : at + BYTES] for at in range(0, len(blob), BYTES)), old)

    def connected(self, *, acknowledges: bool) -> None:
        """Begin an epoch: what was delivered before it may be delivered again in it."""
        self.on = acknowledges
        self._ended |= dict.fromkeys(self._newer | self._older, self.epoch)
        self._newer, self._older = set(), set()
        self.epoch += 1
        oldest = self.epoch - MAX_EPOCHS
        self._ended = {fingerprint: epoch for fingerprint, epoch in self._ended.items() if epoch >= oldest}

    def is_redelivered_duplicate(self, delivery: Delivery) -> bool:
        """Note a message; True when it was applied before."""
        fingerprint = fingerprint_of(delivery.body)
        newer = self._newer
        # Also those of this connection: a quorum queue whose leader loses sight of the consumer's node for a moment
        # takes back what is unacknowledged (rabbit_fifo: suspected_down), and so does a mirrored classic queue that
        # fails over (RabbitMQ 3); both deliver it once more on the same channel. The price: of two messages with equal
        # bodies that come again after a crash before their commit, one is counted. Events of Celery are never equal:
        # each has the sender's clock, which goes up with every event.
        repeated = delivery.redelivered and (
            fingerprint in self._ended or fingerprint in newer or fingerprint in self._older
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
