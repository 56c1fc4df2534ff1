"""Links to other systems."""

import pytest

from celery_monitor.core.links import MAX_LENGTH, fill, of_failure, of_incident, problem
from celery_monitor.core.model import Reason
from tests.adapters.web.fleet import failure, incident

HOSTILE = "a b/../?x=1&y#\"'<\u00e9\ud800"


@pytest.mark.parametrize(
    "template",
    [
        "https://logs.example.com/?q={task_id}",
        "http://logs:8080/{task}/{worker}?queue={queue}#{exception}-{incident}-{fleet}",
        "https://[::1]:9200/x",
        "https://logs.example.com",
    ],
)
def test_a_template(template: str) -> None:
    """Placeholders may occur anywhere after the host."""
    assert problem(template) is None


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("javascript:alert({task})", "http:// or https://"),
        ("data:text/html,{task}", "http:// or https://"),
        ("/relative/{task}", "http:// or https://"),
        ("https://{worker}/", "only after the host"),
        ("https://logs.{fleet}.example/", "only after the host"),
        ("https://logs.example.com{task}", "only after the host"),
        ("https://user@{task}/", "only after the host"),
        ("https://trusted.example@evil.example/{task}", "only after the host"),
        ("https://logs.example.com/a b", "only after the host"),
        ("https://logs.example.com/\n", "only after the host"),
        ("https://logs.example.com/{uuid}", "{task_id}"),
        ("https://logs.example.com/{task", "{task_id}"),
        ("https://logs.example.com/{{task}}", "{task_id}"),
        ("https://logs.example.com/{task.__class__}", "{task_id}"),
        ("https://logs.example.com/" + "a" * MAX_LENGTH, "at most"),
    ],
)
def test_a_wrong_template(template: str, expected: str) -> None:
    """Templates that could lead elsewhere or cannot be filled in are rejected with the allowed form."""
    assert expected in str(problem(template))


def test_values_are_encoded() -> None:
    """Any task name is encoded as one value of the query."""
    ((title, url),) = fill({"Logs": "https://logs.example.com/?q={task}&x"}, {"task": HOSTILE})
    assert title == "Logs"
    assert url == "https://logs.example.com/?q=a%20b%2F..%2F%3Fx%3D1%26y%23%22%27%3C%C3%A9%3F&x"


def test_a_value_with_placeholders_is_not_filled_in_again() -> None:
    """A task named like a placeholder is not expanded."""
    assert fill({"a": "https://x.example/{task}"}, {"task": "{fleet}", "fleet": "f"})[0][1].endswith("/%7Bfleet%7D")


def test_an_unknown_value_leaves_its_link_out() -> None:
    """Links that would search for nothing are omitted."""
    templates = {"one": "https://x.example/{task_id}", "two": "https://x.example/{fleet}"}
    assert fill(templates, {"task_id": "", "fleet": "shop"}) == [("two", "https://x.example/shop")]


def test_what_a_failure_and_an_incident_give() -> None:
    """A failure gives its own values, an incident those with the most failures, and a storm no task."""
    assert of_failure(failure(), "shop")["task_id"] == "id-1"
    one = incident(workers={"a": 1, "b": 5, "other": 9}, last_uuid="id-2")
    assert (of_incident(one)["worker"], of_incident(one)["task_id"]) == ("b", "id-2")
    assert of_incident(incident("storm/h", task="storm", reason=Reason.STORM_OPENED))["task"] == ""
