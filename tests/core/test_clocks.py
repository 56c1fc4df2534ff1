"""Workers with wrong clocks, and workers without heartbeats."""

from dataclasses import replace

import pytest

from celery_monitor.core.clock_skew import ClockSkew
from celery_monitor.core.model import Changes, Condition, Delivery, Incident, Restored, ScheduleState, Worker
from celery_monitor.core.monitor import LIVE_FOR, PROBE, Limits, Monitor
from celery_monitor.core.rules import Policy, Rule
from celery_monitor.core.schedules.calendar import Schedule
from tests.builders import NOON, body, pass_time, raw

PROBER = 7
HOUR = 3600.0
POLICY = Policy(fleet="shop", default=Rule(to=("oncall",)))


def watching(restored: Restored | None = None, now: float = NOON) -> Monitor:
    """A monitor that knows its own probes."""
    made = Monitor(replace(Limits(), prober=PROBER, policy=POLICY), restored or Restored(), now)
    made.connected(acknowledges=True)
    return made


def receive(of: Monitor, now: float, *events: dict[str, object]) -> None:
    """Receive events at ``now``."""
    of.receive([Delivery(body(one)) for one in events], now)


def probe(of: Monitor, now: float, sent_at: float | None = None) -> None:
    """Receive one of the monitor's own probes."""
    probe = {"type": PROBE, "probe_instance": PROBER, "probe_number": 1, "hostname": "m@p"}
    receive(of, now, probe | {"timestamp": sent_at or now})


def beat(at: float, kind: str = "heartbeat") -> dict[str, object]:
    """A heartbeat with the worker's clock."""
    return {"type": f"worker-{kind}", "hostname": "w1@box", "timestamp": at, "processed": 0, "active": 0, "pid": 1}


def failure(at: float, uuid: str = "u1") -> list[dict[str, object]]:
    """A task that is received and fails, with the worker's clock."""
    return [raw("received", uuid, at, name="shop.pay"), raw("failed", uuid, at, exception="ValueError('no')")]


def taken(of: Monitor, now: float) -> Changes:
    """The changes to be written now."""
    changes = of.take(now)
    assert changes is not None
    return changes


def keys(of: Monitor, now: float) -> list[str]:
    """The keys of the pages to be sent."""
    return [row.key for row in taken(of, now).outbox]


def worker(of: Monitor) -> Worker:
    """The only worker."""
    (one,) = of.snapshot().workers
    return one


@pytest.mark.parametrize("wrong", [-3 * HOUR, -7322.0, -90.0, 90.0, 3 * HOUR, 20 * HOUR])
def test_a_failure_is_judged_by_the_time_when_it_happened(wrong: float) -> None:
    """However wrong its worker's clock is, a failure pages and is counted in the hour in which it happened."""
    of = watching()
    probe(of, NOON)
    receive(of, NOON + 1, beat(NOON + wrong))
    receive(of, NOON + 5, *failure(NOON + 4 + wrong))
    changes = taken(of, NOON + 5)
    assert [row.key for row in changes.outbox] == ["shop.pay/2023-11-15T12Z"]
    assert {bucket.start for bucket in changes.buckets} == {NOON}
    assert [one.at for one in changes.failures] == [pytest.approx(NOON + 5, abs=1.0)]
    assert worker(of).clock_offset == pytest.approx(-wrong, abs=1.0)
    assert worker(of).last_heartbeat == pytest.approx(NOON, abs=1.0)


@pytest.mark.parametrize("wrong", [-50.0, 50.0])
def test_a_small_difference_corrects_nothing(wrong: float) -> None:
    """With a small clock difference, the hour is that of the failure's own timestamp, to the second."""
    of = watching()
    probe(of, NOON)
    receive(of, NOON + 1, beat(NOON + wrong))
    receive(of, NOON + 2, *failure(NOON - 0.5), *failure(NOON + 0.5, "u2"))
    assert keys(of, NOON + 2) == ["shop.pay/2023-11-15T11Z", "shop.pay/2023-11-15T12Z"]
    assert worker(of).clock_offset == 0.0


@pytest.mark.parametrize(
    ("behind", "left"), [(2 * HOUR, 0.0), (2 * HOUR + 50, 0.0), (3 * HOUR, HOUR), (-HOUR, -3 * HOUR)]
)
@pytest.mark.parametrize("restarted", [False, True])
def test_the_clock_of_the_monitor_was_the_wrong_one(behind: float, left: float, *, restarted: bool) -> None:
    """Once it is set back, failures have the right time at once, before the workers' clocks are compared again."""
    ahead = NOON + 2 * HOUR
    of = watching(now=ahead)
    probe(of, ahead)
    receive(of, ahead + 1, beat(ahead - behind))
    of.tick(ahead + 2)
    assert worker(of).clock_offset == pytest.approx(behind, abs=1.0)
    if restarted:
        of = watching(Restored(workers=[worker(of)], counters={"alive_at": ahead + 2}), NOON + 3)
    receive(of, NOON + 4, *failure(NOON + 4 - left))
    changes = taken(of, NOON + 4)
    assert [row.key for row in changes.outbox] == ["shop.pay/2023-11-15T12Z"]
    assert [one.at for one in changes.failures] == [pytest.approx(NOON + 4, abs=3.0)]
    assert worker(of).clock_offset == pytest.approx(left, abs=3.0)


def test_a_worker_that_shares_the_clock_is_not_corrected_when_it_is_set_back() -> None:
    """Its clock was set back with the monitor's."""
    of = watching()
    probe(of, NOON + 7200)
    receive(of, NOON + 7200, beat(NOON + 7199))
    of.tick(NOON + 7200)
    receive(of, NOON, *failure(NOON))
    assert [one.at for one in taken(of, NOON).failures] == [NOON]
    assert worker(of).clock_offset == 0.0


def test_what_has_waited_says_nothing_of_clocks() -> None:
    """Old heartbeats after a downtime do not count as clock errors, and failures keep their hour."""
    of = watching(now=NOON + HOUR)
    receive(of, NOON + HOUR, beat(NOON), *failure(NOON + 1), beat(NOON + 2))
    assert keys(of, NOON + HOUR) == ["shop.pay/2023-11-15T12Z"]
    probe(of, NOON + HOUR + 1, sent_at=NOON + HOUR - 60)  # the stream is still behind
    receive(of, NOON + HOUR + 1, beat(NOON + 600))
    assert worker(of).clock_offset == 0.0


def test_what_comes_after_a_standstill_says_nothing_of_clocks() -> None:
    """Events that are late because the process, its machine or the broker stood still do not count as clock errors."""
    of = watching()
    probe(of, NOON)
    for second in (1, 3, 5):
        receive(of, NOON + second, beat(NOON + second))
    for late in (900, 903, 906):
        receive(of, NOON + late, beat(NOON + late - 890))
    receive(of, NOON + 907, *failure(NOON + 17))
    assert taken(of, NOON + 907).failures[0].at == NOON + 17
    probe(of, NOON + 910)
    of.connected(acknowledges=True)
    for late in (911, 914, 917):
        receive(of, NOON + late, beat(NOON + late - 890))
    assert worker(of).clock_offset == 0.0
    assert LIVE_FOR < 890


def test_a_restart_keeps_what_is_known_of_a_clock() -> None:
    """A failure has the same key before and after a restart, even if it is read before the first heartbeat."""
    of = watching()
    probe(of, NOON)
    receive(of, NOON + 1, beat(NOON - 3 * HOUR))
    (stored,) = taken(of, NOON + 1).workers
    again = watching(Restored(workers=[stored]), NOON + 60)
    receive(again, NOON + 60, *failure(NOON + 30 - 3 * HOUR))
    assert keys(again, NOON + 60) == ["shop.pay/2023-11-15T12Z"]


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("wrong", [-HOUR, -300.0, 0.0, 300.0, HOUR])
def test_what_a_worker_with_a_wrong_clock_runs(wrong: float, *, live: bool) -> None:
    """Its runs do not count as lost or ended, even if events arrive before the offset is known.

    Runs that its successor loses do.
    """
    of, lost = watching(), "lost.shop.pay"
    second, pid = 0, 1

    def send(*events: dict[str, object]) -> None:
        receive(of, NOON + second, *(one | {"pid": pid} for one in events))

    def run(uuid: str, before: float = 0.0) -> None:
        at = NOON + second + wrong - before
        send(raw("received", uuid, at, name="shop.pay"), raw("started", uuid, at))

    def pass_seconds(number: int, active: int) -> Changes:
        nonlocal second
        for _ in range(number):
            second += 1
            probe(of, NOON + second)
            if second % 2:
                send(beat(NOON + second + wrong) | {"active": active})
            of.tick(NOON + second)
        return taken(of, NOON + second)

    if live:
        probe(of, NOON)
    send(beat(NOON + wrong, "online"))
    run("early")
    second = 3
    run("first")
    changes = pass_seconds(120, 2)
    assert lost not in changes.counters
    assert of.snapshot().oldest_started == {"shop.pay": pytest.approx(NOON + (0 if live else wrong), abs=2)}
    send(raw("succeeded", "early", NOON + second + wrong))
    run("second")
    changes = pass_seconds(200, 2)
    assert lost not in changes.counters
    pid = 2
    second += 2
    send(beat(NOON + second + wrong, "online"))
    run("third")
    changes = pass_seconds(30, 1)
    begun_later = not live and wrong == HOUR  # "first", as far as is known
    assert changes.counters[lost] == (1 if begun_later else 2)
    assert pass_seconds(60, 1).counters[lost] == changes.counters[lost]


def test_a_clock_that_is_set_right() -> None:
    """Three heartbeats after a clock was corrected, its timestamps are used unchanged."""
    of = watching()
    probe(of, NOON)
    receive(of, NOON + 1, beat(NOON - 3 * HOUR))
    for second in (3, 5, 7):
        receive(of, NOON + second, beat(NOON + second))
    receive(of, NOON + 8, *failure(NOON + 8))
    assert taken(of, NOON + 8).failures[0].at == NOON + 8
    assert worker(of).clock_offset == 0.0


SEEN = {
    "at once": ([(0, 0.2)], 0.0),
    "behind": ([(0, 10_800.4)], 10_800.0),
    "ahead": ([(0, -10_800.4)], -10_800.0),
    "one that was late": ([(0, 0.1), (2, 0.1), (4, 300.0), (6, 0.1)], 0.0),
    "a burst after a broken connection": ([(0, 0.1), (2, 0.1), (400, 390.0), (400, 388.0), (400, 386.0)], 0.0),
    "a queue that is worked off": ([(0, 0.1), (2, 900.0), (4, 700.0), (6, 500.0), (8, 300.0), (10, 0.5)], 0.0),
    "set": ([(0, 0.1), (2, 3600.0), (4, 3600.2), (6, 3600.1)], 3600.0),
    "set back": ([(0, 3600.0), (2, 0.1), (4, 0.2), (6, 0.1)], 0.0),
    "drifting by less than matters": (
        [(0, 3600.0), *((second, 3600.0 + second) for second in range(2, 22, 2))],
        3600.0,
    ),
    "a first one that was late": ([(0, 200.0), (2, 0.1), (4, 0.1), (6, 0.1)], 0.0),
}


@pytest.mark.parametrize(("ages", "offset"), SEEN.values(), ids=SEEN)
def test_offsets(ages: list[tuple[float, float]], offset: float) -> None:
    """The delay of a heartbeat does not count as clock offset."""
    skew = ClockSkew()
    for at, age in ages:
        skew.observe(age, NOON + at)
    assert skew.offset == offset


def test_a_worker_without_heartbeats_is_known_by_its_tasks() -> None:
    """It is up while its task events arrive, down after a long silence, and then forgotten."""
    of = watching()
    probe(of, NOON)
    receive(of, NOON + 1, raw("started"))
    assert (worker(of).hostname, worker(of).up, worker(of).heartbeats) == ("w1@box", True, False)
    assert of.take_arrivals() == ["w1@box"]
    receive(of, NOON + 2, raw("started", "u2"))
    assert of.take_arrivals() == []
    pass_time(of, 310, NOON + 2)
    assert not worker(of).up
    pass_time(of, 610, NOON + 312)
    assert of.snapshot().workers == []


def test_a_worker_without_heartbeats_is_known_by_its_answers() -> None:
    """An idle worker is up while it answers, and one that comes back counts as new."""
    of = watching()
    of.flowing()
    for minute in range(10):
        of.learn_queues({"w1@box": ["celery"]})
        pass_time(of, 60, NOON + 60 * minute)
        assert worker(of).up
    pass_time(of, 310, NOON + 600)
    assert not worker(of).up
    of.take_arrivals()
    of.learn_queues({"w1@box": ["celery"]})
    assert (worker(of).up, of.take_arrivals()) == (True, ["w1@box"])
    (stored,) = taken(of, NOON + 1000).workers
    again = watching(Restored(workers=[stored]), NOON + 1001)
    assert (worker(again).up, worker(again).heartbeats) == (True, False)


def test_a_worker_whose_first_heartbeat_is_yet_to_come() -> None:
    """After its first heartbeat it is treated like any other, and its audit begins with that heartbeat."""
    of = watching()
    probe(of, NOON)
    receive(of, NOON + 1, raw("started"))
    receive(of, NOON + 2, beat(NOON + 2) | {"processed": 100})
    assert worker(of).heartbeats
    for second in (4, 6, 8, 10):
        receive(of, NOON + second, beat(NOON + second) | {"processed": 100})
    assert worker(of).unobserved == 0
    of.learn_queues({"w1@box": ["celery"]})
    receive(of, NOON + 11, beat(NOON + 11, "offline"))
    of.learn_queues({"w1@box": ["celery"]})  # an answer from before its end
    assert not worker(of).up


def test_what_is_too_old_to_page_is_counted() -> None:
    """Each old failure is counted for the mail, and by reason for alerts."""
    of = watching(now=NOON + 3 * HOUR)
    receive(of, NOON + 3 * HOUR, *failure(NOON), *failure(NOON + 1, "u2"))
    counters = taken(of, NOON + 3 * HOUR).counters
    assert (counters["too_old_failures"], counters["incidents.too_old"]) == (2, 2)


def test_old_events_show_no_worker_that_is_gone() -> None:
    """Events from before the monitor's downtime do not add workers, because these may have ended since."""
    of = watching(now=NOON + HOUR)
    receive(of, NOON + HOUR, raw("started", "u1", NOON), raw("failed", "u1", NOON + 1, exception="ValueError()"))
    assert of.snapshot().workers == []


class Turning:
    """A monitor that ticks every second, with a healthy worker."""

    def __init__(self, restored: Restored | None, now: float, *schedules: Schedule) -> None:
        policy = Policy(fleet="shop", default=Rule(to=("oncall",)), resolve_on_success=True, resolve_after=300.0)
        limits = replace(Limits(), prober=PROBER, policy=policy, schedules=schedules)
        self.of = Monitor(limits, restored or Restored(), now)
        self.of.connected(acknowledges=True)
        self.now, self.sent, self.incidents = now, list[tuple[str, str]](), dict[str, Incident]()
        self.schedules = dict[str, ScheduleState]()

    def turn(self, seconds: int, *events: dict[str, object]) -> None:
        """Receive events now, then let seconds pass without events."""
        receive(self.of, self.now, *(one | {"timestamp": self.now} for one in events))
        for _ in range(seconds):
            self.now += 1
            probe(self.of, self.now)
            receive(self.of, self.now, beat(self.now))
            self.of.tick(self.now)
            changes = self.of.take(self.now)
            if changes is not None:
                self.sent += [(row.key, str(row.action)) for row in changes.outbox]
                self.incidents |= {one.key: one for one in changes.incidents}
                self.schedules |= {one.name: one for one in changes.schedules}


@pytest.mark.parametrize("back", [600.0, HOUR, 48 * HOUR])
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_the_clock_of_the_monitor_is_set_back(back: float, *, restarted: bool, first: bool) -> None:
    """An open incident resolves once its task has been healthy for long enough, even if it was healthy ``first``."""
    shop = Turning(None, NOON)
    shop.turn(60)
    shop.turn(60, *failure(NOON))
    (opened,) = shop.sent
    well = [raw("received", "u2", name="shop.pay"), raw("succeeded", "u2", runtime=0.1)]
    shop.turn(30, *(well if first else ()))
    if restarted:
        known = Restored(incidents=[*shop.incidents.values()], counters={"alive_at": shop.now})
        shop = Turning(known, shop.now - back)
    shop.sent.clear()
    shop.now = NOON + 150 - back
    shop.turn(30)
    shop.turn(150, *(() if first else well))
    assert shop.sent == []
    shop.turn(120)
    assert shop.sent == [(opened[0], "resolve")]
    assert shop.incidents[opened[0]].last_at == pytest.approx(NOON + 60 - back, abs=2)


def test_a_storm_does_not_last_until_the_clock_shows_its_time_again() -> None:
    """After the clock was set back, a failing task has its own incident."""
    shop = Turning(None, NOON)
    for number in range(30):
        shop.turn(1, raw("received", f"u{number}", name=f"t{number}"), raw("failed", f"u{number}"))
    assert len(shop.sent) < 30
    shop.sent.clear()
    shop.now -= 2 * HOUR
    shop.turn(900)
    shop.turn(5, raw("received", "last", name="shop.pay"), raw("failed", "last"))
    assert ("shop.pay/2023-11-15T10Z", "trigger") in shop.sent


@pytest.mark.parametrize("restarted", [False, True])
def test_a_schedule_is_watched_although_the_clock_was_set_back(*, restarted: bool) -> None:
    """A task that no longer runs pages, and the clock need not show its last time again."""
    rule = Rule("sync", to=("oncall",), on=Condition.MISSED)
    sync = Schedule("sync", "shop.sync", "every 30s", rule, grace=10.0, every=30.0)
    shop = Turning(None, NOON, sync)

    def run(number: int) -> None:
        uuid = f"u{number}"
        shop.turn(30, raw("received", uuid, name="shop.sync"), raw("started", uuid), raw("succeeded", uuid))

    for number in range(4):
        run(number)
    if restarted:
        known = Restored(schedules=[*shop.schedules.values()], counters={"alive_at": shop.now})
        shop = Turning(known, shop.now - 48 * HOUR, sync)
    else:
        shop.now -= 48 * HOUR
    for number in range(4, 8):
        run(number)
    assert shop.sent == []
    shop.turn(60)
    assert [action for _, action in shop.sent] == ["trigger"]
