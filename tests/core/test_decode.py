"""Decoding of messages into events."""

import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_monitor.core.decode import (
    CONTENT_TYPE,
    MALFORMED,
    MAX_EVENTS,
    POISON,
    TOO_MANY_EVENTS,
    Discarded,
    decode,
    events_of,
)
from celery_monitor.core.json_array import MAX_SCANNED_TOKENS, split_array
from celery_monitor.core.model import Delivery, Event
from tests.builders import NOON, body, raw, recorded
from tests.properties import examples


def kinds(found: list[Event | Discarded]) -> list[str]:
    """The type of each event and the reason of each discarded one."""
    return [one.reason if isinstance(one, Discarded) else one.type for one in found]


def test_one_event() -> None:
    """A body may be one event."""
    (one,) = decode(body(raw("sent", name="a.b", queue="q")), "application/json")
    assert isinstance(one, Event)
    assert (one.type, one.uuid, one.timestamp, one.name, one.queue) == ("task-sent", "u1", NOON, "a.b", "q")


@pytest.mark.parametrize("version", ["4.4.7", "5.7.0"])
def test_fields_are_in_the_order_of_real_events(version: str) -> None:
    """Workers send the fields of an event in the order of the class, which makes decoding fast."""
    fields = Event.__struct_fields__
    for delivery in recorded(version):
        decoded = json.loads(delivery.body)
        for fields_sent in decoded if isinstance(decoded, list) else [decoded]:
            if fields_sent["type"] != "task-sent":  # sent by clients, with the IDs before the name
                positions = [fields.index(name) for name in fields_sent if name in fields]
                assert positions == sorted(positions), fields_sent["type"]


def test_a_list_of_events() -> None:
    """A body may be a list of events, which keep their order; an empty list has none."""
    assert kinds(decode(body(raw("received"), raw("started")), "application/json")) == [
        "task-received",
        "task-started",
    ]
    assert decode(b"[]", "application/json") == []


@pytest.mark.parametrize("content_type", ["application/x-python-serialize", "application/x-yaml", "", "text/json"])
def test_other_content_types_are_refused(content_type: str) -> None:
    """Only JSON is read: a pickle is code."""
    assert kinds(decode(body(raw("sent")), content_type)) == [CONTENT_TYPE]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_by_other_spellings(content_type: str) -> None:
    """Parameters and case of the content type are ignored."""
    assert kinds(decode(body(raw("sent")), content_type)) == ["task-sent"]


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{",
        b"null",
        b"3",
        b'"text"',
        b'{"type": "task-sent"}',
        b'{"timestamp": 1, "uuid": "u"}',
        b'{"type": 3, "timestamp": 1, "uuid": "u"}',
        b'{"type": "task-sent", "timestamp": "now", "uuid": "u"}',
        b'{"type": "task-sent", "timestamp": true, "uuid": "u"}',
        b'{"type": "task-sent", "timestamp": -1, "uuid": "u"}',
        b'{"type": "task-sent", "timestamp": 1e300, "uuid": "u"}',
        b'{"type": "task-sent", "timestamp": 1e999, "uuid": "u"}',
        b'{"type": "task-sent", "timestamp": NaN, "uuid": "u"}',
        b'{"type": "task-sent", "timestamp": 1, "uuid": null}',
        b'{"type": "task-sent", "timestamp": 1, "uuid": 7}',
        b'{"type": "task-sent", "timestamp": 1, "uuid": "' + b"u" * 300 + b'"}',
        b'{"type": "' + b"t" * 200 + b'", "timestamp": 1}',
        b'{"timestamp": ' + b"9" * 5000 + b', "type": "task-sent", "uuid": "u"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=lambda bad: repr(bad[:60]),
)
def test_what_cannot_be_counted_is_malformed(bad: bytes) -> None:
    """Without a type, a usable timestamp, a usable uuid or valid JSON: one discarded message, no exception."""
    assert kinds(decode(bad, "application/json")) == [MALFORMED]


@pytest.mark.parametrize("digits", [25, 400, 5_000, 100_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_a_number_of_thousands_of_digits(digits: int, sign: str) -> None:
    """It discards its event only if the event needs the number, and never the others of the list."""
    good, huge = json.dumps(raw("sent")), sign + "9" * digits
    timed = good.replace(json.dumps(NOON), huge)
    unneeded = good[:-1] + f', "retries": {huge}, "pid": {huge}, "runtime": {huge}}}'
    assert huge in timed
    found = decode(f"[{good}, {timed}, {unneeded}, 5, {huge}, {good}]".encode(), "application/json")
    assert kinds(found) == ["task-sent", MALFORMED, "task-sent", MALFORMED, MALFORMED, "task-sent"]
    assert isinstance(found[2], Event)
    assert (found[2].pid, found[2].runtime) == (None, None)


def test_a_malformed_event_costs_only_itself() -> None:
    """The others of its list are counted."""
    found = decode(json.dumps([raw("sent"), {"type": 1}, 7, None, raw("failed")]).encode(), "application/json")
    assert kinds(found) == ["task-sent", MALFORMED, MALFORMED, MALFORMED, "task-failed"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("runtime", "long"),
        ("runtime", 1e308),
        ("runtime", -1.0),
        ("processed", -1),
        ("eta", 5),
        ("name", ["a"]),
        ("requeue", "yes"),
        ("pid", 10**400),
        ("active", 1.5),
        ("retries", "two"),
        ("root_id", "x" * 256),
        ("parent_id", 5),
        ("loadavg", [1, 2]),
        ("loadavg", [1, 2, "3"]),
        ("loadavg", 1.5),
    ],
)
def test_a_field_that_is_not_needed_may_be_anything(field: str, value: Any) -> None:
    """A wrong type makes the field unknown; the event counts."""
    (one,) = decode(body(raw("succeeded") | {field: value}), "application/json")
    assert isinstance(one, Event)
    assert getattr(one, field) is None


def test_lone_surrogates_do_not_cost_a_failure() -> None:
    """Python sends lone surrogates in an exception's text unchanged; they are replaced, and the failure counts."""
    (one,) = decode(body(raw("failed", exception="OSError('\udcff')")), "application/json")
    assert isinstance(one, Event)
    assert one.exception == "OSError('?')"


def test_invalid_utf8_in_a_text_does_not_cost_the_event() -> None:
    """Invalid UTF-8 is replaced."""
    (one,) = decode(body(raw("failed", exception="XX")).replace(b"XX", b"\xff\xfe"), "application/json")
    assert isinstance(one, Event)
    assert one.exception == "\ufffd\ufffd"


def test_null_runtime() -> None:
    """Celery 5.7 sends ``runtime: null``."""
    (one,) = decode(body(raw("succeeded", runtime=None)), "application/json")
    assert isinstance(one, Event)
    assert one.runtime is None


_SCALARS = st.none() | st.booleans() | st.floats() | st.text() | st.integers()


@settings(max_examples=examples(40))
@given(st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_json_gives_an_answer(value: Any) -> None:
    """Any JSON gives an event or a reason for each element, and no exception."""
    found = decode(json.dumps(value).encode(), "application/json")
    assert len(found) == (len(value) if isinstance(value, list) else 1)


@given(
    st.fixed_dictionaries(
        {"type": st.just("task-failed"), "uuid": st.text(min_size=1, max_size=40), "timestamp": st.floats(0, 1e11)},
        optional={
            name: st.none() | st.text() | st.integers() | st.floats() | st.lists(st.integers())
            for name in ("name", "queue", "exception", "traceback", "runtime", "pid", "hostname", "requeue", "eta")
        },
    )
)
def test_a_usable_event_counts_whatever_its_other_fields_hold(value: dict[str, Any]) -> None:
    """Both decoders accept every event with a valid type, uuid and timestamp."""
    (one,) = decode(json.dumps(value).encode(), "application/json")
    assert isinstance(one, Event)
    assert one.timestamp == value["timestamp"]


@given(st.data())
def test_mutated_recordings(data: st.DataObject) -> None:
    """Real messages with a few changed bytes never raise."""
    delivery = data.draw(st.sampled_from(recorded("5.7.0")))
    changed = bytearray(delivery.body)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    assert decode(bytes(changed), "application/json")


MSGPACK = "application/x-msgpack"


def test_msgpack() -> None:
    """Messages of kombu's serializer msgpack are read like JSON: one event or a list, with the same oddities."""
    found = decode(msgspec.msgpack.encode([raw("sent"), raw("failed"), {"type": 1}, 7]), MSGPACK)
    assert kinds(found) == ["task-sent", "task-failed", MALFORMED, MALFORMED]
    assert decode(msgspec.msgpack.encode(raw("sent", name="a.b")), MSGPACK) == decode(
        body(raw("sent", name="a.b")), "application/json"
    )
    assert kinds(decode(msgspec.msgpack.encode(raw("succeeded") | {"runtime": "long"}), MSGPACK)) == ["task-succeeded"]


@pytest.mark.parametrize(
    "bad", [b"", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\x81\x80\x80", b"\x91" * 100_000]
)
def test_bad_msgpack(bad: bytes) -> None:
    """It is one discarded message, whatever lengths it declares."""
    assert kinds(decode(bad, MSGPACK)) in ([MALFORMED], [TOO_MANY_EVENTS])


@given(st.binary(max_size=200))
def test_any_msgpack(data: bytes) -> None:
    """No input raises."""
    decode(data, MSGPACK)


def test_a_refused_message_is_not_decoded() -> None:
    """The reason is that of the refusal."""
    assert events_of(Delivery(body(raw("sent")), refused=POISON)) == [Discarded(POISON)]


GOOD = b'{"type":"a","timestamp":1}'
MIB = 1 << 20
BOMBS = [
    (b"[" + b"{}," * (8 * MIB // 3) + b"{}]", [MALFORMED] * MAX_EVENTS + [TOO_MANY_EVENTS]),
    (b"[" + b"0," * (4 * MIB) + b"0]", [MALFORMED] * MAX_EVENTS + [TOO_MANY_EVENTS]),
    (b"[" + b"," * (8 * MIB) + b"]", [MALFORMED] * MAX_EVENTS + [TOO_MANY_EVENTS]),
    (b"[" + (GOOD[:-1] + b',"x":NaN},') * 200_000 + b"0]", ["a"] * MAX_EVENTS + [TOO_MANY_EVENTS]),
    (b"[" + (GOOD + b",") * 300_000 + GOOD + b"]", ["a"] * MAX_EVENTS + [TOO_MANY_EVENTS]),
    (b"[" + (GOOD + b",") * 1_500 + GOOD + b"]", ["a"] * MAX_EVENTS + [TOO_MANY_EVENTS]),
    (b"[" + (GOOD[:-1] + b',"x":NaN},') * 1_500 + b"0]", ["a"] * MAX_EVENTS + [TOO_MANY_EVENTS]),
    (b"[" + (GOOD + b",") * 999 + b"0," * (4 * MIB) + b"0]", ["a"] * 999 + [MALFORMED, TOO_MANY_EVENTS]),
    (GOOD[:-1] + b',"x":[' + b"{}," * MIB + b"0]}", [MALFORMED]),
    (GOOD[:-1] + b',"y":NaN,"x":[' + b"0," * (4 * MIB) + b"0]}", [MALFORMED]),
    (GOOD[:-1] + b',"y":NaN,"x":"' + b"\\n" * MIB + b'"}', [MALFORMED]),
    (b"[" * (8 * MIB), [MALFORMED]),
    (b'{"a":' * MIB, [MALFORMED]),
    (b'"' * (8 * MIB), [MALFORMED]),
    (b'["' + b'\\"' * (4 * MIB), [MALFORMED]),
    (b" " * (8 * MIB), [MALFORMED]),
    (b"[" + b"9" * (8 * MIB) + b"]", [MALFORMED]),
    (b"[" + b"\xff" * (8 * MIB), [MALFORMED]),
]


@pytest.mark.parametrize(("bomb", "kind"), BOMBS, ids=lambda value: repr(value[:12]))
def test_bombs(bomb: bytes, kind: list[str]) -> None:
    """At most MAX_EVENTS events of any body are read, and memory stays proportional to its size."""
    tracemalloc.start()
    try:
        found = kinds(decode(bomb, "application/json"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found in (kind, [*kind[:-1], MALFORMED])
    assert peak < 64 * MIB


def test_an_oddity_in_a_large_message_costs_only_itself() -> None:
    """A list of long tracebacks is read event by event if the whole is not valid JSON."""
    long = raw("failed", traceback='at \\n\n"[{,\\"' * 10_000)
    text = json.dumps([long, long | {"x": float("nan")}, {"type": 3}, [long], long | {"exception": "\ud800"}])
    for spaced in (text, text.replace("}, {", "}\n , \t{"), " \n " + text + " "):
        found = decode(spaced.encode(), "application/json")
        assert kinds(found) == ["task-failed", "task-failed", MALFORMED, MALFORMED, "task-failed"]


_JSON = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=15)


@settings(max_examples=examples(40))  # of many elements each
@given(st.lists(_JSON), st.sampled_from([None, 0, 1]), st.sampled_from(["", "\ufeff", " \n"]))
def test_pieces_of_any_list(values: list[Any], indent: int | None, before: str) -> None:
    """Each piece is the JSON of one element."""
    text = before + json.dumps(values, indent=indent)
    found = [json.loads(piece or b"0") for piece in split_array(text.encode())]
    assert json.dumps(found) == json.dumps(values)


@given(st.binary())
def test_pieces_of_any_bytes(data: bytes) -> None:
    """It terminates for any bytes."""
    assert len(list(split_array(b"[" + data))) <= len(data) + 1


def test_pieces_are_bounded() -> None:
    """The number of inspected pieces is bounded, not only that of the results."""
    found = list(split_array(b"[0," + b"[]," * MAX_SCANNED_TOKENS + b"0]"))
    assert (found[0], found[-1]) == (b"0", None)
    assert MAX_SCANNED_TOKENS // 4 < len(found) < MAX_SCANNED_TOKENS // 2
