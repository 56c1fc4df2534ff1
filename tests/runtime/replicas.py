"""A simulated replica: the protocol of two replicas as steps that a test can interleave.

The program's own pure parts decide: ``Candidate`` and ``Leadership`` (what the lease permits), ``ReplayRing`` (what a
standby applies), ``Fingerprints`` (duplicates). A mutant omits one part of the protocol.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from celery_monitor.core.fingerprint import Fingerprints
from celery_monitor.core.leadership import Candidate, Leadership
from celery_monitor.core.model import Delivery
from celery_monitor.core.replay import ReplayRing, position_of
from celery_monitor.errors import LeaseLostError, StoreUnavailableError
from tests.runtime.simulated import TTL, Flush, Mutant, SimStore, Stream


@dataclass
class Term:
    """The memory of a replica while it leads."""

    token: int
    leadership: Leadership
    fingerprints: Fingerprints
    replay: deque[Delivery]
    gap: float
    counted: list[str] = field(default_factory=list)
    read: int = 0
    """Messages since the last flush."""
    position: str | None = None
    flushes: deque[tuple[Flush, int, int]] = field(default_factory=deque)
    """Taken and not committed, each with its number of messages and of its connection."""
    connection: int = 0
    offline_since: float | None = None


class Replica:
    """One process. Each method is a step; between any two of them the process may be killed or stopped for a while."""

    def __init__(self, name: str, store: SimStore, stream: Stream, mutant: Mutant = "") -> None:
        self.name = name
        self.store = store
        self.stream = stream
        self.mutant = mutant
        self.sent: list[tuple[str, bool]] = []
        """Each notification, with whether another process led when it was sent."""
        self.frozen = False
        self.running = False
        self.term: Term | None = None
        self.ring = ReplayRing(1 << 20, 3600.0)
        self.candidate = Candidate()
        self.asking = False
        self.heard_at = 0.0
        """When the stream was last known to be connected."""

    def boot(self) -> None:
        self.running, self.term = True, None
        self.candidate, self.asking = Candidate(), False
        self.ring = ReplayRing(1 << 20, 3600.0)

    def kill(self) -> None:
        self.running = self.frozen = False
        self.term = None
        self.stream.drop(self.name)

    # --- standby ---
    def listen(self) -> None:
        """Read new messages into the ring buffer."""
        if self.stream.acknowledges:
            return
        if not self.stream.connected(self.name):
            self.ring.lost(self.heard_at)
            self.stream.connect(self.name)
            self.ring.subscribed(self.store.now)
        self.heard_at = self.store.now
        self.ring.add(self.stream.read(self.name, 1 << 20), self.store.now)

    def check_lease(self) -> None:
        """Trim the ring buffer to the leader's commits, and check whether to request the lease."""
        self.asking = False
        if self.store.away:
            self.candidate.unavailable()
            return
        now, ready = self.store.now, self.ready
        self.asking = self.candidate.may_lead(self.store.lease_until - now, now, ready=ready)

    def lead(self) -> None:
        """Take the lease if it is free, and continue from the committed state."""
        if not self.asking or self.store.away:
            return
        self.asking, asked_at = False, self.store.now
        token = self.store.lead()
        if token is None:
            return
        fingerprints = Fingerprints(capacity=1000)
        fingerprints.restore(self.store.epoch, self.store.fingerprints if self.mutant != "fingerprints" else ())
        position, alive_at = self.store.position, self.store.alive_at
        if self.ring.connected and not self.stream.connected(self.name):
            self.ring.lost(self.heard_at)
        if self.ring.connected and self.mutant != "barrier":
            # The answer to a PING: everything that was published before the position was read is in the ring.
            self.ring.add(self.stream.read(self.name, 1 << 20), self.store.now)
        if self.mutant == "trim":
            position = None
        resumption = self.ring.resume(position, alive_at)
        term = Term(token, Leadership(TTL, asked_at), fingerprints, deque(resumption.deliveries), resumption.gap)
        if not self.stream.acknowledges and not self.stream.connected(self.name):
            term.offline_since = resumption.watched_until
        self.term = term

    @property
    def ready(self) -> bool:
        """Whether it could take over without a gap."""
        return self.stream.acknowledges or self.mutant == "trim" or self.ring.trim(self.store.position)

    # --- leader ---
    def connect(self) -> None:
        term = self.term
        assert term is not None
        if self.stream.acknowledges and not term.leadership.may_consume(self.store.now):
            return
        if self.stream.connect(self.name):
            term.connection += 1
            term.fingerprints.connected(acknowledges=self.stream.acknowledges)
            if term.offline_since is not None:
                term.gap += self.store.now - term.offline_since
                term.offline_since = None
            self.heard_at = self.store.now

    def consume(self) -> None:
        """Apply some messages: first the replayed ones, then new ones."""
        term = self.term
        assert term is not None
        if not self.stream.connected(self.name):
            self._lose()
            self.connect()
        elif term.connection == 0:
            self.connect()
        connected = self.stream.connected(self.name)
        if connected and self.stream.acknowledges and not term.leadership.may_consume(self.store.now):
            if self.mutant != "release":
                self._lose()
            return
        some = [term.replay.popleft() for _ in range(min(3, len(term.replay)))]
        if connected:
            self.heard_at = self.store.now
        if not some and connected:
            some = self.stream.read(self.name, 3)
        self._apply(some)

    def _apply(self, deliveries: Iterable[Delivery]) -> None:
        term = self.term
        assert term is not None
        for delivery in deliveries:
            term.read += 1
            if delivery.tag and self.mutant != "tag":
                term.position = position_of(delivery)
            if not (term.fingerprints.on and term.fingerprints.is_redelivered_duplicate(delivery)):
                term.counted.append(delivery.body.decode())

    def _lose(self) -> None:
        term = self.term
        assert term is not None
        self.stream.drop(self.name)
        if not self.stream.acknowledges and term.connection and term.offline_since is None:
            term.offline_since = self.heard_at
        if self.stream.acknowledges:
            self.take()  # fingerprints belong to the epoch of their connection

    def take(self) -> None:
        """Make a flush of the applied messages."""
        term = self.term
        assert term is not None
        if not (term.read or term.gap):
            return
        flush = Flush(
            self.store.now,
            tuple(term.counted),
            term.gap,
            term.fingerprints.take(),
            term.fingerprints.epoch,
            term.position,
        )
        term.flushes.append((flush, term.read, term.connection))
        term.counted, term.read, term.gap = [], 0, 0.0

    def commit(self) -> None:
        """The oldest flush reaches the store, however long ago it was sent."""
        term = self.term
        assert term is not None
        if not term.flushes:
            return
        flush, number, connection = term.flushes[0]
        asked_at = self.store.now
        try:
            self.store.commit(term.token, flush)
        except StoreUnavailableError:
            return
        except LeaseLostError:
            self.step_down()
            return
        term.leadership.renewed(asked_at)
        term.flushes.popleft()
        if connection == term.connection:
            self.stream.ack(self.name, number)

    def renew(self) -> None:
        term = self.term
        assert term is not None
        asked_at = self.store.now
        try:
            self.store.renew(term.token)
        except StoreUnavailableError:
            term.leadership.failed(self.store.now)
        except LeaseLostError:
            self.step_down()
        else:
            term.leadership.renewed(asked_at)

    def notify(self) -> None:
        """Send one notification and record it."""
        term = self.term
        assert term is not None
        if self.store.away:
            return
        key = next((key for key, recorded in self.store.outbox.items() if not recorded), None)
        if key is None or not (term.leadership.may_send(self.store.now) or self.mutant == "trust"):
            return
        self.sent.append((key, self.store.writer not in {0, term.token}))
        try:
            self.store.record(term.token, key)
        except LeaseLostError:
            self.step_down()

    def step_down(self) -> None:
        """Stop committing and sending, and release the stream."""
        term = self.term
        assert term is not None
        term.leadership.end("another replica leads")
        if self.mutant == "step-down":
            return
        self.stream.drop(self.name)
        self.boot()

    def resign(self) -> None:
        """SIGTERM: commit a last flush, then release the lease."""
        if self.term is not None:
            self.take()
            self._finish()
        self.kill()

    def _finish(self) -> None:
        term = self.term
        assert term is not None
        for _ in range(len(term.flushes)):
            if self.store.away or self.term is None:
                return
            self.commit()
        if self.term is not None:
            self.store.resign(self.term.token)
