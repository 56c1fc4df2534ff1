"""The description of an incident in sentences."""

from typing import Any

import pytest

from celery_monitor.adapters.web.diagnosis import HINTS, next_steps, outlook, recent_since
from celery_monitor.core.model import BUCKET_SECONDS, STORM, Condition, HistoryRow, IncidentState, Reason
from tests.adapters.web.fleet import NOW, incident
from tests.adapters.web.test_charts import row

RECENT = recent_since(NOW)
BEFORE = RECENT - BUCKET_SECONDS


@pytest.mark.parametrize(
    ("changes", "rows", "tone", "sentence"),
    [
        ({"state": IncidentState.RESOLVED}, [], "good", "It is over: resolved; the last failure was 30 s ago."),
        (
            {},
            [row(RECENT, 90, 10), row(BEFORE, 50, 50)],
            "good",
            "It is getting better: 10.0 % of its runs fail now, 50.0 % b",
        ),
        ({}, [row(RECENT, 50, 50), row(BEFORE, 90, 10)], "bad", "It is getting worse: 50.0 %"),
        ({}, [row(RECENT, 89, 11), row(BEFORE, 90, 10)], "bad", "It continues as before: 11.0 %"),
        ({}, [row(RECENT, 0, 5)], "bad", "It is still failing: the last failure was 30 s ago."),
        ({}, [row(RECENT, 0, 5), row(BEFORE, 5, 0)], "bad", "It is still failing: "),
        ({}, [], "bad", "It is still failing: "),
        ({"last_at": NOW - 7200}, [row(RECENT, 40)], "good", "No failure for 2 h 0 min, and 40 runs have succeeded"),
        ({"last_at": NOW - 7200}, [], "quiet", "No failure for 2 h 0 min. It has not run since"),
        ({"last_at": NOW + 60}, [], "bad", "It is still failing: the last failure was 0 s ago."),
        ({"condition": Condition.BACKLOG, "subject": "mail"}, [], "bad", "Ongoing for 1 min 0 s."),
        ({"condition": Condition.LOST, "state": IncidentState.RESOLVED}, [], "good", "It is over: it lasted 30 s."),
    ],
)
def test_is_it_getting_better(changes: dict[str, Any], rows: list[HistoryRow], tone: str, sentence: str) -> None:
    """The last half hour is compared with the previous one, with numbers; without runs there is no statement."""
    found = outlook(incident(**changes), rows, NOW)
    assert (found.tone, found.text[: len(sentence)]) == (tone, sentence)


def test_the_numbers() -> None:
    """The basis of the sentence is shown next to it, with its period."""
    found = outlook(incident(), [row(RECENT, 1200, 300), row(BEFORE, 1, 1), row(BEFORE - 9000, 5, 5)], NOW)
    assert found.numbers == (
        "Last 20 min 9 s: 300 of 1,500 runs failed (20.0 %). The 30 min before: 1 of 2 runs failed (50.0 %)."
    )


def test_what_to_do_next() -> None:
    """The runbook first, then hints of the exception, the worker and the queue, last the failure itself."""
    one = incident(
        runbook_url="https://wiki.example/r",
        exceptions={"OSError": 1, "WorkerLostError": 7},
        workers={"celery@box": 8},
        queues={"mail": 8},
        tasks={"a": 4, "b": 4},
        last_uuid="id/1",
        count=8,
    )
    steps = next_steps(one, is_notified=False, workers=3)
    assert [step.link for step in steps] == ["https://wiki.example/r", "", "", "", "failures/id%2F1", ""]
    assert HINTS["WorkerLostError"] in steps[1].text
    assert "on celery@box. If other workers run this task too" in steps[2].text
    assert "queue mail" in steps[3].text
    assert "Nobody has been notified yet" in steps[5].text


def test_an_operator_may_silence() -> None:
    """Operators get a link to the form with the task filled in, while the incident is open."""

    def links(**changes: Any) -> list[str]:
        return [step.link for step in next_steps(incident(**changes), is_notified=True, workers=1, operator=True)]

    assert "silences?match=shop.charge" in links()
    for changes in (
        {"state": IncidentState.RESOLVED},
        {"task": "two words"},
        {"task": STORM, "reason": Reason.STORM_OPENED},
    ):
        assert not [link for link in links(**changes) if link.startswith("silences")]
    assert not [step for step in next_steps(incident(), is_notified=True, workers=1) if "silence" in step.text]


def test_one_worker_alone_is_no_clue() -> None:
    """In a fleet of one worker, or after few failures, the worker is not mentioned."""
    few = incident(workers={"celery@box": 2}, count=2)
    many = incident(workers={"celery@box": 9}, count=9)
    for one, up in ((few, 3), (many, 1)):
        assert not [step for step in next_steps(one, is_notified=True, workers=up) if "check that one" in step.text]


def test_a_condition_of_a_queue_leads_to_it() -> None:
    """The first hint is a link to the queue, whatever its name."""
    one = incident(condition=Condition.NO_WORKER, subject="mail/bulk")
    steps = next_steps(one, is_notified=True, workers=1)
    assert [(step.link, step.link_text) for step in steps] == [
        ("queues/mail%2Fbulk", "mail/bulk"),
        ("workers", "workers"),
    ]


def test_there_is_always_something_to_do() -> None:
    """Even for a condition without other data."""
    assert [step.link for step in next_steps(incident(condition=Condition.BACKLOG), is_notified=True, workers=1)] == [
        "workers"
    ]
