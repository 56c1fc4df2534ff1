"""The contract of a Store for the pump."""

import pytest
from msgspec import structs

from celery_monitor.adapters.store import SqlStore
from celery_monitor.core.model import (
    MAX_SILENCES,
    Event,
    IncidentState,
    Reason,
    Restored,
    Silence,
    TaskDetails,
    TaskRef,
    UnnamedEvent,
)
from celery_monitor.errors import StoreUnavailableError, StoreUnusableError
from celery_monitor.ports import Store
from tests.contracts.conftest import FINGERPRINT_WINDOW, RETENTION
from tests.contracts.values import NOW, changes, failure, incident, series, worker


def restarted(store: Store) -> Restored:
    """The state that the next daemon restores."""
    store.stop()
    restored = store.lead("here")
    assert restored is not None
    return restored


def test_empty(store: Store) -> None:
    """A new store restores nothing and expects flush 1."""
    restored = restarted(store)
    assert (restored.sequence, restored.epoch, dict(restored.counters)) == (0, 0, {})
    assert [*restored.series, *restored.tracked, *restored.workers, *restored.incidents, *restored.fingerprints] == []
    store.commit(changes(1))


def test_everything_comes_back(store: Store) -> None:
    """The monitor restores everything that it wrote."""
    ref = TaskRef(name="shop.charge", queue="celery", stage=2, due_at=1.5, started_at=2.5, seen_minute=3)
    nameless = TaskRef(seen_minute=4, sent_at=3.5, received_at=3.75, details=TaskDetails(9.5, 2, "u0", "u1", 99.5))
    others = [TaskRef("shop.charge", None, 5, 0.0, 7.5, host="celery@b"), TaskRef(host="celery@c")]
    shared = TaskRef("shop.charge", "celery", 2, seen_minute=5, host="celery@a", others=others)
    waiting = Event(type="task-failed", timestamp=2.5, hostname="celery@a", uuid="u4", traceback="a\x00b")
    store.commit(
        changes(
            1,
            series=[series(sent=2, failed=1), series(host="box", received=1)],
            tracked=[("u1", ref), ("u2", nameless), ("u3", shared)],
            unnamed=[UnnamedEvent(7, 1.5, waiting, 3.5)],
            workers=[worker(sw_ident="py-celery", unobserved=3)],
            incidents=[incident()],
            counters={"messages": 2.0, "discarded.malformed": 1.0},
            epoch=1,
            fingerprints=b"abcdefgh",
        )
    )
    restored = restarted(store)
    assert restored.sequence == 1
    assert restored.epoch == 1
    assert sorted(restored.series, key=lambda s: s.key.host) == [
        series(sent=2, failed=1),
        series(host="box", received=1),
    ]
    assert sorted(restored.tracked) == [
        ("u1", TaskRef("shop.charge", "celery", 2, 1.5, 2.5, 3, saved=1)),
        ("u2", structs.replace(nameless, saved=1)),
        ("u3", TaskRef("shop.charge", "celery", 2, 0.0, 0.0, 5, saved=1, host="celery@a", others=others)),
    ]
    assert list(restored.unnamed) == [UnnamedEvent(7, 1.5, waiting, 3.5)]
    assert list(restored.workers) == [worker(sw_ident="py-celery", unobserved=3)]
    assert list(restored.incidents) == [incident()]
    assert restored.counters == {"messages": 2.0, "discarded.malformed": 1.0}
    assert list(restored.fingerprints) == [(1, b"abcdefgh")]


def test_an_id_with_nul(store: Store) -> None:
    """It is restored unchanged and can be deleted, whatever the database can store of it."""
    store.commit(changes(1, tracked=[("a\0b", TaskRef("shop.charge")), ("c\0", TaskRef("shop.charge"))]))
    assert sorted(uuid for uuid, _ in restarted(store).tracked) == ["a\0b", "c\0"]
    store.commit(changes(2, forgotten=[("a\0b", 1)]))
    assert [uuid for uuid, _ in restarted(store).tracked] == ["c\0"]


def test_what_waited_is_settled(store: Store) -> None:
    """A counted event is not restored; the others are."""
    events = [UnnamedEvent(n, 1.0, Event(type="task-failed", timestamp=2.0, uuid=f"u{n}")) for n in (1, 2)]
    store.commit(changes(1, unnamed=events))
    store.commit(changes(2, settled=[1]))
    assert list(restarted(store).unnamed) == events[1:]


def test_series_are_absolute(store: Store) -> None:
    """A series replaces the previous one with its key."""
    store.commit(changes(1, series=[series(sent=1), series("shop.ship", sent=5)]))
    store.commit(changes(2, series=[series(sent=3)]))
    found = {s.key.name: s for s in restarted(store).series}
    assert found == {"shop.charge": series(sent=3), "shop.ship": series("shop.ship", sent=5)}


def test_dropped(store: Store) -> None:
    """Dropped entries are not restored; those that came again in the same flush are."""
    ref = TaskRef(name="shop.charge")
    store.commit(
        changes(
            1,
            series=[series("a"), series("b")],
            tracked=[("u1", ref), ("u2", ref)],
            workers=[worker("celery@a"), worker("celery@b")],
        )
    )
    store.commit(
        changes(
            2,
            dropped_series=[series("a").key, series("b").key],
            series=[series("b", sent=9)],
            forgotten=[("u1", 1), ("u2", 1), ("never", 1)],
            tracked=[("u2", ref)],
            dropped_workers=["celery@a", "celery@b"],
            workers=[worker("celery@b", pid=43)],
        )
    )
    restored = restarted(store)
    assert list(restored.series) == [series("b", sent=9)]
    assert [uuid for uuid, _ in restored.tracked] == ["u2"]
    assert list(restored.workers) == [worker("celery@b", pid=43)]


def test_same_sequence_again(store: Store) -> None:
    """A flush whose answer was lost is applied once, however often it is written."""
    flush = changes(1, series=[series(sent=1)], epoch=1, fingerprints=b"abcdefgh", failures=[failure()])
    for _ in range(3):
        store.commit(flush)
    store.commit(changes(2, series=[series(sent=2)], epoch=1, fingerprints=b"ABCDEFGH"))
    assert list(restarted(store).fingerprints) == [(1, b"abcdefghABCDEFGH")]


@pytest.mark.parametrize("sequence", [1, 4, 100])
def test_another_sequence(store: Store, sequence: int) -> None:
    """A flush that is neither the last nor the next one is refused and changes nothing."""
    store.commit(changes(1, counters={"messages": 1.0}))
    store.commit(changes(2, counters={"messages": 2.0}))
    with pytest.raises(StoreUnusableError):
        store.commit(changes(sequence, counters={"messages": 99.0}, series=[series(sent=99)]))
    restored = restarted(store)
    assert (restored.sequence, restored.counters, list(restored.series)) == (2, {"messages": 2.0}, [])


def test_sequence_survives_restart(store: Store) -> None:
    """The next flush after a restart is the one after the last."""
    store.commit(changes(1, counters={"messages": 1.0}))
    assert restarted(store).sequence == 1
    store.commit(changes(2, counters={"messages": 2.0}))
    assert restarted(store).counters == {"messages": 2.0}


def test_a_clock_that_was_ahead(store: Store) -> None:
    """Counters never decrease across a restart, and times are those of the correct clock."""
    for sequence, (ahead, messages) in enumerate(((0.0, 10.0), (5 * 3600.0, 15.0), (20.0, 1015.0)), 1):
        now = NOW + ahead
        counters = {"messages": messages, "starts": min(sequence, 2.0), "alive_at": now, "read_until": now - 1.0}
        store.commit(changes(sequence, now=now, counters=counters))
    restored = restarted(store)
    assert restored.counters == {"messages": 1015, "starts": 2, "alive_at": NOW + 20, "read_until": NOW + 19}
    store.commit(changes(4, now=NOW + 21, counters={**restored.counters, "messages": 1016.0}))
    assert restarted(store).counters["messages"] == 1016


@pytest.mark.parametrize("back", [1.0, 900.0, 7200.0, 366 * 86_400.0])
def test_a_clock_that_is_set_back(store: Store, back: float) -> None:
    """Counts after it are not lost, whether it is set back by a second or a year."""
    store.commit(changes(1, counters={"messages": 15.0, "starts": 1.0}))
    store.commit(changes(2, now=NOW - back, counters={"messages": 16.0, "starts": 1.0}))
    assert restarted(store).counters == {"messages": 16, "starts": 1}


@pytest.mark.parametrize(
    ("state", "back"),
    [
        (IncidentState.OPEN, True),
        (IncidentState.SUPPRESSED, True),
        (IncidentState.RESOLVED, True),
        (IncidentState.EXPIRED, False),
    ],
)
def test_incidents_that_may_grow(store: Store, state: IncidentState, *, back: bool) -> None:
    """Incidents that a failure can still join are restored."""
    store.commit(changes(1, incidents=[incident(state=IncidentState.OPEN)]))
    store.commit(changes(2, incidents=[incident(state=state)]))
    assert list(restarted(store).incidents) == ([incident(state=state)] if back else [])


def test_fingerprints_bounded(store: Store) -> None:
    """At least the newest ``fingerprint_window`` of each connection are restored, in order."""
    blobs = [bytes([i]) * 8 for i in range(40)]
    for sequence, blob in enumerate(blobs, 1):
        store.commit(changes(sequence, epoch=1 + sequence // 31, fingerprints=blob))
    (first, old), (second, new) = restarted(store).fingerprints
    assert (first, second) == (1, 2)
    assert old == b"".join(blobs[30 - FINGERPRINT_WINDOW : 30])
    assert new == b"".join(blobs[40 - FINGERPRINT_WINDOW :])


def test_closed(store: Store) -> None:
    """A stopped store refuses flushes, and stopping it again is no error."""
    store.stop()
    store.stop()
    with pytest.raises(StoreUnavailableError):
        store.commit(changes(1))


def test_prune_keeps_what_waits_for_the_end_of_a_silence(sql: SqlStore) -> None:
    """A silence may be longer than the retention; after the longest one there is nothing to wait for."""
    waits = incident(state=IncidentState.SUPPRESSED, reason=Reason.MUTED)
    expired = incident("shop.mail/2026-11-23T12Z", state=IncidentState.EXPIRED)
    sql.commit(changes(1, incidents=[waits, expired]))
    sql.prune(NOW + RETENTION + 86_400)
    assert restarted(sql).incidents == [waits]
    sql.prune(NOW + RETENTION + 31 * 86_400)
    assert restarted(sql).incidents == []


def test_silences_that_may_cover_a_late_event(sql: SqlStore) -> None:
    """Those that have not ended, and a bounded number of those that ended not long ago; a new leader gets them too."""
    ends = {"old": -61.0, "late": -59.0, "now": 0.0, "on": 30.0}
    for name, end in ends.items():
        sql.silences.add(Silence(name, ("shop.*",), "deploy", NOW - 90, NOW + end))
    assert [one.id for one in sql.silences.effective(NOW, NOW - 60)] == ["late", "now", "on"]
    assert [one.id for one in sql.silences.current(NOW)] == ["on"]
    for number in range(MAX_SILENCES):
        sql.silences.add(Silence(f"{number:03}", ("x",), "deploy", NOW - 8, NOW - 8))
    found = [one.id for one in sql.silences.effective(NOW, NOW - 60)]
    assert (len(found), found[-2:], "late" in found) == (MAX_SILENCES + 1, ["now", "on"], False)
    sql.commit(changes(1))
    assert [one.id for one in restarted(sql).silences] == found


def test_prune_keeps_what_is_new(store: Store) -> None:
    """Pruning takes nothing that the monitor goes on from."""
    store.commit(changes(1, series=[series(sent=1)], incidents=[incident()], counters={"messages": 1.0}))
    before = restarted(store)
    store.prune(NOW + 365 * 86_400)
    assert restarted(store) == before
