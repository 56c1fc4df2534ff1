"""The Store: takes the lease, restores the state, commits flushes, and deletes expired data."""

import contextlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import structlog
from sqlalchemy import BigInteger, Connection, Dialect, Double, Text, bindparam, case, func, select, update

from celery_monitor.adapters.store import encode, restore, schema
from celery_monitor.adapters.store.budget import Budget
from celery_monitor.adapters.store.crash_marks import ApplyingFile
from celery_monitor.adapters.store.dialects.base import ServerReport
from celery_monitor.adapters.store.engine import Database, UnstorableError, require
from celery_monitor.adapters.store.flush import FlushWriter
from celery_monitor.adapters.store.lease import Lease
from celery_monitor.adapters.store.merge_series import SeriesMerge
from celery_monitor.adapters.store.outbox import SqlOutbox
from celery_monitor.adapters.store.reader import SqlReader
from celery_monitor.adapters.store.retention import Retention
from celery_monitor.adapters.store.sequence import SequenceRecord
from celery_monitor.adapters.store.silences import SqlSilences
from celery_monitor.adapters.store.statements import Prepared
from celery_monitor.core.model import Changes, Restored, RolledBack
from celery_monitor.errors import (
    LeaseLostError,
    MonitorError,
    StoreFullError,
    StoreUnavailableError,
    StoreUnusableError,
)
from celery_monitor.ports import LeaseState, OtherFleet, StoreSpace

_log = structlog.get_logger()


class SqlStore:
    """The daemon's Store, with the Outbox and the Reader of the same database."""

    def __init__(
        self,
        database: Database,
        lease: Lease,
        flush: FlushWriter,
        merge: SeriesMerge,
        budget: Budget,
        *,
        retention: Retention,
        quiet_retention: float,
        max_incidents: int,
    ) -> None:
        self._database = database
        self._lease = lease
        self.lease_ttl = lease.ttl
        self.shared = database.shared
        self._budget = budget
        self._quiet_retention = quiet_retention
        self._max_incidents = max_incidents
        self._retention = retention
        self._flush = flush
        self._take_sequence = _take_sequence(database.dialect, lease)
        self._merge = merge
        self._token: str | None = None
        """Token of the lease; None while this process does not hold it."""
        self._counters: Mapping[str, float] = {}
        self._committed_at = 0.0
        self._identity = ""
        self.applying: Final = ApplyingFile()
        self._warned_of_shared_files = False
        self._unrecorded_holder: str | None = None
        """The name of this process, if the store was too full to record that it leads."""
        self.outbox: Final = SqlOutbox(database)
        self.reader: Final = SqlReader(database)
        self.silences: Final = SqlSilences(database)

    def other_fleets(self) -> list[OtherFleet]:
        """Other fleets in the same database: those whose page has a URL and whose tables this user may read."""
        return [OtherFleet(name, url) for name, url in self._database.other_fleets()]

    def start(self, holder: str = "") -> Restored:
        """As ``lead``, for a process that does not stand by. Raises StoreUnavailableError if another process leads."""
        restored = self.lead(holder)
        if restored is None:
            state = self.lease()
            self._database.stop()
            raise StoreUnavailableError(
                f"Another celery-monitor ({state.holder or 'name unknown'}) leads on this store; its lease expires in "
                f"{state.expires_in:.1f} s unless it is renewed"
            )
        return restored

    def lead(self, holder: str) -> Restored | None:
        """See Store. From then on, no former leader of this database can write."""
        self._token = None
        token = self._database.fence = secrets.token_hex(8)
        try:
            try:
                return self._lead(holder, token)
            except StoreFullError:
                if self.shared:
                    raise
                # The error has released the reserve. If that is not enough, the store can at least be read. The first
                # flush with enough space then records the lease.
                return self._lead(holder, token, only_read=True)
        except BaseException:
            self._token = None
            self._database.stop()
            raise

    def _lead(self, holder: str, token: str, *, only_read: bool = False) -> Restored | None:
        # Checked first in a transaction of its own, because a standby calls this often.
        if self.shared:
            free = self._free()
            self._warn_of_shared_files()
            if not free:
                return None
        if not self._database.start(self._lease.busy):
            return None
        with self._database.read() as connection:
            stored_identity: str | None = connection.execute(select(schema.meta.c.identity)).scalar()
        self._unrecorded_holder, merged = None, 0
        try:
            # A writer that takes longer may be a leader whose flush renews its lease.
            with self._database.write(fenced=False, lock_wait=self._lease.ttl / 2) as connection:
                if not self._lease.take(connection, token, holder):
                    return None
            self._token = token  # so that the lease can be renewed while the state is read
            merged = self._merge.run(self._database)
        except StoreFullError:
            if not only_read or stored_identity is None:
                raise
            self._unrecorded_holder = holder
        with self._database.read() as connection:
            restored = restore.read(
                connection,
                self._flush.tracked.load(connection),
                quiet_retention=self._quiet_retention,
                max_incidents=self._max_incidents,
            )
            self._committed_at, self._identity = connection.execute(
                select(schema.meta.c.at, schema.meta.c.identity)
            ).one()
        with contextlib.suppress(StoreUnavailableError):
            self._database.housekeep()  # so that at least the identity survives the loss of a log
        self.applying.start(self._database.applying)
        self._token = token
        self._counters = dict(restored.counters)
        rolled_back = self._rolled_back(restored.sequence, stored_identity)
        return replace(restored, series_merged=merged, rolled_back=rolled_back)

    def _warn_of_shared_files(self) -> None:
        """Warn once if another replica uses the same files, because they would overwrite each other."""
        other = self._database.other_user_of_files()
        if other is not None and not self._warned_of_shared_files:
            self._warned_of_shared_files = True
            _log.warning(
                "store.directory is in use by another celery-monitor of this store: give each replica its own "
                "directory, or a crash can be blamed on a message that did not cause it",
                directory=str(self._database.applying.parent.absolute()),
                other=other,
            )

    def _free(self) -> bool:
        """Whether nobody leads. If so, ends an open transaction of a former leader, which would block this one."""
        state = self.lease()
        if state.expires_in > 0:
            return False
        if state.term and (ended := self._database.end_abandoned(self._lease.ttl / 2)):
            _log.warning(
                "Terminated a transaction that the previous leader left open when it stopped or was cut off",
                leader=state.holder,
                transactions=ended,
            )
        return True

    def attach(self) -> None:
        """Open ``outbox``, ``reader`` and ``silences`` for use beside the daemon, without the lease.

        Raises StoreUnusableError if the store does not exist or has another version, and StoreUnavailableError.
        """
        try:
            self._database.attach()
        except BaseException:
            self._database.stop()
            raise

    def commit(self, changes: Changes) -> None:
        """See Store. Replaces values that cannot be stored, such as lone surrogates, by similar ones."""
        if self._token is None:
            raise StoreUnavailableError("The store is closed")
        self._database.verify()
        changed = {name: value for name, value in changes.counters.items() if self._counters.get(name) != value}
        try:
            self._commit(changes, changed)
        except UnstorableError:
            nul = self._database.stores_nul
            self._flush.tracked.scrub(nul=nul)
            self._commit(encode.storable(changes, nul=nul), encode.storable(changed, nul=nul))
        self._counters, self._committed_at = dict(changes.counters), changes.now
        self._database.write_sequence(SequenceRecord(self._identity, changes.sequence, changes.now))

    def _commit(self, changes: Changes, changed_counters: Mapping[str, float]) -> None:
        """Write as much as there is space for; on a full disk, without any optional data."""
        try:
            omitted = self._write(changes, changed_counters)
        except StoreFullError:
            changes, omitted = self._budget.reduce(changes)
            self._write(changes, changed_counters, has_space=False)
        for what, number in omitted.items():
            self._budget.count(what, number)

    def _write(
        self, changes: Changes, changed_counters: Mapping[str, float], *, has_space: bool = True
    ) -> Mapping[str, int]:
        """Write the changes in one transaction. Returns how much was omitted for lack of space, by kind."""
        # Not fenced: ``_advance`` checks the token.
        with self._database.write(fenced=False) as connection:
            if self._unrecorded_holder is not None and self._token is not None:
                self._lease.take(connection, self._token, self._unrecorded_holder)
            omitted: Mapping[str, int] = {}
            if self._advance(connection, changes):
                admitted, omitted = self._budget.admit(connection, changes)
                with self._database.pipelined(connection):
                    self._flush.write(connection, admitted, changed_counters, self._committed_at, has_space=has_space)
                self._flush.claim(connection, admitted)
        self._unrecorded_holder = None
        self._flush.tracked.committed()
        return omitted

    def prune(self, now: float) -> None:
        """See Store. Each call deletes a portion: call it every minute, or every few seconds while space is short."""
        for step in (self._retention.prune, self._budget.reclaim):
            # The next step may free the space that this one lacked.
            with contextlib.suppress(StoreFullError):
                step(now)
        self._database.housekeep()

    @property
    def about(self) -> str:
        """Name of the database for people, with its version once it is known. Contains no secrets."""
        return self._database.about

    def server(self, now: Callable[[], float]) -> ServerReport | None:
        """Facts about the database server for people; None for a file. ``now`` returns Unix seconds.

        Raises as other methods.
        """
        return self._database.report(now)

    def space(self) -> StoreSpace:
        """See Store."""
        return self._budget.stats()

    def renew(self) -> None:
        """See Store."""
        self._lease.renew(self._required_token())

    def resign(self) -> None:
        """See Store. Does not raise: if it fails, the lease expires by itself."""
        token, self._token = self._token, None
        if token is not None and self.shared:
            with self._database.short_timeouts(), contextlib.suppress(MonitorError):
                self._lease.resign(token)

    def short_timeouts(self) -> contextlib.AbstractContextManager[None]:
        """Within the block, calls of all threads fail if the database does not answer within a second or two."""
        return self._database.short_timeouts()

    def lease(self) -> LeaseState:
        """See Store."""
        state = self._lease.state()
        self._lease.check(state)
        return state

    def position(self) -> str | None:
        """See Store."""
        return self._lease.position()

    def stop(self) -> None:
        """See Store."""
        self.resign()
        self.applying.stop()
        self._database.stop()

    def _required_token(self) -> str:
        """Raises LeaseLostError if this process does not hold the lease."""
        if self._token is None:
            raise LeaseLostError("This process no longer holds the lease of the store")
        return self._token

    def _rolled_back(self, sequence: int, identity: str | None) -> RolledBack | None:
        records = (self._database.read_sequence(identity), self._lease.newest())
        of_this_store = [record for record in records if record is not None and record.identity == identity]
        newest = max(of_this_store, key=lambda record: record.sequence, default=None)
        if newest is None or newest.sequence <= sequence:
            return None
        return RolledBack(newest.sequence - sequence, found_at=self._committed_at, committed_at=newest.at)

    def _advance(self, connection: Connection, changes: Changes) -> bool:
        """Advance the store to the sequence of this flush. Returns False if this process has written it before.

        Raises as ``commit``.
        """
        token = self._required_token()
        taken = self._take_sequence.run(
            connection,
            token=token,
            before=changes.sequence - 1,
            number=changes.sequence,
            now=changes.now,
            new_position=changes.position,
            new_epoch=changes.epoch,
        )
        if taken == 1:
            return True
        require(connection, token)
        found = connection.execute(select(schema.meta)).one()
        if found.sequence != changes.sequence:
            raise StoreUnusableError(
                f"The store is at flush {found.sequence}, but flush {changes.sequence} was expected next: restart "
                "the monitor"
            )
        return False


def _take_sequence(dialect: Dialect, lease: Lease) -> Prepared:
    """The first statement of a flush: takes its sequence and renews the lease, if the token still permits writes."""
    table = schema.meta
    epoch, position = bindparam("new_epoch", type_=BigInteger), bindparam("new_position", type_=Text)
    return Prepared(
        dialect,
        update(table)
        .where(table.c.writer == bindparam("token", type_=Text))
        .where(table.c.sequence == bindparam("before", type_=BigInteger))
        .values(
            sequence=bindparam("number", type_=BigInteger),
            at=bindparam("now", type_=Double),
            position=func.coalesce(position, table.c.position),
            epoch=case((table.c.epoch < epoch, epoch), else_=table.c.epoch),
            **lease.extension(),
        ),
    )
