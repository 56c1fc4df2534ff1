"""Values as earlier versions stored them. The names of stored fields and of the values of enumerations never change."""

import msgspec
import pytest

from celery_monitor.adapters.channels.email.progress import Progress
from celery_monitor.adapters.store import encode, tracked_journal
from celery_monitor.core.model import (
    Action,
    Condition,
    CounterFamily,
    CounterName,
    Event,
    Incident,
    IncidentOutline,
    IncidentState,
    Outcome,
    Reason,
    ReportedBy,
    ScheduledRun,
    ScheduleState,
    Severity,
    TaskDetails,
    TaskRef,
    TaskStarts,
)
from celery_monitor.errors import StoreUnusableError

INCIDENT = (
    '{"key":"k","fleet":"shop","task":"t","rule":"r","route":"night","severity":"critical","state":"open",'
    '"reason":"opened","hour":"2026-11-23T12Z","opened_at":1.5,"first_at":2.5,"last_at":3.5,"count":4,"threshold":5,'
    '"exceptions":{"E":6},"workers":{"w":7},"queues":{"q":8},"tasks":{"t":9},"samples":["u"],"message":"m",'
    '"traceback":"tb","args":"a","kwargs":"kw","runbook_url":"https://r","last_uuid":"u9","sent_count":3,'
    '"succeeded_at":4.5,"silenced":2,"condition":"lost","subject":"s","details":[["label","value"]],"unwatched":5.5,'
    '"links":[["logs","https://l"]],"channels":["c"]}'
)
EVENT = (
    '{"type":"task-failed","timestamp":1.5,"hostname":"h","uuid":"u","name":"n","queue":"q","eta":"e","expires":"x",'
    '"runtime":2.5,"exception":"ex","traceback":"tb","args":"a","kwargs":"k","requeue":true,"retries":1,"root_id":"r",'
    '"parent_id":"p","active":2,"processed":3,"pid":4,"loadavg":[0.5,0.25,0.125],"sw_ident":"i","sw_ver":"v",'
    '"sw_sys":"s","probe_instance":5,"probe_number":6}'
)
SCHEDULE = (
    '{"name":"n","spec":"every 5m","task":"t","due":1.5,"watched_since":2.5,"since":3.5,"missed":4,"told":"waits",'
    '"runs":[{"uuid":"u","at":5.5,"hostname":"h","outcome":"failed","ended_at":6.5}],"sent_at":7.5,"received_at":8.5,'
    '"received_by":"b","unjudged":[9.5,10.5]}'
)
TRACKED_BEFORE_0024 = (
    b"\x9c\xa1n\xa1q\x02\xcb?\xf8\x00\x00\x00\x00\x00\x00\xcb@\x04\x00\x00\x00\x00\x00\x00\x03\xc2\xa1h\x91\x9c\xa1m"
    b"\xc0\x05\xcb\x00\x00\x00\x00\x00\x00\x00\x00\xcb\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc2\xa1g\xc0\xcb\x00\x00\x00"
    b"\x00\x00\x00\x00\x00\xcb\x00\x00\x00\x00\x00\x00\x00\x00\xc0\xcb@\x12\x00\x00\x00\x00\x00\x00\xcb@\x16\x00\x00\x00"
    b"\x00\x00\x00\x85\xa3eta\xcb@\x1a\x00\x00\x00\x00\x00\x00\xa7retries\x01\xa4root\xa1r\xa6parent\xa1p\xa7expires"
    b"\xcb@\x1e\x00\x00\x00\x00\x00\x00"
)
"""Of the journal ``tracked_changes``, when ``saved`` was true or false."""
TRACKED = TRACKED_BEFORE_0024.replace(b"\xc2", b"\x07")
"""The same with the number 7 for ``saved``."""


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        (
            INCIDENT,
            Incident(
                "k", "shop", "t", "r", "night", Severity.CRITICAL, IncidentState.OPEN, Reason.OPENED, "2026-11-23T12Z",
                1.5, 2.5, 3.5, 4, 5, {"E": 6}, {"w": 7}, {"q": 8}, {"t": 9}, ("u",), "m", "tb", "a", "kw", "https://r",
                "u9", 3, 4.5, 2, Condition.LOST, "s", (("label", "value"),), 5.5, (("logs", "https://l"),),
                ("c",),
            ),
        ),
        (
            INCIDENT,
            IncidentOutline(
                "k", "t", Severity.CRITICAL, IncidentState.OPEN, 2.5, 3.5, 4, Condition.LOST, "s", {"E": 6}, {"t": 9}
            ),
        ),
        (
            EVENT,
            Event(
                type="task-failed", timestamp=1.5, hostname="h", uuid="u", name="n", queue="q", eta="e", expires="x",
                runtime=2.5, exception="ex", traceback="tb", args="a", kwargs="k", requeue=True, retries=1,
                root_id="r", parent_id="p", active=2, processed=3, pid=4, loadavg=(0.5, 0.25, 0.125), sw_ident="i",
                sw_ver="v", sw_sys="s", probe_instance=5, probe_number=6,
            ),
        ),
        (
            SCHEDULE,
            ScheduleState(
                "n", "every 5m", "t", 1.5, 2.5, 3.5, 4, ReportedBy.WAITS,
                (ScheduledRun("u", 5.5, "h", Outcome.FAILED, 6.5),), 7.5, 8.5, "b", (9.5, 10.5),
            ),
        ),
        ('{"name":"n","starts":[1.5,2.5]}', TaskStarts("n", (1.5, 2.5))),
    ],
)  # fmt: skip
def test_json(stored: str, value: msgspec.Struct) -> None:
    """Every field of a stored text is read. A field whose name was changed would silently have its default."""
    assert encode.parsed(stored, type(value)) == value


def tracked(saved: int, saved_of_run: int) -> TaskRef:
    """The value of TRACKED."""
    other = TaskRef("m", None, 5, saved=saved_of_run, host="g")
    details = TaskDetails(eta=6.5, retries=1, root="r", parent="p", expires=7.5)
    return TaskRef("n", "q", 2, 1.5, 2.5, 3, saved, "h", [other], 4.5, 5.5, details)


def test_tracked_task() -> None:
    """The fields are stored in their order, those of its details by name."""
    assert msgspec.msgpack.decode(TRACKED, type=TaskRef) == tracked(7, 7)


def test_tracked_changes_before_0024() -> None:
    """Tasks and removed IDs have the number that the migration gave to the rows of the table."""
    body = b"\x92\x91\x92\xa1u" + TRACKED_BEFORE_0024 + b"\x91\xa1v"
    assert tracked_journal._decoded(body) == ([("u", tracked(1, 0))], [("v", 1)])


@pytest.mark.parametrize(
    ("stored", "run"),
    [
        ('[["n","q",2,1.5,2.5,"h"]]', TaskRef("n", "q", 2, 1.5, 2.5, host="h")),  # version 0.2.0
        (
            '[["n",null,2,1.5,2.5,3,7,"h",null,4.5,5.5,{"eta":6.5,"retries":1,"root":"r","parent":"p","expires":7.5}]]',
            TaskRef("n", None, 2, 1.5, 2.5, 3, 7, "h", None, 4.5, 5.5, TaskDetails(6.5, 1, "r", "p", 7.5)),
        ),
    ],
)
def test_further_runs(stored: str, run: TaskRef) -> None:
    """The runs of a row, also those that an earlier version stored with fewer fields."""
    assert encode.runs_value(stored) == [run]


@pytest.mark.parametrize("stored", ["", "[[1]]", '[["n"'])
def test_further_runs_that_were_changed_by_hand(stored: str) -> None:
    """They are refused with a remedy."""
    with pytest.raises(StoreUnusableError, match="restore a backup"):
        encode.runs_value(stored)


def test_progress_of_a_mail() -> None:
    """Recipients that have it or were refused get it no more, and an unknown outcome stays unknown."""
    text = '{"taken":["a@x"],"refused":{"b@x":"550 no"},"unknown":{"c@x":3},"claimed":["d@x"],"attempt":2}'
    progress, people = Progress(text, lambda _: None), ["a@x", "b@x", "c@x", "d@x", "e@x"]
    progress.begin(3)
    assert progress.pending(people) == ["e@x"]
    assert progress.accepted(people) == ["a@x"]
    assert progress.refused(people) == {"b@x": "550 no"}
    assert progress.unknown(people) == ["c@x", "d@x"]


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        (Reason, "opened joined reopened below_threshold silenced muted too_old storm_opened storm_joined"),
        (IncidentState, "suppressed open resolved expired"),
        (Severity, "critical error warning info"),
        (Condition, "failure runtime waiting lost backlog no_worker missed"),
        (Outcome, "running succeeded failed retried rejected revoked"),
        (ReportedBy, "nothing waits its_own scheduler"),
        (Action, "trigger resolve report"),
        (CounterFamily, "events discarded incidents lost missed unjudged limit"),
        (
            CounterName,
            (
                "messages starts uptime_seconds stream_gap_seconds reconnects unobserved unnamed_failures "
                "too_old_failures silenced_failures store_rolled_back evicted task_names_over_limit read_until alive_at"
            ),
        ),
    ],
)
def test_enumerations(kind: type[Reason], stored: str) -> None:
    """Their stored values are still values of them."""
    assert {*stored.split()} <= {member.value for member in kind}
