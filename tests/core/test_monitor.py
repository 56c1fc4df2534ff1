"""The monitor: receives messages, returns changes."""

import gc
import itertools
import json
import random
import re
import tracemalloc
from collections import Counter
from dataclasses import replace

import msgspec
import pytest

from celery_monitor.core.model import (
    COUNTS,
    FAILED,
    Changes,
    Delivery,
    Incident,
    Restored,
    Series,
    SeriesKey,
    Snapshot,
    TaskRef,
    UnnamedEvent,
    Worker,
)
from celery_monitor.core.monitor import PROBE, Limits, Monitor
from celery_monitor.core.rules import Policy, Rule
from celery_monitor.core.text import printable
from celery_monitor.core.track import MAX_ARGUMENTS_LENGTH
from tests.builders import NOON, body, life, pass_time, raw, recorded, reruns

EXPECTED = {
    "5.7.0": {
        "sent": 73, "received": 72, "started": 71, "succeeded": 48,
        "failed": 19, "retried": 2, "rejected": 2, "revoked": 3,
    },
    "4.4.7": {
        "sent": 73, "received": 72, "started": 71, "succeeded": 48,
        "failed": 18, "retried": 2, "rejected": 2, "revoked": 4,
    },
}  # fmt: skip
RECORDED_AT = 1_795_397_300.0
RERUN_AT = 1_795_771_000.0
BROADCAST_AT = 1_795_780_707.0


def monitor(restored: Restored | None = None, now: float = NOON, **limits: object) -> Monitor:
    """A monitor connected to a source that acknowledges."""
    limits.setdefault("policy", Policy(default=Rule(to=("oncall",))))
    made = Monitor(replace(Limits(), **limits), restored or Restored(), now)  # type: ignore[arg-type]
    made.connected(acknowledges=True)
    return made


def deliver(*bodies: bytes, redelivered: bool = False) -> list[Delivery]:
    """Messages as a broker delivers them."""
    return [Delivery(one, redelivered=redelivered) for one in bodies]


def totals(snapshot: Snapshot) -> Counter[str]:
    """The sum of all series."""
    found: Counter[str] = Counter()
    for series in snapshot.series:
        found.update(dict(zip(COUNTS, series.counts, strict=True)))
    return +found


class Stored:
    """A simulated store: returns the state after a series of flushes to a restarted monitor."""

    def __init__(self) -> None:
        self.flushes: list[Changes] = []
        self._series: dict[SeriesKey, Series] = {}
        self._incidents: dict[str, Incident] = {}
        self._workers: dict[str, Worker] = {}
        self._tracked: dict[str, TaskRef] = {}
        self._unnamed: dict[int, UnnamedEvent] = {}

    def commit(self, of: Monitor, now: float = NOON) -> None:
        """Take the changes and store them."""
        flush = of.take(now)
        if flush is None:
            return
        self.flushes.append(flush)
        self._series |= {one.key: one for one in flush.series}
        self._incidents |= {one.key: one for one in flush.incidents}
        self._workers |= {one.hostname: one for one in flush.workers}
        for number in flush.settled:
            del self._unnamed[number]
        self._unnamed |= {one.number: one for one in flush.unnamed}
        for uuid, _ in flush.forgotten:
            self._tracked.pop(uuid, None)
        for uuid, ref in flush.tracked:
            self._tracked[uuid] = msgspec.structs.replace(ref, saved=ref.saved or flush.sequence)

    def restored(self) -> Restored:
        """Like SqlStore.start."""
        last = self.flushes[-1]
        return Restored(
            sequence=last.sequence,
            epoch=last.epoch,
            series=list(self._series.values()),
            # A copy for each restart: what a monitor changes and does not commit is lost.
            tracked=[(uuid, msgspec.structs.replace(ref)) for uuid, ref in self._tracked.items()],
            unnamed=list(self._unnamed.values()),
            workers=list(self._workers.values()),
            incidents=list(self._incidents.values()),
            counters=last.counters,
            fingerprints=[(flush.epoch, flush.fingerprints) for flush in self.flushes],
        )


@pytest.mark.parametrize("version", EXPECTED)
def test_recordings(version: str) -> None:
    """Recordings of real fleets are counted exactly, a hard limit's duplicate once, and every failure has its name."""
    of = monitor(now=RECORDED_AT)
    of.receive(recorded(version), RECORDED_AT)
    snapshot = of.snapshot()
    assert totals(snapshot) == EXPECTED[version]
    failed_events = 20 if version == "5.7.0" else 18
    assert snapshot.counters["events.task-failed"] == failed_events
    assert snapshot.counters.get("discarded.duplicate", 0) == failed_events - EXPECTED[version]["failed"]
    assert "unnamed_failures" not in snapshot.counters
    exceptions = {one.key.name: set(one.exceptions) for one in snapshot.series if one.counts[FAILED]}
    assert exceptions == {
        "shop.billing.charge": {"ValueError"},
        "shop.billing.refund": {"TimeoutError"},
        "shop.gone.task": {"NotRegistered"},
        "shop.images.detect": {"SoftTimeLimitExceeded"},
        "shop.images.hard": {"TimeLimitExceeded"},
        "shop.images.oom": {"WorkerLostError"},
        "shop.orders.weird": {"Weird"},
    } | ({"shop.queue.reject": {"Reject"}} if version == "5.7.0" else {})


@pytest.mark.parametrize(("kind", "broker"), [("reruns", "rabbitmq"), ("reruns", "redis"), ("broadcast", "redis")])
@pytest.mark.parametrize("restarts", [False, True])
def test_recordings_of_ids_that_run_again(kind: str, broker: str, *, restarts: bool) -> None:
    """Broadcast, gevent, lost workers and children, replaced and retried tasks, ids used again, visibility timeouts.

    Each run of a real fleet is counted under its name, as the fleet's own notes say, also with a restart after each
    message; and a hard limit's twin is one failure.
    """
    deliveries, noted = reruns(broker, kind)
    at = RERUN_AT if kind == "reruns" else BROADCAST_AT
    store, of = Stored(), monitor(now=at)
    of.learn_tasks([])
    for delivery in deliveries:
        of.receive([delivery], at)
        if restarts:
            store.commit(of, at)
            of = monitor(store.restored(), at)
    pass_time(of, 4 * int(Limits().name_wait), at)
    counted: dict[str, Counter[str]] = {}
    for one in of.snapshot().series:
        counted.setdefault(one.key.name, Counter()).update(dict(zip(COUNTS, one.counts, strict=True)))
    assert {name: dict(+counts) for name, counts in counted.items()} == noted
    assert "unnamed_failures" not in of.snapshot().counters


@pytest.mark.parametrize("seed", range(20))
def test_kills_at_any_message(seed: int) -> None:
    """Flushed or not, acknowledged or not: after any number of crashes, the totals are the same."""
    chance = random.Random(seed)
    bodies = list(itertools.chain.from_iterable(life(f"u{n}", end=("succeeded", "failed")[n % 2]) for n in range(200)))
    chance.shuffle(bodies)
    store, queue, waiting, of = Stored(), deliver(*bodies), list[Delivery](), monitor(prefetch=100)
    while queue or waiting:
        size = chance.randint(1, 20)
        batch, queue = queue[:size], queue[size:]
        waiting += batch
        of.receive(batch, NOON + 10)
        if len(waiting) >= 50 or chance.random() < 0.3:
            store.commit(of)
            if chance.random() < 0.7:
                waiting.clear()
        if chance.random() < 0.2 and store.flushes:
            queue = [msgspec.structs.replace(one, redelivered=True) for one in waiting] + queue
            waiting.clear()
            of = monitor(store.restored(), prefetch=100)
        elif not queue:
            store.commit(of)
            waiting.clear()
    pass_time(of, 4 * int(Limits().name_wait))  # what has lost its name in a crash is unknown then
    # Shuffled lives have failures before their names; sums do not care.
    assert totals(of.snapshot()) == {
        "sent": 200, "received": 200, "started": 200, "succeeded": 100, "failed": 100,
    }  # fmt: skip


def test_redelivered_and_known_is_not_counted_again() -> None:
    """Neither after the commit nor before it. A new message is counted although it is flagged."""
    of, first = monitor(), life("u1")
    of.receive(deliver(*first), NOON)
    of.connected(acknowledges=True)
    of.receive(deliver(*first, redelivered=True), NOON)
    of.take(NOON)
    of.connected(acknowledges=True)
    of.receive(deliver(*first, *life("u2"), redelivered=True), NOON)
    assert totals(of.snapshot())["succeeded"] == 2
    assert of.snapshot().counters["discarded.redelivered"] == 8


def test_half_open_connections_bring_their_messages_back_late() -> None:
    """Messages of an old connection are recognised after thousands of others on a new one."""
    of, events = monitor(prefetch=100), life("held")
    of.receive(deliver(*events), NOON)
    of.connected(acknowledges=True)
    for number in range(500):
        of.receive(deliver(*life(f"u{number}")), NOON)
        of.take(NOON)
    of.receive(deliver(*events, redelivered=True), NOON)
    assert totals(of.snapshot())["succeeded"] == 501


def test_equal_messages_that_are_not_redelivered_count() -> None:
    """Only messages that the broker flags can be duplicates."""
    of = monitor()
    custom = body({"type": "order-shipped", "timestamp": NOON})
    of.receive(deliver(custom, custom), NOON)
    assert of.snapshot().counters["events.order-shipped"] == 2


def test_an_unacknowledging_source_has_no_fingerprints() -> None:
    """Such a source never redelivers."""
    of = monitor()
    of.connected(acknowledges=False)
    of.receive(deliver(*life("u1")), NOON)
    taken = of.take(NOON)
    assert taken is not None
    assert taken.fingerprints == b""


def test_nothing_new_is_no_flush() -> None:
    """Without changes there is no flush unless it is forced; then the sequence number increases."""
    of = monitor()
    assert of.take(NOON) is None
    forced = of.take(NOON, force=True)
    of.receive(deliver(*life("u1")), NOON)
    taken = of.take(NOON)
    assert forced is not None
    assert taken is not None
    assert (forced.sequence, taken.sequence) == (1, 2)


def test_reasons_of_discarding() -> None:
    """Each is counted."""
    of = monitor()
    of.receive(
        [
            Delivery(b"{"),
            Delivery(b"x", content_type="application/x-python-serialize"),
            Delivery(body({"type": "task-failed", "timestamp": NOON})),
            Delivery(body({"type": "order-shipped", "timestamp": NOON})),
        ],
        NOON,
    )
    counters = of.snapshot().counters
    assert {key: value for key, value in counters.items() if key.startswith("discarded.")} == {
        "discarded.malformed": 2,
        "discarded.content_type": 1,
        "discarded.unknown_type": 1,
    }
    assert counters["messages"] == 4


def test_custom_types_are_bounded() -> None:
    """Thousands of invented types add only one label."""
    of = monitor()
    of.receive(deliver(*(body({"type": f"custom-{n}", "timestamp": NOON}) for n in range(1000))), NOON)
    kinds = [key for key in of.snapshot().counters if key.startswith("events.")]
    assert len(kinds) <= 51
    assert of.snapshot().counters["events.other"] == 950


def test_a_failure_without_a_name() -> None:
    """It is counted as unknown if no name arrives in time, and is reported."""
    of = monitor()
    of.receive(deliver(body(raw("failed", exception="ValueError('x')"))), NOON)
    pass_time(of, 4 * int(Limits().name_wait))
    assert [series.key.name for series in of.snapshot().series] == ["unknown"]
    assert of.snapshot().counters["unnamed_failures"] == 1


@pytest.mark.parametrize("hostname", ["w\n1@box", "w\x001@box", "w@" + "h" * 300, "w@" + "\u0436" * 200])
def test_odd_hostnames(hostname: str) -> None:
    """The worker, its runs and its failures have the same name, which can be part of a page's path."""
    of = monitor()
    heartbeat = {"type": "worker-heartbeat", "timestamp": NOON, "hostname": hostname, "processed": 2, "active": 1}
    events = [raw(kind, uuid, name="t") for uuid in ("u1", "u2") for kind in ("received", "started")]
    events.append(raw("failed", "u2", exception="ValueError('x')"))
    of.receive(deliver(body(heartbeat), *(body(one | {"hostname": hostname}) for one in events)), NOON)
    (worker,) = of.snapshot().workers
    of.learn_queues({worker.hostname: ["mail"]})
    of.receive(deliver(body(raw("received", "u3", name="t3") | {"hostname": hostname})), NOON)
    assert [known.hostname for known in of.snapshot().workers] == [worker.hostname]
    changes = of.take(NOON)
    assert changes is not None
    assert {ref.host for _, ref in changes.tracked} == {worker.hostname}
    assert {failure.hostname for failure in changes.failures} == {worker.hostname}
    assert printable(worker.hostname, len(worker.hostname)) == worker.hostname
    assert "mail" in {series.key.queue for series in of.snapshot().series}


def test_queues() -> None:
    """The queue of task-sent, else the worker's only one, else the task's last one on that worker, else the default."""
    of = monitor(default_queue="dflt")
    of.learn_queues({"w1@box": ["mail"], "w2@box": ["a", "pay"], "w3@box": ["a", "b"]})
    of.receive(
        deliver(
            body(raw("received", "u1", name="t1") | {"hostname": "w1@box"}),
            body(raw("received", "u2", name="t2") | {"hostname": "w2@box"}),
            body(raw("sent", "u3", name="t3", queue="pay") | {"hostname": "gen@web"}),
            body(raw("received", "u4", name="t3") | {"hostname": "w2@box"}),
            body(raw("received", "u5", name="t3") | {"hostname": "w3@box"}),
            body(raw("received", "u6", name="t3") | {"hostname": "silent@box"}),
        ),
        NOON,
    )
    assert [(series.key.name, series.key.queue) for series in of.snapshot().series] == [
        ("t1", "mail"),
        ("t2", "dflt"),
        ("t3", "pay"),
        ("t3", "dflt"),
    ]


def test_a_clock_in_the_future() -> None:
    """Events more than a day ahead count at the time of reading, so that no bucket outlives the retention."""
    of = monitor()
    of.receive(deliver(body(raw("received", at=NOON + 10 * 86400, name="t"))), NOON)
    taken = of.take(NOON)
    assert taken is not None
    assert [bucket.start for bucket in taken.buckets] == [NOON]


def test_probes() -> None:
    """The monitor's own events are recognised by instance and number, and do not count as the fleet's."""
    of = monitor()
    probe = {"type": PROBE, "timestamp": NOON, "probe_instance": 77, "probe_number": 3}
    of.receive(deliver(json.dumps(probe).encode()), NOON + 0.5)
    assert of.take_probes() == [(77, 3)]
    assert of.take_probes() == []
    assert of.snapshot().lag == 0.5
    assert "discarded.unknown_type" not in of.snapshot().counters


def test_a_probe_tells_until_when_the_stream_was_read() -> None:
    """The newest probe's time is in the same flush as the events before it; another monitor's probe is ignored."""
    of = monitor(prober=77)
    assert "read_until" not in of.snapshot().counters
    for prober, at, until in ((77, 0.0, 0.0), (77, 5.0, 5.0), (78, 7200.0, 5.0), (77, 70.0, 70.0)):
        probe = {"type": PROBE, "timestamp": NOON + at, "probe_instance": prober, "probe_number": 3}
        of.receive(deliver(*life(f"task-{at}"), json.dumps(probe).encode()), NOON + 71.0)
        taken = of.take(NOON + 71.0)
        assert taken is not None
        assert taken.counters["read_until"] == NOON + until


def test_arguments_reach_a_failure_only_when_allowed() -> None:
    """And they are redacted."""
    events = [raw("received", name="t", args="('tok-123',)", kwargs="{}"), raw("failed", exception="E('x')")]
    for capture, args in ((False, None), (True, "('[redacted]',)")):
        of = monitor(capture_arguments=capture, redact=[re.compile("tok-[0-9]+")])
        of.receive(deliver(body(*events)), NOON)
        taken = of.take(NOON)
        assert taken is not None
        assert taken.failures[0].args == args
        assert taken.incidents[0].args == args


def test_a_secret_at_the_end_of_what_is_shown_of_arguments_is_redacted() -> None:
    """Arguments are shortened after the redaction, because half a secret matches no pattern."""
    secret = "tok-1234567890"
    for length in range(MAX_ARGUMENTS_LENGTH - len(secret) - 2, MAX_ARGUMENTS_LENGTH + 2):
        of = monitor(capture_arguments=True, redact=[re.compile("tok-[0-9]{10}")])
        received = raw("received", name="t", args="x" * length + secret + "y" * 5000)
        of.receive(deliver(body(received, raw("failed", exception="E('x')"))), NOON)
        taken = of.take(NOON)
        assert taken is not None
        shown = taken.failures[0].args or ""
        assert len(shown) == MAX_ARGUMENTS_LENGTH
        assert "tok-" not in shown


def test_an_incident_comes_with_the_counts_that_caused_it() -> None:
    """Count, sample, incident and outbox row are in one flush."""
    of = monitor()
    of.receive(deliver(*life("u1", end="failed", exception="ValueError('no')")), NOON + 5)
    taken = of.take(NOON + 5)
    assert taken is not None
    assert taken.series[0].counts[FAILED] == 1
    assert taken.failures[0].incident == taken.incidents[0].key == taken.outbox[0].key
    assert taken.counters["incidents.opened"] == 1


def test_an_incident_keeps_the_end_of_a_traceback_in_memory() -> None:
    """Only the part of a traceback that is sent is kept, because tens of thousands of incidents may be open."""
    of = monitor(policy=Policy(storm_tasks=10_000))
    tracemalloc.start()
    for number in range(100):
        failed = raw("failed", f"u{number}", exception="E('x')", traceback=f"{number}" * 16_000)
        of.receive(deliver(body(raw("received", f"u{number}", name=f"t{number}"), failed)), NOON)
    of.take(NOON)
    gc.collect()  # garbage is not kept, and when it goes is a matter of chance
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert allocated / 100 < 10_000


def test_the_hostname_label() -> None:
    """Each host has its own series, which are removed when the worker is purged."""
    of = monitor(hostname_label=True)
    of.receive(
        deliver(
            body({"type": "worker-heartbeat", "hostname": "w@pod-1", "timestamp": NOON, "processed": 0}),
            body(raw("received", name="t") | {"hostname": "w@pod-1"}),
        ),
        NOON,
    )
    assert [series.key.host for series in of.snapshot().series] == ["pod-1"]
    pass_time(of, 601)
    assert not of.snapshot().series


def test_hosts_come_and_go() -> None:
    """A host's series stay while it has a worker or sends tasks, and are then removed."""
    of = monitor(hostname_label=True)
    beats = {
        host: body({"type": "worker-heartbeat", "hostname": host, "timestamp": NOON, "processed": 0})
        for host in ("a@box", "b@box")
    }
    sent = body(raw("sent", "u1", name="t", queue="q") | {"hostname": "gen7@web"})
    received = body(raw("received", "u1", name="t") | {"hostname": "a@box"})
    of.receive(deliver(*beats.values(), sent, received), NOON)
    for minute in range(11):
        of.receive(deliver(beats["b@box"]), NOON + minute * 60)
        pass_time(of, 60, NOON + minute * 60)
    assert [one.hostname for one in of.snapshot().workers] == ["b@box"]
    assert [series.key.host for series in of.snapshot().series] == ["box"]
    of.stalled()
    pass_time(of, 1200, NOON + 660)
    of.connected(acknowledges=True)
    pass_time(of, 1200, NOON + 1860)
    assert [series.key.host for series in of.snapshot().series] == ["box"]
    of.flowing()
    of.tick(NOON + 90_000)  # the machine's clock was set, or it slept
    assert [series.key.host for series in of.snapshot().series] == ["box"]
    pass_time(of, 601, NOON + 90_000)
    assert (of.snapshot().workers, of.snapshot().series) == ([], [])


def test_failures_of_hosts_that_are_gone_stay() -> None:
    """They move to the series without a host, because a task's failures must not decrease. Otherwise nothing stays."""
    of = monitor(hostname_label=True)
    of.receive(
        deliver(
            *life("u1", "t", end="failed", exception="E('x')"),
            *life("u2", "fine"),
            body({"type": "worker-heartbeat", "hostname": "w1@box", "timestamp": NOON, "processed": 0}),
        ),
        NOON,
    )
    pass_time(of, 601)
    changes = of.take(NOON)
    assert changes is not None
    assert {key.host for key in changes.dropped_series} == {"box"}
    (rest,) = changes.series
    assert (rest.key, rest.counts[FAILED], sum(rest.counts)) == (SeriesKey("t", "pay", ""), 1, 1)
    assert of.snapshot().series == [rest]


def test_queues_of_workers_that_are_gone_are_forgotten() -> None:
    """A worker that misses one answer keeps its queues while it is alive."""
    of = monitor()
    of.learn_queues({"w@box": ["mail"], "silent@box": ["pay"]})
    for second in range(0, 900, 60):
        pass_time(of, 60, NOON + second)
        of.receive(deliver(body({"type": "worker-heartbeat", "hostname": "w@box", "timestamp": NOON})), NOON)
    of.learn_queues({})
    for number, host in enumerate(("w@box", "silent@box")):
        of.receive(deliver(body(raw("received", f"u{number}", name=f"t{number}") | {"hostname": host})), NOON)
    assert [series.key.queue for series in of.snapshot().series] == ["mail", "celery"]


def test_tasks_that_are_yet_to_come_go_with_their_workers() -> None:
    """A registered task that never ran disappears with the last worker that has it registered."""
    of = monitor()
    beats = [{"type": "worker-heartbeat", "hostname": f"w@{host}", "timestamp": NOON} for host in ("old", "new")]
    of.receive(deliver(body(*beats)), NOON)
    of.learn_queues({"w@old": ["pay"], "w@new": ["pay"]})
    of.learn_names({"w@old": ["shop.kept", "shop.gone"], "w@new": ["shop.kept"]})
    assert of.snapshot().registered == (("shop.kept", "pay"), ("shop.gone", "pay"))
    pass_time(of, 500)
    of.receive(deliver(body(beats[1])), NOON + 500)
    pass_time(of, 101, NOON + 500)
    assert of.snapshot().registered == (("shop.kept", "pay"),)


def test_a_task_over_the_limit_of_names_is_not_shown_at_0() -> None:
    """Its failures are counted as other, so its own series would stay at 0 forever."""
    of = monitor(max_task_names=2)
    of.learn_names({"w@box": ["t1", "zzz"]})
    assert of.snapshot().registered == (("t1", "celery"), ("zzz", "celery"))
    for name in ("t1", "t2", "zzz"):
        of.receive(deliver(body(raw("received", name, name=name) | {"hostname": "w@box"})), NOON)
    assert [series.key.name for series in of.snapshot().series] == ["t1", "t2", "other"]
    assert of.snapshot().registered == (("t1", "celery"),)
