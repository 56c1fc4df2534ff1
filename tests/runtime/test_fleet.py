"""Background queries to the fleet."""

import threading
from collections.abc import Callable, Container, Sequence
from collections.abc import Set as AbstractSet

import pytest

from celery_monitor.core.model import Delivery, FleetTask, QueueStats, Restored, WorkerDetail
from celery_monitor.core.monitor import PROBE, Limits, Monitor
from celery_monitor.errors import SourceLostError
from celery_monitor.runtime.fleet import ENABLE_INTERVAL, FleetPoller
from tests.builders import NOON, body, raw
from tests.fakes import ManualClock
from tests.servers import wait_until


class Control:
    """A FleetControl that records the queries."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: SourceLostError | None = None
        self.on_question: Callable[[], None] = lambda: None
        self.workers = 1
        self.unresponsive: set[str] = set()
        """Workers that do not answer for the names of their tasks."""
        self.down: Container[str] = ()
        self.silent = False
        """No worker answers."""
        self.enabled: set[str] = set()
        """Workers that send task events only since they were asked last."""
        self.responders: AbstractSet[str] = frozenset()
        self.discarded: dict[str, int] = {}
        self.busy: set[str] = set()

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        self.on_question()
        if self.error is not None:
            raise self.error

    def _all(self) -> set[str]:
        """The workers that answer."""
        return set() if self.silent else {f"w{number}@box" for number in range(1, self.workers + 1)} - self.unresponsive

    def open(self) -> None:
        """Record it."""
        self._ask("open")

    def ping(self, timeout: float) -> AbstractSet[str]:
        """All workers answer."""
        del timeout
        self._ask("ping")
        return self._all()

    def enable_events(self, timeout: float, hostnames: Sequence[str] = ()) -> dict[str, bool]:
        """Record it."""
        del timeout
        self._ask(f"enable_events {' '.join(hostnames)}".strip())
        answered = self._all()
        return {hostname: hostname in self.enabled for hostname in (answered & set(hostnames) or answered)}

    def tasks(self, timeout: float, hostnames: Sequence[str] = ()) -> Sequence[FleetTask]:
        """One task."""
        del timeout
        self._ask(f"tasks {' '.join(hostnames)}".strip())
        if not hostnames:
            self.responders = self._all()
        return [FleetTask("u1", "shop.pay", "pay", NOON)] if self._all() else []

    def queues(self, timeout: float, now: float, down: Container[str] = ()) -> Sequence[QueueStats]:
        """One queue."""
        del timeout, now
        self.down = down
        self._ask("queues")
        self.responders = self._all()
        return [QueueStats("pay", 3, 1, 1, 4)]

    def lengths(self, now: float, *, down: Container[str] = ()) -> Sequence[QueueStats]:
        """The lengths of the queues of ``queues``."""
        del now
        self.down = down
        self._ask("lengths")
        return [QueueStats("pay", 3, 1, 0, 0)]

    @property
    def details(self) -> dict[str, WorkerDetail]:
        """The same details for each worker that answers."""
        return {hostname: WorkerDetail(pool="prefork", prefetch=8) for hostname in self.responders}

    def worker_queues(self) -> dict[str, list[str]]:
        """One entry for each worker."""
        return {f"w{number}@box": ["pay"] for number in range(1, self.workers + 1)}

    def registered(self, hostnames: Sequence[str], timeout: float) -> dict[str, list[str]]:
        """One task for each worker."""
        del timeout
        self._ask(f"registered {len(hostnames)}")
        return {hostname: [f"shop.{hostname}"] for hostname in hostnames if hostname not in self.unresponsive}

    @property
    def unreported(self) -> dict[str, frozenset[str]]:
        """The workers send events of all tasks."""
        return {}

    def held_task_ids(self, hostnames: Sequence[str], timeout: float, *, fetched: bool) -> dict[str, set[str]]:
        """The same task for each worker."""
        del timeout
        self._ask(f"held {' '.join(hostnames)}{' and fetched' if fetched else ''}")
        return {hostname: {"u1"} for hostname in hostnames if hostname not in self.unresponsive}

    def close(self) -> None:
        """Record it."""
        self.asked.append("close")


def watch(
    *, enable: bool = True, poll_interval: float = 15.0, prober: int | None = None
) -> tuple[FleetPoller, Control, ManualClock, Monitor]:
    """A fleet watch that polls every ``poll_interval``."""
    control, clock = Control(), ManualClock(time=NOON)
    monitor = Monitor(Limits(prober=prober), Restored(), NOON)
    monitor.connected(acknowledges=False)
    made = FleetPoller(control, monitor, threading.Lock(), clock, poll_interval=poll_interval, enable_events=enable)
    return made, control, clock, monitor


def run_rounds(made: FleetPoller, clock: ManualClock, seconds: int) -> None:
    """Run one round per second."""
    for _ in range(seconds):
        made.run_once(threading.Event())
        clock.advance(1.0)


def test_what_workers_say_of_themselves() -> None:
    """The last answer of each worker, with its queues and time; nothing for a worker that is down."""
    made, control, clock, monitor = watch()
    control.workers = 2
    run_rounds(made, clock, 2)
    reported = made.details()
    assert reported.keys() == {"w1@box", "w2@box"}
    at = reported["w1@box"].answered_at
    assert reported["w1@box"] == WorkerDetail(queues=("pay",), pool="prefork", prefetch=8, answered_at=at)
    assert at >= NOON
    control.unresponsive = {"w2@box"}
    run_rounds(made, clock, 20)
    assert made.details()["w2@box"] == reported["w2@box"]
    assert made.details()["w1@box"].answered_at > reported["w1@box"].answered_at
    monitor.receive([Delivery(body({"type": "worker-offline", "hostname": "w2@box", "timestamp": NOON}))], NOON)
    run_rounds(made, clock, 20)
    assert "w2@box" not in made.details()


def test_what_is_asked_and_how_often() -> None:
    """Events every minute, queues every poll_interval."""
    made, control, clock, _ = watch()
    run_rounds(made, clock, int(ENABLE_INTERVAL) + 1)
    assert (control.asked.count("enable_events"), control.asked.count("queues")) == (2, 5)
    assert made.queues()[0].length == 3


def test_workers_that_come_are_asked_soon_but_not_each() -> None:
    """A thousand pods that start within a minute do not cause a thousand broadcasts, and all are queried."""
    made, control, clock, _ = watch()
    control.workers = 1_000
    for first in range(1, 1_000, 50):
        made.arrived([f"w{number}@box" for number in range(first, first + 50)])
        made.run_once(threading.Event())
        clock.advance(0.5)
    run_rounds(made, clock, 2)
    asked = [what.split()[1:] for what in control.asked if what.startswith("enable_events")]
    assert len(asked) <= 13
    assert {hostname for hostnames in asked for hostname in hostnames} >= {"w151@box", "w999@box"}


def test_events_are_left_alone_when_told_so() -> None:
    """With ``broker.enable_events: false``, events are not enabled."""
    made, control, clock, _ = watch(enable=False)
    made.arrived()
    run_rounds(made, clock, 100)
    assert "enable_events" not in control.asked


def test_an_open_stream_asks_what_runs() -> None:
    """A failure of a running task then has its name and queue."""
    made, _, clock, monitor = watch()
    made.opened()
    run_rounds(made, clock, 1)
    monitor.receive([Delivery(body(raw("failed", exception="E('x')")))], NOON)
    (series,) = monitor.snapshot().series
    assert (series.key.name, series.key.queue) == ("shop.pay", "pay")


def test_what_fails_before_the_workers_are_asked_is_named_by_their_answer() -> None:
    """After a restart, a failure that is read before the answer waits for it."""
    made, control, clock, monitor = watch()
    monitor.receive([Delivery(body(raw("failed", exception="E('x')")))], NOON)
    assert not monitor.snapshot().series
    assert not monitor.pages
    made.opened()
    run_rounds(made, clock, 1)
    assert control.asked[:2] == ["tasks", "enable_events"]
    (series,) = monitor.snapshot().series
    assert (series.key.name, series.key.queue) == ("shop.pay", "pay")


def test_nothing_is_asked_before_what_the_workers_hold() -> None:
    """The connection exists when the stream opens, and the first query is the one that names tasks."""
    made, control, _, _ = watch()
    stop, opened = threading.Event(), threading.Event()

    def note() -> None:
        if control.asked == ["open"]:
            opened.set()

    control.on_question = note
    thread = threading.Thread(target=made.run, args=(stop, lambda: None))
    thread.start()
    assert opened.wait(60)
    made.opened()
    wait_until(lambda: "queues" in control.asked, 60)
    stop.set()
    made.interrupt()
    thread.join(60)
    assert control.asked[:4] == ["open", "tasks", "enable_events", "queues"]


def test_a_stream_that_opens_during_a_question() -> None:
    """The next query is the one that names tasks; the rest of the round follows."""
    made, control, _, _ = watch()

    def greeted() -> None:
        control.on_question = lambda: None
        made.opened()

    control.on_question = greeted
    made.run_once(threading.Event())
    assert control.asked == ["enable_events", "tasks", "queues", "registered 1"]


def test_workers_that_do_not_answer_the_first_question() -> None:
    """Waiting events keep waiting, and the workers are queried again once they answer."""
    made, control, clock, monitor = watch()
    control.silent = True
    receive_heartbeats(monitor, "w1@box")
    monitor.receive([Delivery(body(raw("failed", exception="E('x')")))], NOON)
    made.opened()
    run_rounds(made, clock, 10)
    assert not monitor.snapshot().series
    control.silent = False
    run_rounds(made, clock, 60)
    assert control.asked.count("tasks") == 2
    assert monitor.snapshot().series[0].key.name == "shop.pay"


def test_workers_are_asked_again_while_something_waits_for_its_name() -> None:
    """Soon, and then less and less often: invented task IDs cost the fleet little."""
    made, control, clock, monitor = watch()
    run_rounds(made, clock, 1)
    monitor.receive([Delivery(body(raw("started")))], NOON)
    run_rounds(made, clock, 4)
    assert (control.asked.count("tasks"), [one.key.name for one in monitor.snapshot().series]) == (1, ["shop.pay"])
    for second in range(600):
        monitor.receive([Delivery(body(raw("started", f"invented{second}")))], NOON + second)
        run_rounds(made, clock, 1)
    assert 7 <= control.asked.count("tasks") <= 10


def test_a_broker_that_is_away_is_told_and_asked_again() -> None:
    """The error is reported, and no thread dies."""
    made, control, clock, _ = watch()
    control.error = SourceLostError("down")
    run_rounds(made, clock, 20)
    found = [made.error]
    control.error = None
    run_rounds(made, clock, 61)
    assert [*found, made.error] == ["down", None]
    assert made.queues()


@pytest.mark.parametrize(("interval", "shown_for"), [(15.0, 60), (60.0, 240), (1.0, 40)])
def test_queues_of_long_ago(interval: float, shown_for: int) -> None:
    """If the broker cannot be queried, its queues are reported for four polls, and not forever."""
    made, control, clock, _ = watch(enable=False, poll_interval=interval)
    run_rounds(made, clock, 1)
    control.error = SourceLostError("down")
    run_rounds(made, clock, shown_for - 1)
    assert made.queues()
    run_rounds(made, clock, 1)
    clock.advance(0.1)
    assert not made.queues()
    control.error = None
    run_rounds(made, clock, int(interval) + 1)
    assert made.queues()


def test_slow_answers_are_no_missed_polls() -> None:
    """If polls take longer than their interval, queues do not disappear."""
    made, control, clock, _ = watch(enable=False, poll_interval=1.0)
    control.on_question = lambda: clock.advance(8.0)
    run_rounds(made, clock, 1)
    for _ in range(100):
        clock.advance(1.0)
        assert made.queues()
        run_rounds(made, clock, 1)


def test_what_failed_is_asked_again_soon() -> None:
    """Failed queries for events and tasks are not delayed until the next minute or connection."""
    made, control, clock, monitor = watch()
    made.opened()
    control.error = SourceLostError("down")
    run_rounds(made, clock, 20)
    assert control.asked.count("enable_events") <= 7
    assert control.asked.count("tasks") <= 2
    control.error = None
    control.asked.clear()
    run_rounds(made, clock, 16)
    assert control.asked.count("enable_events") == 1
    assert control.asked.count("tasks") == 1
    monitor.receive([Delivery(body(raw("failed", exception="E('x')")))], NOON)
    assert monitor.snapshot().series[0].key.name == "shop.pay"


def test_a_failed_question_for_tasks_is_repeated() -> None:
    """It is repeated after poll_interval until it is answered."""
    made, control, clock, _ = watch(enable=False)
    made.opened()

    def fail() -> None:
        if control.asked[-1] == "tasks" and control.asked.count("tasks") == 1:
            raise SourceLostError("down")

    control.on_question = fail
    run_rounds(made, clock, 100)
    assert control.asked.count("tasks") == 2


def test_it_ends_at_once() -> None:
    """The end interrupts its wait."""
    made, control, _, _ = watch()
    stop, waiting = threading.Event(), threading.Event()

    class Wake(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waiting.set()
            return super().wait(120)

    made._wake = Wake()
    thread = threading.Thread(target=made.run, args=(stop, lambda: None))
    thread.start()
    assert waiting.wait(60)
    stop.set()
    made.interrupt()
    thread.join(60)
    assert not thread.is_alive()
    assert control.asked[-1] == "close"


def test_workers_that_said_goodbye_are_told() -> None:
    """The query then knows that a worker that does not answer is gone and not late."""
    made, control, clock, monitor = watch(enable=False)
    states = [("heartbeat", "here@box"), ("heartbeat", "gone@box"), ("offline", "gone@box")]
    events = [{"type": f"worker-{kind}", "hostname": hostname, "timestamp": NOON} for kind, hostname in states]
    monitor.receive([Delivery(body(*events))], NOON)
    run_rounds(made, clock, 1)
    assert control.down == {"gone@box"}


def test_names_of_tasks_are_asked_of_some_workers_at_a_time() -> None:
    """Until all have answered, and again when a worker arrives, which may have new code."""
    made, control, clock, monitor = watch(enable=False)
    control.workers = 45
    run_rounds(made, clock, 100)
    assert [what for what in control.asked if what.startswith("registered")] == [f"registered {n}" for n in (20, 20, 5)]
    assert len(monitor.snapshot().registered) == 45
    assert ("shop.w45@box", "pay") in monitor.snapshot().registered
    made.arrived()
    run_rounds(made, clock, 16)
    assert control.asked.count("registered 20") == 3


def test_workers_that_do_not_tell_their_tasks() -> None:
    """They are queried again without delaying others: twenty that never answer come after those not yet queried."""
    made, control, clock, monitor = watch(enable=False)
    control.workers = 65
    control.unresponsive = {f"w{number}@box" for number in range(1, 21)}
    run_rounds(made, clock, 46)
    assert len(monitor.snapshot().registered) == 45
    control.unresponsive = {"w7@box"}
    run_rounds(made, clock, 30)
    assert len(monitor.snapshot().registered) == 64
    control.unresponsive.clear()
    run_rounds(made, clock, 16)
    assert ("shop.w7@box", "pay") in monitor.snapshot().registered
    control.asked.clear()
    run_rounds(made, clock, 60)
    assert set(control.asked) == {"queues"}


def test_workers_that_come_all_the_time() -> None:
    """In a changing fleet, all workers are queried, and not the same twenty repeatedly."""
    made, control, clock, monitor = watch(enable=False)
    control.workers = 45
    for _ in range(3):
        made.arrived()
        run_rounds(made, clock, 15)
    assert len(monitor.snapshot().registered) == 45


# --- workers that come, and workers that do not answer


def receive_heartbeats(monitor: Monitor, *hostnames: str) -> None:
    """Receive heartbeats of these workers."""
    events = [{"type": "worker-heartbeat", "hostname": hostname, "timestamp": NOON} for hostname in hostnames]
    monitor.receive([Delivery(body(*events))], NOON)


def finding(made: FleetPoller) -> str:
    """The problem with the answers, or None."""
    return made.finding or ""


def test_a_worker_that_comes_is_asked_until_it_answers() -> None:
    """At first it accepts no queries; afterwards it is queried with all others, and its tasks are requested."""
    made, control, clock, _ = watch()
    run_rounds(made, clock, 1)
    control.asked.clear()
    control.unresponsive = {"w2@box"}
    control.workers = 2
    made.arrived(["w2@box"])
    run_rounds(made, clock, 10)
    assert [what for what in control.asked if "enable" in what] == ["enable_events w2@box"] * 4
    assert "tasks w2@box" not in control.asked
    control.unresponsive, control.enabled = set(), {"w2@box"}
    run_rounds(made, clock, 10)
    assert control.asked.count("enable_events w2@box") == 5
    assert control.asked.count("tasks w2@box") == 1
    control.enabled = set()
    run_rounds(made, clock, 39)
    assert control.asked.count("enable_events w2@box") == 5
    assert control.asked.count("tasks w2@box") == 1


@pytest.mark.parametrize("enable", [True, False])
@pytest.mark.parametrize("arrivals", [0, 50])
def test_workers_that_cannot_read_questions(*, enable: bool, arrivals: int) -> None:
    """Each query is an error in their logs: a few in the first hour, one per hour afterwards."""
    made, control, clock, monitor = watch(enable=enable)
    control.silent = True
    receive_heartbeats(monitor, "w1@box")
    made.opened()
    for number in range(3600):
        if arrivals and number % (3600 // arrivals) == 0:
            made.arrived([f"pod{number}@box"])
        run_rounds(made, clock, 1)
    questions = [what for what in control.asked if what != "lengths"]
    assert 4 <= len(questions) <= 8
    assert questions[0] == "tasks"
    assert set(questions[1:]) == {"enable_events" if enable else "ping"}
    assert finding(made)
    assert "accept_content" in finding(made)
    assert made.queues()
    run_rounds(made, clock, 36_000)
    questions = [what for what in control.asked if what != "lengths"]
    assert len(questions) <= 18
    control.silent = False
    run_rounds(made, clock, 3_600)
    assert not finding(made)
    assert control.asked.count("tasks") == 2
    assert "queues" in control.asked


def test_a_fleet_that_comes_after_the_monitor() -> None:
    """However long no worker answered, the first one that starts is queried immediately."""
    made, control, clock, monitor = watch()
    control.silent = True
    run_rounds(made, clock, 10_000)
    assert not finding(made)
    control.silent = False
    control.asked.clear()
    receive_heartbeats(monitor, "w1@box")
    made.arrived(["w1@box"])
    run_rounds(made, clock, 2)
    assert "enable_events" in control.asked


def test_busy_workers_are_not_taken_for_deaf() -> None:
    """A worker that has answered before can read queries: it is still queried, and not reported."""
    made, control, clock, monitor = watch()
    receive_heartbeats(monitor, "w1@box")
    run_rounds(made, clock, 60)
    control.silent = True
    run_rounds(made, clock, 600)
    control.asked.clear()
    run_rounds(made, clock, 120)
    assert 2 <= control.asked.count("queues") <= 4
    assert not finding(made)


def test_one_worker_that_never_answers() -> None:
    """It is named while it sends events; a worker that has answered is not."""
    made, _, clock, monitor = watch()
    receive_heartbeats(monitor, "w1@box", "deaf@box")
    run_rounds(made, clock, 60)
    assert not finding(made)
    run_rounds(made, clock, 90)
    assert finding(made)
    assert "deaf@box" in finding(made)
    assert "w1@box" not in finding(made)
    offline = {"type": "worker-offline", "hostname": "deaf@box", "timestamp": NOON + 1}
    monitor.receive([Delivery(body(offline))], NOON + 1)
    run_rounds(made, clock, 15)
    assert not finding(made)


def run_probed(made: FleetPoller, clock: ManualClock, monitor: Monitor, seconds: int) -> None:
    """Run rounds while the probes of instance 7 return."""
    for _ in range(0, seconds, 3):
        now = clock.now()
        probe = {"type": PROBE, "probe_instance": 7, "probe_number": 1, "hostname": "m@p", "timestamp": now}
        monitor.receive([Delivery(body(probe))], now)
        run_rounds(made, clock, 3)


def test_workers_whose_events_do_not_arrive() -> None:
    """They publish to another event_exchange: they answer, but no events arrive. One event ends the finding."""
    made, _, clock, monitor = watch(prober=7)
    run_probed(made, clock, monitor, 180)
    assert "event_exchange" in finding(made)
    monitor.receive([Delivery(body(raw("received", name="shop.pay")))], clock.now())
    run_probed(made, clock, monitor, 30)
    assert not finding(made)
    run_probed(made, clock, monitor, 300)
    assert "event_exchange" not in finding(made)


def test_workers_that_are_heard_now_and_then() -> None:
    """One heartbeat per minute is enough."""
    made, _, clock, monitor = watch(prober=7)
    for _ in range(5):
        receive_heartbeats(monitor, "w1@box")
        run_probed(made, clock, monitor, 60)
        assert not finding(made)


def test_a_stream_that_is_behind_proves_nothing() -> None:
    """Without own probes, the events may only be late."""
    made, _, clock, monitor = watch(prober=8)
    run_probed(made, clock, monitor, 180)
    assert not finding(made)


def test_discarded_replies_are_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """Thousands of them cause one line in ten minutes; late ones cause none."""
    made, control, clock, _ = watch()
    for number in range(1, 1200):
        control.discarded = {"malformed": number, "late": 10 * number}
        run_rounds(made, clock, 1)
    assert made.discarded()["late"] == 11_990
    assert capsys.readouterr().out.count("Discarded replies from workers") == 2


def test_long_runs_are_confirmed_by_their_workers() -> None:
    """After a minute, only its worker is queried, rarely, and only once a worker has answered at all."""
    made, control, clock, monitor = watch()
    monitor.receive([Delivery(body(raw("received", "u1", NOON, name="shop.pay", hostname="w1@box")))], NOON)
    monitor.receive([Delivery(body(raw("started", "u1", NOON, hostname="w1@box")))], NOON)
    control.silent = True
    for _ in range(300):
        monitor.receive([Delivery(body(raw("custom", at=clock.now(), hostname="w1@box")))], clock.now())
        monitor.tick(clock.now())
        run_rounds(made, clock, 1)
    assert not [what for what in control.asked if what.startswith("held")]
    control.silent = False
    made.arrived(["w1@box"])
    for _ in range(300):
        monitor.receive([Delivery(body(raw("custom", at=clock.now(), hostname="w1@box")))], clock.now())
        monitor.tick(clock.now())
        run_rounds(made, clock, 1)
    asked = [what for what in control.asked if what.startswith("held")]
    assert set(asked) == {"held w1@box"}
    assert 1 <= len(asked) <= 4
    assert monitor.snapshot().oldest_started == {"shop.pay": NOON}
