"""The whole exposition: formats, contents, and linters."""

import gzip
import shutil
import subprocess
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings

from celery_monitor.adapters.prometheus.exposition import Format
from celery_monitor.adapters.prometheus.families import FAMILIES, OF_THE_PROCESS
from celery_monitor.adapters.prometheus.runtime_stats import RuntimeStats
from celery_monitor.core.model import Limit, QueueStats, ScheduledRun, ScheduleState, Snapshot
from celery_monitor.ports import StoreSpace
from celery_monitor.settings.metrics import MetricsSettings
from tests.adapters.prometheus import parsing
from tests.adapters.prometheus.snapshots import (
    OPENMETRICS,
    exposition,
    histogram,
    rendered,
    series,
    snapshot,
    snapshots,
    worker,
)
from tests.properties import examples

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,/;q=0.1"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

FULL = snapshot(
    series(failed=1, exceptions={"ValueError": 1}, exemplar=("ValueError", "id", 1_700_000_000.5)),
    workers=[worker(), worker("celery@other", up=False, sw_ident="py-celery", sw_ver="5.4.0", sw_sys="Linux")],
    counters={"messages": 7, "events.task-failed": 3, "discarded.duplicate": 1, "stream_gap_seconds": 1.5, "lost.a": 2}
    | {"missed.nightly": 4, "unjudged.nightly": 1, "silenced_failures": 9},
    schedules=[
        ScheduleState(
            "nightly",
            "0 3 * * * UTC",
            "shop.report",
            1_700_000_100.0,
            0.0,
            1_699_900_000.0,
            2,
            runs=(ScheduledRun("u", 1_699_800_000.5),),
        ),
    ],
    silences_active=3,
    mute_windows_active=1,
    oldest_started={"shop.charge": 1_700_000_000.0 - 90},
    load={"celery": 3},
    incidents_by_condition={"failure": 1},
    incidents={"opened": 1},
    incidents_open=1,
    tracked=3,
    lag=0.2,
    probe_roundtrip=0.01,
    limits=[Limit("series", "metrics.max_series", 10, 7, 3), Limit("exceptions", None, None, None, 2)],
)
QUEUES = [QueueStats("celery", 5, 2, 1, 8), QueueStats("unknown", None, None, 0, 0)]
STATS = RuntimeStats(
    thread_failures={"fleet": 1},
    sign_ins_refused={"wrong": 3, "throttled": 0},
    commits=histogram(1, 2, total=0.5),
    broker_connected=True,
    unacked_messages=11,
    commit_failures=2,
    store=StoreSpace(used=4096, room=1024, given_up={"samples": 6}),
    channels=["pagerduty", "email"],
    outbox={"pagerduty": (3, 1_699_999_990.0)},
    notifications={("pagerduty", "delivered"): 4},
    report_last_success=1_699_990_000.0,
)


def value(text: str, sample: str) -> float:
    """The number in the only line that begins with ``sample``."""
    (line,) = [line for line in text.splitlines() if line.startswith(sample + " ")]
    return float(line.rpartition(" ")[2])


def test_what_is_under_way() -> None:
    """The age of the oldest run; losses, at 0 once a task runs; ready and fetched tasks as one load."""
    text = rendered(FULL, queues=QUEUES)
    assert value(text, 'celery_task_oldest_started_seconds{name="shop.charge"}') == 90
    assert value(text, 'celery_task_lost_total{name="shop.charge"}') == 0
    assert value(text, 'celery_task_lost_total{name="a"}') == 2
    assert value(text, 'celery_queue_load{queue_name="celery"}') == 8
    assert 'celery_queue_load{queue_name="unknown"}' not in text
    assert value(text, 'celery_monitor_incidents_open_by_condition{condition="failure"}') == 1
    assert value(text, 'celery_monitor_incidents_open_by_condition{condition="lost"}') == 0


@pytest.mark.parametrize("form", [Format(openmetrics=False, gzip=False), OPENMETRICS])
def test_a_standby_shows_nothing_of_the_fleet(form: Format) -> None:
    """Only metrics of its own process: a series of the fleet must not have two values."""
    scrape = exposition(FULL, queues=QUEUES, stats=replace(STATS, leader=False)).render(form)
    lines = b"".join(scrape.body).decode().splitlines()
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    wanted = {f"celery_{one.sample if form is not OPENMETRICS else one.name}" for one in OF_THE_PROCESS}
    assert {name for name in names if not name.startswith("process_")} == wanted
    assert "celery_monitor_leader 0.0" in lines
    assert "celery_monitor_leader 1.0" in rendered(FULL).splitlines()


@given(snapshots)
@settings(max_examples=examples(30))
def test_parses_whatever_the_fleet_sends(shown: Snapshot) -> None:
    """Both formats parse to the same values for any names, hosts and types."""
    text = {family.name: family for family in parsing.plain(rendered(shown))}
    strict = {family.name: family for family in parsing.openmetrics(rendered(shown, OPENMETRICS))}
    for name, family in strict.items():
        if name.startswith("process_"):
            continue
        other = text[name + "_info" if family.type == "info" else name]
        assert [(one.name, one.labels, one.value) for one in family.samples] == [
            (one.name, one.labels, one.value) for one in other.samples
        ]


@pytest.mark.parametrize("size", [1, 700, 5_000, 60_000, 1_000_000])
def test_gzip_in_blocks_of_any_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks longer than a block, equal to one, or sharing one are compressed once and in order."""
    shown = snapshot(*(series(f"shop.task{number}", started=number) for number in range(300)))
    plain = rendered(shown, Format(openmetrics=True, gzip=False))
    monkeypatch.setattr("celery_monitor.adapters.prometheus.exposition._PACKED_AT_ONCE", size)
    packed = exposition(shown).render(Format(openmetrics=True, gzip=True))
    assert _without_process(gzip.decompress(b"".join(packed.body)).decode()) == _without_process(plain)


@pytest.mark.parametrize("form", [Format(openmetrics=False, gzip=True), Format(openmetrics=True, gzip=True)])
def test_gzip_is_the_same_text(form: Format) -> None:
    """Text compressed in portions decompresses to the plain text, with the standard library and gzip."""
    shown = snapshot(*[series(name=f"task{number}", failed=number) for number in range(1000)])
    (body,) = exposition(shown).render(form).body
    plain = rendered(shown, Format(openmetrics=form.openmetrics, gzip=False))
    unpacked = gzip.decompress(body).decode()
    assert _without_process(unpacked) == _without_process(plain)
    done = subprocess.run(["gzip", "-dc"], input=body, capture_output=True, check=True)
    assert (done.stdout.decode(), done.stderr) == (unpacked, b"")


def test_a_scrape_is_packed_in_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call releases the interpreter lock, which another busy thread returns only after 5 ms."""
    calls: list[int] = []

    class CountingPacker:
        def __init__(self, *arguments: int) -> None:
            self._packer = zlib.compressobj(arguments[0], zlib.DEFLATED, arguments[2])
            self.flush = self._packer.flush

        def compress(self, block: bytes) -> bytes:
            calls.append(len(block))
            return self._packer.compress(block)

    monkeypatch.setattr("celery_monitor.adapters.prometheus.exposition.isal_zlib.compressobj", CountingPacker)
    shown = snapshot(*[series(name=f"task{number}", failed=number) for number in range(4000)])
    (body,) = exposition(shown).render(Format(openmetrics=True, gzip=True)).body
    assert sum(calls) == len(gzip.decompress(body)) > 4 * 1024 * 1024
    assert len(calls) <= sum(calls) // 900_000 + 1


def test_a_large_answer_is_kept_compressed() -> None:
    """Also for a slow client without gzip: the text is the same each time it is sent."""
    shown = snapshot(*[series(name=f"task{number}", failed=number) for number in range(4000)])
    made, packed = (exposition(shown).render(Format(openmetrics=False, gzip=packed)) for packed in (False, True))
    assert "content-encoding" not in dict(made.headers)
    first, second = iter(made.body), iter(made.body)
    bodies = [b"".join([next(first), next(second)][:1] + list(first)), b"".join(made.body)]
    assert bodies[0] == bodies[1]
    assert len(bodies[0]) == made.length > 4 * 1024 * 1024
    assert made.length > 10 * packed.length
    assert len(made.body.data) < made.length / 10  # type: ignore[attr-defined]  # what is held of it
    plain = gzip.decompress(b"".join(packed.body)).decode()
    assert _without_process(bodies[0].decode()) == _without_process(plain)


def _without_process(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("process_")]


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; Version=1.0.0; q=0.5", True),
        ("application/openmetrics-text;q=0.4, text/plain;q=0.6", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=none", False),
        (BROWSER, False),
        ("*/*", False),
        ("", False),
        (";,;;=,", False),
    ],
)
def test_format_is_negotiated(accept: str, *, openmetrics: bool) -> None:
    """OpenMetrics for clients that request it and do not prefer text; otherwise text."""
    assert exposition(None).choose(accept, "").openmetrics is openmetrics


@pytest.mark.parametrize(
    ("encoding", "compressed"),
    [("gzip", True), ("deflate, gzip;q=0.5", True), ("br", False), ("", False), ("gzip;q=0", False)],
)
def test_encoding_is_negotiated(encoding: str, *, compressed: bool) -> None:
    """Gzip for clients that accept it."""
    assert exposition(None).choose("", encoding).gzip is compressed


def test_headers_say_what_it_is() -> None:
    """The content type has the version of the format, and the encoding is set."""
    headers = dict(exposition(None).render(Format(openmetrics=True, gzip=True)).headers)
    assert headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert headers["content-encoding"] == "gzip"
    headers = dict(exposition(None).render(Format(openmetrics=False, gzip=False)).headers)
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "content-encoding" not in headers


def test_promtool_has_nothing_to_say() -> None:
    """``promtool check metrics`` reports nothing about names, types, units and help texts."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    text = rendered(FULL, queues=QUEUES, stats=STATS)
    done = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_family_is_there() -> None:
    """Each metric of the table is exported with its type, and no other."""
    found = {family.name: family for family in parsing.openmetrics(rendered(FULL, OPENMETRICS, queues=QUEUES))}
    ours = {name: family.type for name, family in found.items() if not name.startswith("process_")}
    assert ours == {f"celery_{family.name}": family.kind for family in FAMILIES}


def test_samples_have_the_labels_of_the_table() -> None:
    """Each sample has the labels of the table and the static ones."""
    chosen = MetricsSettings(static_labels={"env": "test"}, hostname_label=True)
    found = parsing.openmetrics(rendered(FULL, OPENMETRICS, queues=QUEUES, stats=STATS, settings=chosen))
    tables = {f"celery_{family.name}": {*family.labels, "env"} for family in FAMILIES}
    for family in found:
        assert family.samples
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == tables.get(family.name, {"env"}), sample


def test_schedules_and_silences() -> None:
    """Last runs, missed starts, and active silences."""
    text, labels = rendered(FULL), '{name="shop.report",schedule="nightly"}'
    assert value(text, f"celery_schedule_last_run_timestamp_seconds{labels}") == 1_699_800_000.5
    assert value(text, f"celery_schedule_missing{labels}") == 2
    assert value(text, f"celery_schedule_missed_total{labels}") == 4
    assert value(text, f"celery_schedule_not_judged_total{labels}") == 1
    assert value(text, 'celery_monitor_silences_active{kind="silence"}') == 3
    assert value(text, 'celery_monitor_silences_active{kind="mute_window"}') == 1
    assert value(text, "celery_monitor_silenced_failures_total") == 9


def test_bounds() -> None:
    """The usage of each limit, and how often it was exceeded; no value if there is none."""
    text = rendered(FULL)
    assert value(text, 'celery_monitor_limit{limit="series"}') == 10
    assert value(text, 'celery_monitor_limit_used{limit="series"}') == 7
    assert value(text, 'celery_monitor_limit_exceeded_total{limit="series"}') == 3
    assert value(text, 'celery_monitor_limit_exceeded_total{limit="exceptions"}') == 2
    assert 'celery_monitor_limit_used{limit="exceptions"}' not in text


def test_nothing_of_the_fleet_before_the_store_was_read() -> None:
    """During the start, no counter of the fleet has a 0 that would look like a reset."""
    names = {family.name for family in parsing.plain(rendered(None))}
    assert "celery_monitor_broker_connected" in names
    assert "celery_monitor_build_info" in names
    assert not {name for name in names if name.startswith(("celery_task", "celery_worker", "celery_monitor_events"))}


def test_figures_of_the_runtime() -> None:
    """The loops' figures have their names, and the age of the oldest notification is current."""
    text = rendered(FULL, stats=STATS)
    assert value(text, "celery_monitor_broker_connected") == 1
    assert value(text, "celery_monitor_unacked_messages") == 11
    assert value(text, "celery_monitor_commit_failures_total") == 2
    assert value(text, "celery_monitor_store_bytes") == 4096
    assert value(text, "celery_monitor_store_room_bytes") == 1024
    assert value(text, 'celery_monitor_store_given_up_total{what="samples"}') == 6
    assert value(text, 'celery_monitor_store_given_up_total{what="groups"}') == 0
    assert value(text, 'celery_monitor_commit_seconds_bucket{le="0.25"}') == 3
    assert value(text, 'celery_monitor_outbox_pending{channel="pagerduty"}') == 3
    assert value(text, 'celery_monitor_outbox_oldest_seconds{channel="pagerduty"}') == 10
    assert value(text, 'celery_monitor_outbox_oldest_seconds{channel="email"}') == 0
    assert value(text, 'celery_monitor_notifications_total{channel="pagerduty",outcome="delivered"}') == 4
    assert value(text, 'celery_monitor_notifications_total{channel="email",outcome="dead"}') == 0
    assert value(text, "celery_monitor_report_last_success_timestamp_seconds") == 1_699_990_000


def test_counters_of_the_snapshot() -> None:
    """The monitor's own counters have their names; unused ones are 0."""
    text = rendered(FULL)
    assert value(text, "celery_monitor_messages_total") == 7
    assert value(text, 'celery_monitor_events_total{type="task-failed"}') == 3
    assert value(text, 'celery_monitor_events_discarded_total{reason="duplicate"}') == 1
    assert value(text, 'celery_monitor_events_discarded_total{reason="redelivered"}') == 0
    assert value(text, "celery_monitor_stream_gap_seconds_total") == 1.5
    assert value(text, 'celery_monitor_incidents_total{reason="opened"}') == 1
    assert value(text, 'celery_monitor_incidents_total{reason="too_old"}') == 0


def test_what_is_not_known_is_absent() -> None:
    """An unknown lag, probe, report or queue length has no sample instead of 0."""
    text = rendered(snapshot(), queues=QUEUES)
    samples = {line.partition(" ")[0] for line in text.splitlines()}
    assert not samples & {
        "celery_monitor_event_lag_seconds",
        "celery_monitor_probe_roundtrip_seconds",
        "celery_monitor_report_last_success_timestamp_seconds",
        'celery_queue_length{queue_name="unknown"}',
    }
    assert value(text, 'celery_queue_length{queue_name="celery"}') == 5


def test_workers_of_one_host_share_their_series() -> None:
    """The label is the part after the @: a host is up while any of its workers is, and tasks are summed."""
    workers = [worker("a@box", up=False, active=1, processed=10), worker("b@box", active=2, processed=5, unobserved=3)]
    text = rendered(snapshot(workers=workers))
    assert value(text, 'celery_worker_up{hostname="box"}') == 1
    assert value(text, 'celery_worker_tasks_active{hostname="box"}') == 3
    assert value(text, 'celery_worker_processed_total{hostname="box"}') == 15
    assert value(text, 'celery_monitor_unobserved_tasks_total{hostname="box"}') == 3


def test_a_worker_that_is_down() -> None:
    """A host whose workers are all down has worker_up 0."""
    assert value(rendered(snapshot(workers=[worker("a@box", up=False)])), 'celery_worker_up{hostname="box"}') == 0
