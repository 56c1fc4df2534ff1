"""One mail per day from two replicas on one database, wherever the leader is suspended."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from celery_monitor.adapters.channels.email import session
from celery_monitor.adapters.channels.email.progress import UNKNOWN_RETRY_DELAY
from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.core.model import Changes, OutboxItem
from celery_monitor.errors import LeaseLostError, StoreUnavailableError
from tests.adapters.channels.email.mail_server import MailServer
from tests.adapters.channels.email.test_exactly_once import DUE, Daemon
from tests.fakes import ManualClock


@pytest.fixture
def replicas(postgresql_url: str, tmp_path: Path) -> Iterator[tuple[SqlStore, SqlStore]]:
    """The leader's store and the other one's."""
    first, second = (
        open_store(postgresql_url, directory=tmp_path / name, retention=1e9, fingerprint_window=0) for name in "ab"
    )
    with closing(_Closing(first)), closing(_Closing(second)):
        first.lead("a")
        first.commit(Changes(now=DUE - 40_000.0, sequence=1, counters={"uptime_seconds": 1.0}))
        yield first, second


class _Closing:
    def __init__(self, store: SqlStore) -> None:
        self.close = store.stop


def take_over(second: SqlStore) -> None:
    """As after a suspension of the leader for the length of its lease."""
    second._database.fence = None
    with second._database.write() as connection:
        connection.exec_driver_sql("UPDATE meta SET lease_until = 0")
    assert second.lead("b") is not None


def run(daemon: Daemon) -> None:
    """Run for a while from the time that the mail is due."""
    daemon._clock.time = max(daemon._clock.time, DUE)
    daemon.run(daemon._clock.time + 100.0)


@pytest.mark.parametrize("when", ["RCPT", "claimed", "DATA"])
def test_a_leader_that_stands_still(
    replicas: tuple[SqlStore, SqlStore], mail: MailServer, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Suspended before its claim or before the mail's end, it sends nothing more. Later, the other one waits."""
    first, second = replicas
    monkeypatch.setattr(session, "_CLAIM_VALID", -1.0)
    daemon = Daemon(first, mail, ManualClock(DUE))
    daemon.sender._replicated = True
    moments = iter([when])

    def stage(name: str) -> None:
        if name == when and next(moments, None):
            take_over(second)

    def note(item: OutboxItem, progress: str) -> None:
        first.outbox.note(item, progress)
        if "claimed" in progress:
            stage("claimed")

    mail.stage, daemon.sender._note = stage, note
    with pytest.raises(LeaseLostError):
        run(daemon)
    assert len(mail.mails) == (when == "DATA")
    other = Daemon(second, mail, ManualClock(DUE))
    run(other)
    # What was claimed may have been sent: nobody knows, so it comes half an hour later with the same Message-ID.
    assert len(mail.mails) == (when != "claimed")
    if when == "claimed":
        other._clock.time += UNKNOWN_RETRY_DELAY
        run(other)
        assert len(mail.mails) == 1


@pytest.mark.parametrize("replicated", [True, False])
def test_a_claim_that_the_store_does_not_take(
    replicas: tuple[SqlStore, SqlStore], mail: MailServer, *, replicated: bool
) -> None:
    """With another replica the mail waits, because that one would not know of it."""
    first, _ = replicas
    daemon = Daemon(first, mail, ManualClock(DUE))
    daemon.sender._replicated = replicated
    away = True
    note: Callable[[OutboxItem, str], None] = first.outbox.note

    def keep(item: OutboxItem, progress: str) -> None:
        if away:
            raise StoreUnavailableError("away")
        note(item, progress)

    daemon.sender._note = keep
    run(daemon)
    assert len(mail.mails) == (not replicated)
    away = False
    daemon._clock.time += 900.0
    run(daemon)
    assert len(mail.mails) == 1
