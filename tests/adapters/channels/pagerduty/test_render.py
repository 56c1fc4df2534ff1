"""The text of the page, and that hostile texts cannot break it."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_monitor.adapters.channels.pagerduty.render import render
from celery_monitor.core.model import STORM, IncidentState, Reason, Severity
from celery_monitor.core.text import OTHER
from tests.adapters.channels.pagerduty.incidents import AT, KEY, an_incident
from tests.servers.pagerduty_contract import violations

BASE = "https://monitor.example.com/celery/"
SURROGATE = "a\ud800b"
STORMY = {"task": STORM, "reason": Reason.STORM_OPENED}
HOSTILE = "\x00\x1b[31mA\r\nB\u202e\u2028" + SURROGATE


def rendered(**changes: Any) -> dict[str, Any]:
    """The event of an incident as it is sent, with its contract checked."""
    event = render(an_incident(**changes), BASE)
    body = json.dumps(event | {"routing_key": KEY, "event_action": "trigger"}, allow_nan=False).encode()
    assert violations(body)[1] == []
    return event


def summary(**changes: Any) -> str:
    """The incident's title."""
    text = rendered(**changes)["payload"]["summary"]
    assert isinstance(text, str)
    return text


def details(**changes: Any) -> dict[str, Any]:
    """The incident's details."""
    found = rendered(**changes)["payload"]["custom_details"]
    assert isinstance(found, dict)
    return found


def test_the_whole_event() -> None:
    """An event contains what failed, how often, since when, with what, where, and links."""
    assert rendered(
        count=7,
        threshold=3,
        exceptions={"CardDeclined": 7},
        workers={"celery@box-1": 2, "celery@box-2": 5},
        queues={"billing": 7},
        first_at=AT - 120,
        last_uuid="5d3f/0b9e",
    ) == {
        "dedup_key": "shop.billing.charge/2026-11-23T14Z",
        "payload": {
            "summary": "[shop] shop.billing.charge failed 7 times: CardDeclined: insufficient funds",
            "source": "shop",
            "severity": "critical",
            "component": "shop.billing.charge",
            "group": "billing",
            "class": "CardDeclined",
            "timestamp": "2026-11-23T14:02:11Z",
            "custom_details": {
                "failures": 7,
                "rate": "3.5 a minute over 2 min",
                "exceptions": {"CardDeclined": 7},
                "message": "insufficient funds",
                "workers": {"celery@box-2": 5, "celery@box-1": 2},
                "queues": {"billing": 7},
                "first_failure": "2026-11-23T14:00:11Z",
                "last_failure": "2026-11-23T14:02:11Z",
                "sample_task_ids": ["5d3f0b9e-0000-4000-8000-000000000001"],
                "rule": "billing",
                "threshold": 3,
                "traceback": an_incident().traceback,
            },
        },
        "client": "celery-monitor",
        "client_url": "https://monitor.example.com/celery/incidents/shop.billing.charge%2F2026-11-23T14Z",
        "links": [
            {
                "href": "https://monitor.example.com/celery/incidents/shop.billing.charge%2F2026-11-23T14Z",
                "text": "This incident",
            },
            {"href": "https://monitor.example.com/celery/failures/5d3f%2F0b9e", "text": "Latest failure"},
            {
                "href": "https://monitor.example.com/celery/tasks/shop.billing.charge",
                "text": "shop.billing.charge in celery-monitor",
            },
            {"href": "https://runbooks.example.com/billing", "text": "Runbook"},
        ],
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "[shop] shop.billing.charge failed: CardDeclined: insufficient funds"),
        ({"message": ""}, "[shop] shop.billing.charge failed: CardDeclined"),
        ({"message": "", "exceptions": {}}, "[shop] shop.billing.charge failed"),
        ({"message": "CardDeclined(\n'no')"}, "[shop] shop.billing.charge failed: CardDeclined( 'no')"),
        ({"fleet": ""}, "shop.billing.charge failed: CardDeclined: insufficient funds"),
        (
            {"count": 7, "exceptions": {"Timeout": 2, "CardDeclined": 5}},
            "[shop] shop.billing.charge failed 7 times: CardDeclined (5), Timeout (2)",
        ),
        (
            {"exceptions": {"WorkerLostError": 1}, "message": "Worker exited prematurely: signal 9 (SIGKILL) Job: 2."},
            "[shop] shop.billing.charge: a worker's child process was killed (often out of memory)",
        ),
        (
            {"exceptions": {"TimeLimitExceeded": 3}, "count": 3},
            "[shop] shop.billing.charge: exceeded its hard time limit and was killed (3 times)",
        ),
        ({"exceptions": {"SoftTimeLimitExceeded": 1}}, "[shop] shop.billing.charge: exceeded its soft time limit"),
        (
            {"exceptions": {"NotRegistered": 1}},
            "[shop] shop.billing.charge: it is not registered in the worker that received it",
        ),
        (
            {**STORMY, "tasks": {"b": 9, "a": 12, "c": 1, "d": 1, "e": 1, "f": 1}, "count": 25},
            "[shop] Many tasks fail at once: 25 failures of 6 tasks: a (12), b (9), c (1), d (1), e (1), …",
        ),
        (
            {**STORMY, "tasks": {"b": 9, OTHER: 16}, "count": 25},
            "[shop] Many tasks fail at once: 25 failures of more than 1 tasks: b (9)",
        ),
        (
            {**STORMY, "tasks": {"a": 1}, "count": 1},
            "[shop] Many tasks fail at once: 1 failure of 1 task: a (1)",
        ),
    ],
)
def test_summaries(changes: dict[str, Any], expected: str) -> None:
    """The title describes the failure; Celery's own exceptions are explained."""
    assert summary(**changes) == expected


@pytest.mark.parametrize("kind", ["WorkerLostError", "TimeLimitExceeded", "SoftTimeLimitExceeded", "NotRegistered"])
def test_advice(kind: str) -> None:
    """If the exception says little, the details say what to check, even among other exceptions."""
    assert details(exceptions={"ValueError": 5, kind: 1})["what_to_look_at"]
    assert "what_to_look_at" not in details(exceptions={"ValueError": 5})


def test_a_storm_lists_its_tasks() -> None:
    """A storm's details name the tasks, most failures first, and its links lead to the storm."""
    event = rendered(**STORMY, key="storm/2026-11-23T14Z/*", tasks={"a": 1, "b": 9}, runbook_url=None)
    assert list(event["payload"]["custom_details"]["tasks"].items()) == [("b", 9), ("a", 1)]
    assert [link["href"] for link in event["links"]] == [
        "https://monitor.example.com/celery/incidents/storm%2F2026-11-23T14Z%2F%2A"
    ]


@pytest.mark.parametrize(
    "changes", [{}, {"reason": Reason.STORM_OPENED, "state": IncidentState.SUPPRESSED}, {"reason": Reason.REOPENED}]
)
def test_a_task_called_storm_is_a_task(changes: dict[str, Any]) -> None:
    """Its incident is about the task and links to it."""
    event = rendered(task=STORM, key="storm/2026-11-23T14Z", tasks={"storm": 1}, **changes)
    assert event["payload"]["summary"] == "[shop] storm failed: CardDeclined: insufficient funds"
    assert event["links"][1]["href"] == "https://monitor.example.com/celery/tasks/storm"


def test_an_incident_of_several_tasks_lists_them() -> None:
    """If the key has no {task}, one incident may be about several tasks, and names them."""
    assert details(tasks={"a": 1, "b": 2})["tasks"] == {"b": 2, "a": 1}
    assert "tasks" not in details(tasks={"a": 1})


def test_arguments_only_when_present() -> None:
    """Arguments are in the details only if the incident has them."""
    assert not {"args", "kwargs"} & details().keys()
    assert details(args="('4111',)", kwargs="{}").items() >= {"args": "('4111',)", "kwargs": "{}"}.items()


def test_links_need_an_address() -> None:
    """Without web.external_url there is only the runbook, and no client_url; without both, no links."""
    event = render(an_incident(), None)
    assert event["links"] == [{"href": "https://runbooks.example.com/billing", "text": "Runbook"}]
    assert "client_url" not in event
    assert render(an_incident(runbook_url=None), None)["links"] == []


@pytest.mark.parametrize(
    ("task", "path"),
    [
        ("a/../b?c#d", "a%2F..%2Fb%3Fc%23d"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ('"><script>', "%22%3E%3Cscript%3E"),
        ("..", "..~"),
    ],
)
def test_names_are_quoted_in_links(task: str, path: str) -> None:
    """A task's name is one segment of the path, whatever it contains."""
    event = rendered(task=task, key=task, last_uuid=task)
    assert [link["href"] for link in event["links"]][:3] == [
        f"https://monitor.example.com/celery/{page}{path}" for page in ("incidents/", "failures/", "tasks/")
    ]


@pytest.mark.parametrize("task", [SURROGATE, "a\x00b", "x" * 3000])
def test_no_link_rather_than_a_wrong_one(task: str) -> None:
    """A name that cannot be part of a link gets none; other links stay."""
    assert [link["text"] for link in rendered(task=task)["links"]] == ["This incident", "Runbook"]
    event = render(an_incident(task=task, key=task, last_uuid=task), BASE)
    assert [link["text"] for link in event["links"]] == ["Runbook"]
    assert event["client_url"] == "https://monitor.example.com/celery/incidents"


def test_the_summary_is_cut_at_1024_characters() -> None:
    """A longer summary ends with an ellipsis at exactly 1024 characters (not bytes)."""
    text = summary(message="\U0001f4a5" * 3000)
    assert len(text) == 1024
    assert text.endswith("\U0001f4a5…")


def test_the_end_of_a_long_traceback_is_kept() -> None:
    """The innermost frames and the exception are kept."""
    text = details(traceback="outer\n" * 9000 + "ValueError: inner")["traceback"]
    assert len(text) == 8000
    assert text.startswith("…")
    assert text.endswith("outer\nValueError: inner")


def test_many_entries_are_added_up() -> None:
    """Of hundreds of workers the worst are named and the rest is one number; the sum is exact."""
    workers = details(workers={f"celery@box-{number}": number for number in range(1, 301)})["workers"]
    assert len(workers) == 21
    assert next(iter(workers)) == "celery@box-300"
    assert sum(workers.values()) == sum(range(1, 301))


def test_an_event_that_is_too_large_loses_details_not_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps summary, counts, times and links, with a note about omitted details."""
    # The cuts keep even the worst event just below PagerDuty's limit; a smaller one stands for a change of them.
    monkeypatch.setattr("celery_monitor.adapters.channels.pagerduty.render.EVENT_LIMIT", 100_000)
    wide = "\U0001f4a5" * 250
    many = {f"{number}{wide}": 1 for number in range(300)}
    event = rendered(count=9, first_at=AT - 60, workers=many, queues=many, traceback=wide * 40)
    assert event["payload"]["custom_details"].keys() == {"failures", "rate", "first_failure", "last_failure", "note"}
    assert event["payload"]["summary"].startswith("[shop] shop.billing.charge failed 9 times")
    assert len(event["links"]) == 3


def test_the_worst_event_is_within_the_limit() -> None:
    """The largest possible event with four-byte characters satisfies the contract."""
    wide = "\U0001f4a5" * 9000
    many = {f"{number}{wide}": 1 for number in range(100)}
    texts = dict.fromkeys(("fleet", "rule", "message", "traceback", "args", "kwargs"), wide)
    rendered(**texts, exceptions=many, workers=many, queues=many, tasks=many, samples=(wide,) * 20)


def test_hostile_texts_are_made_harmless() -> None:
    """Control characters, direction marks, line breaks in titles and lone surrogates are removed."""
    event = rendered(
        key=HOSTILE,
        fleet=HOSTILE,
        task=HOSTILE,
        rule=HOSTILE,
        exceptions={HOSTILE: 1},
        workers={HOSTILE: 1},
        queues={HOSTILE: 1},
        samples=(HOSTILE,),
        message=HOSTILE,
        traceback=HOSTILE,
        args=HOSTILE,
        kwargs=HOSTILE,
    )
    payload = event["payload"]
    for name in ("summary", "source", "component", "group", "class"):
        assert payload[name].isprintable(), name
    shown = json.dumps(event, ensure_ascii=False)
    assert not {"\x00", "\x1b", "\u202e", "\u2028", "\ud800"} & set(shown)
    assert "a?b" in payload["component"]


def test_empty_texts_are_left_out() -> None:
    """Unknown values are omitted, except for the source, which PagerDuty requires."""
    event = rendered(fleet="", queues={"": 1}, exceptions={}, workers={}, message="", traceback="", rule="", samples=())
    assert event["payload"]["source"] == "celery"
    assert not {"group", "class"} & event["payload"].keys()
    assert event["payload"]["custom_details"] == {
        "failures": 1,
        "queues": {"(none)": 1},
        "first_failure": "2026-11-23T14:02:11Z",
        "last_failure": "2026-11-23T14:02:11Z",
    }


@pytest.mark.parametrize("at", [math.nan, math.inf, -1.0, 1e300])
def test_times_that_no_calendar_has(at: float) -> None:
    """An invalid time is omitted; the page and the other details remain."""
    event = rendered(first_at=at, last_at=at, count=2)
    assert "timestamp" not in event["payload"]
    assert event["payload"]["custom_details"]["failures"] == 2


@pytest.mark.parametrize(
    ("count", "seconds", "expected"),
    [
        (1, 0.0, None),
        (5, 0.2, None),
        (30, 30.0, "30 a minute over 30 s"),
        (120, 3600.0, "2 a minute over 1 h"),
        (10_000, 3599.5, "167 a minute over 59 min 59 s"),
    ],
)
def test_rates(count: int, seconds: float, expected: str | None) -> None:
    """The rate is per minute between first and last failure; less than a minute counts as a minute."""
    assert details(count=count, first_at=AT - seconds).get("rate") == expected


@pytest.mark.parametrize("severity", list(Severity))
def test_severities(severity: Severity) -> None:
    """The severity of the rule is used."""
    assert rendered(severity=severity)["payload"]["severity"] == severity.value


def test_the_incident_is_not_changed() -> None:
    """Rendering does not change the incident, and gives the same result twice."""
    incident = an_incident(exceptions={"B": 1, "A": 2})
    assert render(incident, BASE) == render(incident, BASE)
    assert incident == an_incident(exceptions={"B": 1, "A": 2})


# Also what no encoding allows: the hypothesis default leaves lone surrogates out.
_texts = st.text(st.characters(exclude_categories=()), max_size=300)
_maps = st.dictionaries(_texts, st.integers(1, 10**9), max_size=30)


@given(
    fleet=_texts,
    task=_texts,
    message=_texts,
    traceback=_texts,
    exceptions=_maps,
    workers=_maps,
    queues=_maps,
    first_at=st.floats(),
    last_at=st.floats(),
    count=st.integers(1, 10**9),
)
def test_no_incident_breaks_the_contract(**changes: Any) -> None:
    """The event is valid for any fleet."""
    rendered(**changes)
