"""Events of unnamed tasks wait for the name, bounded and across restarts, and are counted once."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from celery_monitor.core import unnamed
from celery_monitor.core.model import COUNTS, Delivery, FleetTask, Reason, Restored
from celery_monitor.core.monitor import Limits, Monitor
from tests.builders import NOON, body, pass_time, raw
from tests.core.test_monitor import Stored

WAIT = Limits().name_wait


def monitor(restored: Restored | None = None, now: float = NOON, *, asked: bool = True, **limits: object) -> Monitor:
    """A connected monitor. ``asked``: the workers have answered that they hold no tasks."""
    made = Monitor(replace(Limits(), **limits), restored or Restored(), now)  # type: ignore[arg-type]
    made.connected(acknowledges=True)
    if asked:
        made.learn_tasks([])
    return made


def feed(to: Monitor, *events: dict[str, object], now: float = NOON) -> None:
    """Apply events, one per message."""
    to.receive([Delivery(body(one)) for one in events], now)


def counts(of: Monitor) -> Counter[str]:
    """The sum of all series, as ``name kind``."""
    found: Counter[str] = Counter()
    for series in of.snapshot().series:
        found.update({f"{series.key.name} {kind}": n for kind, n in zip(COUNTS, series.counts, strict=True)})
    return +found


ENDS = [kind for kind in COUNTS if kind not in {"sent", "received"}]


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("namer", ["sent", "received", "inspect"])
def test_a_name_that_comes_later_names_what_waited(kind: str, namer: str) -> None:
    """Every kind of event is named by the client's event, the worker's event or its answer; nothing is unknown."""
    of = monitor()
    feed(of, raw(kind, exception="ValueError('no')"))
    assert not counts(of)
    if namer == "inspect":
        of.learn_tasks([FleetTask("u1", "shop.pay", "pay", NOON)])
    else:
        feed(of, raw(namer, at=NOON - 5, name="shop.pay", queue="pay"), now=NOON + 5)
    named = Counter({f"shop.pay {kind}": 1})
    assert counts(of) == (named if namer == "inspect" else named + Counter({f"shop.pay {namer}": 1}))
    pass_time(of, 120)
    assert not [name for name in counts(of) if name.startswith("unknown")]
    assert "unnamed_failures" not in of.snapshot().counters


def test_what_nothing_names_is_unknown_in_time() -> None:
    """After its wait it is evaluated like any failure, with its own time."""
    of = monitor()
    feed(of, raw("failed", exception="ValueError('no')"), raw("started", "u2"), raw("received", "u3"))
    pass_time(of, int(WAIT) - 1)
    assert not counts(of)
    assert not of.pages
    pass_time(of, 5, NOON + WAIT)
    assert counts(of) == {"unknown failed": 1, "unknown started": 1, "unknown received": 1}
    assert of.snapshot().counters["unnamed_failures"] == 1
    taken = of.take(NOON + 20)
    assert taken is not None
    assert [(one.uuid, one.at, one.reason) for one in taken.failures] == [("u1", NOON, Reason.OPENED)]


def test_nothing_waits_when_the_setting_is_0() -> None:
    """It is counted as unknown immediately."""
    of = monitor(name_wait=0.0)
    feed(of, raw("failed"))
    assert counts(of) == {"unknown failed": 1}


def test_after_a_connection_it_waits_for_the_workers_answer() -> None:
    """At most four times as long if no worker answers."""
    of = monitor(asked=False)
    feed(of, raw("failed"))
    pass_time(of, int(WAIT * 3))
    assert of.has_unnamed is False  # it has failed: no worker holds it any more
    assert not counts(of)
    of.learn_tasks([])
    of.tick(NOON + WAIT * 3)
    assert counts(of) == {"unknown failed": 1}
    silent = monitor(asked=False)
    feed(silent, raw("started"))
    pass_time(silent, int(WAIT * 4))
    assert silent.has_unnamed
    assert counts(silent) == {"unknown started": 1}


def test_the_workers_are_asked_for_what_they_hold_only() -> None:
    """Until the workers have been queried."""
    of = monitor()
    feed(of, raw("failed"), raw("revoked", "u2"))
    wanted = [of.has_unnamed]
    feed(of, raw("started", "u3"), raw("retried", "u4"))
    wanted.append(of.has_unnamed)
    assert of.learn_tasks([FleetTask("u3", "shop.pay", None, None)]) == 1
    assert [*wanted, of.has_unnamed] == [False, True, False]


def test_an_unregistered_task_is_named_by_its_failure() -> None:
    """It does not wait."""
    of = monitor()
    feed(of, raw("failed", exception="NotRegistered('shop.gone')"))
    assert counts(of) == {"shop.gone failed": 1}


def test_the_twin_of_a_waiting_failure_is_no_failure() -> None:
    """It is recognised when it arrives, not when it is counted."""
    of = monitor()
    feed(of, raw("failed"), raw("failed"))
    feed(of, raw("sent", name="shop.pay", queue="pay"))
    assert counts(of) == {"shop.pay sent": 1, "shop.pay failed": 1}


def test_too_many_are_unknown_before_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limited by number and size, oldest first; each is counted, and the exceeded limit is reported."""
    monkeypatch.setattr(unnamed, "MAX_EVENTS", 10)
    of = monitor()
    feed(of, *(raw("started", f"u{number}") for number in range(25)))
    assert counts(of) == {"unknown started": 15}
    monkeypatch.setattr(unnamed, "MAX_CHARACTERS", 1000)
    feed(of, raw("failed", "big", traceback="x" * 5000))
    assert counts(of) == {"unknown started": 25, "unknown failed": 1}
    limit = next(one for one in of.snapshot().limits if one.name == "unnamed_events")
    assert (limit.used, limit.exceeded) == (0, 26)


def test_a_name_forged_for_another_worker_is_second_choice() -> None:
    """A waiting event takes the name from its own worker, if there is one."""
    of = monitor()
    feed(of, raw("started"))
    of.learn_tasks([FleetTask("u1", "shop.pay", "pay", NOON)])
    feed(of, raw("received", name="evil", hostname="evil@box"), raw("failed"))
    assert counts(of) == {"shop.pay started": 1, "evil received": 1, "shop.pay failed": 1}


@pytest.mark.parametrize("seed", range(10))
def test_kills_while_events_wait(seed: int) -> None:
    """For kills at any time, each event is counted once and under its name."""
    chance = random.Random(seed)
    bodies = [
        body(raw(kind, f"u{number}", name=f"task{number % 3}" if kind == "sent" else None, queue="q"))
        for number in range(100)
        for kind in ("failed", "sent")
    ]
    chance.shuffle(bodies)
    store, of, now = Stored(), monitor(prefetch=100), NOON
    store.commit(of)
    left, waiting = [Delivery(one) for one in bodies], list[Delivery]()
    while left:
        batch, left = left[:5], left[5:]
        waiting += batch
        of.receive(batch, now)
        if chance.random() < 0.5:
            store.commit(of, now)
            waiting.clear()
        if chance.random() < 0.3 and store.flushes:
            left = [Delivery(one.body, redelivered=True) for one in waiting] + left
            waiting.clear()
            of = monitor(store.restored(), now, prefetch=100)
    assert counts(of) == Counter(
        {f"task{n} {kind}": 34 if n == 0 else 33 for n in range(3) for kind in ("sent", "failed")}
    )


def test_a_restart_does_not_begin_the_wait_anew() -> None:
    """A process that is restarted every few seconds still pages."""
    store, of = Stored(), monitor()
    feed(of, raw("failed"))
    for second in range(0, 60, 6):
        store.commit(of, NOON + second)
        of = monitor(store.restored(), NOON + second)
        pass_time(of, 5, NOON + second)
        if counts(of):
            break
    assert counts(of) == {"unknown failed": 1}
    assert second < 30
    store.commit(of, NOON + 60)
    assert not store.restored().unnamed
