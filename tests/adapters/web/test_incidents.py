"""The pages of incidents, and the links between incidents and failures."""

import re
from collections.abc import Callable
from html import unescape

import pytest

from celery_monitor.adapters.store import SqlStore
from celery_monitor.adapters.web.views import time
from celery_monitor.core.model import Action, Changes, ErrorDelta, Incident, IncidentState, OutboxRequest, Reason
from tests.adapters.web.conftest import Served
from tests.adapters.web.fleet import BUCKET, NOW, Fleet, channels, failure, group, incident
from tests.adapters.web.test_pages import Links

Commit = Callable[[Changes], None]

KEY = "/incidents/shop.charge%2F2026-11-23T14Z"


def shown(site: Served, commit: Commit, *incidents: Incident, query: str = "") -> str:
    """The page with these incidents."""
    commit(Changes(now=NOW, sequence=2, incidents=incidents))
    answer = site.get(f"/incidents{query}")
    assert answer.status_code == 200
    return answer.text


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (({"KeyError": 60}, "address", ""), "KeyError: address"),
        (({"KeyError": 60}, "", ""), "KeyError"),
        (({"CardError": 1}, "CardError: declined", ""), "CardError: declined"),
        (({"KeyError": 1, "OSError": 9}, "address", "Traceback\n  File x\nKeyError: 'address'"), "KeyError: address"),
        (({"KeyError": 1, "CardError": 9}, "no", "Traceback\nshop.errors.CardError: no\nwhy\nnot"), "CardError: no"),
        (({"KeyError": 1, "OSError": 9}, "address", ""), "address"),
    ],
)
def test_the_last_failure(site: Served, commit: Commit, parts: tuple[dict[str, int], str, str], expected: str) -> None:
    """The last failure is shown with its class if known, because the message of a KeyError is only a name."""
    kinds, message, traceback = parts
    text = shown(site, commit, incident(exceptions=kinds, message=message, traceback=traceback))
    assert f'<td class="text" data-label="Last failure">{expected}<' in unescape(text)
    assert ("KeyError 1" in text) == (len(kinds) > 1)


def test_many_exceptions_of_an_incident_stay_short(site: Served, commit: Commit) -> None:
    """A row has the three most frequent exceptions, shortened, and the number of the others."""
    counts = {"x" * 200: 9, "OSError": 8, "KeyError": 7, "EOFError": 6, "IOError": 5}
    text = unescape(shown(site, commit, incident(exceptions=counts, message="", traceback="")))
    assert f"{'x' * 59}… 9, OSError 8, KeyError 7, 2 more" in text
    assert "EOFError" not in text


def test_what_pagerduty_was_told(site: Served, store: SqlStore, commit: Commit) -> None:
    """A page sent for fewer failures than there are shows for how many."""
    (item,) = store.outbox.items(dead=False, limit=1).rows
    store.outbox.delivered(item, NOW - 50, 2)
    assert "last sent with a count" not in site.get("/incidents").text
    assert "last sent with a count of 2" in shown(site, commit, incident(count=60))


def test_each_channel_is_told(site: Served, store: SqlStore, commit: Commit) -> None:
    """For an incident with several channels, the page and the API show the delivery of each."""
    commit(Changes(now=NOW, sequence=2, outbox=[OutboxRequest("chat", incident().key, Action.TRIGGER)]))
    first, chat = store.outbox.items(dead=False, limit=2).rows
    store.outbox.dead(chat, NOW, "no such room")
    store.outbox.delivered(first, NOW - 50, 2, "abc")
    text = " ".join(site.get("/incidents").text.split())
    assert 'chat: <span class="bad">not delivered</span><span class="more">no such room</span>' in text
    assert "pagerduty: <time" in text
    (one,) = site.get("/api/v1/incidents").json()["items"]
    assert [(sent["channel"], sent["state"], sent["receipt"], sent["error"]) for sent in one["deliveries"]] == [
        ("chat", "dead", None, "no such room"),
        ("pagerduty", "delivered", "abc", None),
    ]
    assert (one["delivered_at"], one["error"]) == (None, "no such room")


def test_incidents_are_sorted_by_when_the_last_channel_was_told(site: Served, store: SqlStore, commit: Commit) -> None:
    """That is the displayed time; an undelivered incident comes last."""
    keys = ("sent/a", "sent/b", "sent/c")
    asked = [OutboxRequest(channel, key, Action.TRIGGER) for key in keys for channel in ("chat", "pagerduty")]
    commit(Changes(now=NOW, sequence=2, incidents=[incident(key, task="sent") for key in keys], outbox=asked))
    times = {("sent/a", "chat"): 1, ("sent/a", "pagerduty"): 30, ("sent/b", "chat"): 10, ("sent/b", "pagerduty"): 20}
    for item in store.outbox.items(dead=False, limit=9).rows:
        if (item.key, item.channel) in times:
            store.outbox.delivered(item, NOW + times[item.key, item.channel], 2)
    for sort, wanted in (("sent", ["a", "b", "c"]), ("-sent", ["c", "b", "a"])):
        text = site.get("/incidents", params={"task": "sent", "sort": sort}).text
        assert re.findall(r'<a href="./incidents/sent%2F(\w)"', text) == wanted


def test_lists_on_an_incident_say_that_there_is_more(site: Served, commit: Commit) -> None:
    """Some of the other incidents and error groups are shown; links lead to the rest."""
    others = [incident(f"other/{number}", first_at=NOW - 90_000 - number, last_at=NOW - 90_000) for number in range(11)]
    names = [f"{number:016}" for number in range(60)]
    commit(
        Changes(
            now=NOW,
            sequence=2,
            incidents=others,
            groups=[group("shop.charge", name) for name in names],
            errors=[ErrorDelta(BUCKET, name, 1) for name in names],
        )
    )
    page = site.get(KEY)
    assert "and 3 more" in page.text
    assert "/incidents?task=shop.charge" in Links(page).links
    assert "The 50 with the most failures; there may be more" in page.text
    assert "there may be more" not in site.get("/incidents/other%2F1").text


def test_what_was_not_sent(site: Served, commit: Commit) -> None:
    """A waiting notification does not show the reason of its opening; one that is not sent shows the reason."""
    assert "not sent yet" in site.get("/incidents").text
    quiet = incident("quiet", state=IncidentState.SUPPRESSED, reason=Reason.BELOW_THRESHOLD)
    text = shown(site, commit, quiet)
    assert "below threshold</b>: its rule pages only after more failures within the hour." in text


def test_while_pagerduty_is_off(site: Served, fleet: Fleet) -> None:
    """Without a routing key an incident is not shown as waiting."""
    fleet.channels[:] = channels("pagerduty")
    text = site.get("/incidents").text
    assert "not sent: the channel is off" in text
    assert "not sent yet" not in text


def failures_of(site: Served, text: str) -> list[str]:
    """The failures to which an incident links."""
    found = re.search(r'href="\.\./(failures\?[^"]*)">All failures of this incident', text)
    assert found is not None
    answer = site.get(f"/{unescape(found[1])}")
    assert answer.status_code == 200
    return list(dict.fromkeys(re.findall(r'href="./failures/(.*?)"', answer.text)))


def test_an_incident_leads_to_its_failures(site: Served, commit: Commit) -> None:
    """The first and the last failure are on the linked page, and none of another task."""
    at = NOW - 60.000_4
    others = [failure("other", name="shop.mail", group="b" * 16), failure("late", at=NOW, group="c" * 16)]
    commit(Changes(now=NOW, sequence=2, failures=[failure("first", at=at), *others]))
    commit(Changes(now=NOW, sequence=3, incidents=[incident(first_at=at, last_at=NOW - 30)]))
    assert failures_of(site, site.get(KEY).text) == ["id-2", "id-1", "first"]


def test_a_storm_leads_to_all_failures(site: Served, commit: Commit) -> None:
    """The failures of a storm are those of all its tasks."""
    kinds = [group("shop.mail", "b" * 16)]
    commit(Changes(now=NOW, sequence=2, groups=kinds, failures=[failure("other", name="shop.mail", group="b" * 16)]))
    storm = incident("storm", task="storm", tasks={"shop.mail": 1, "shop.charge": 2})
    commit(Changes(now=NOW, sequence=3, incidents=[storm]))
    assert set(failures_of(site, site.get("/incidents/storm").text)) == {"id-1", "id-2", "other"}


@pytest.mark.parametrize("path", ["/failures", "/failures/id-2", "/tasks/shop.charge"])
def test_a_failure_leads_to_its_incident(site: Served, commit: Commit, path: str) -> None:
    """A failure links to its incident only, and explains why it did not page again."""
    commit(Changes(now=NOW, sequence=2, incidents=[incident("another", task="shop.other")]))
    answer = site.get(path)
    assert "its incident was already open; nobody is paged twice" in answer.text
    assert KEY in Links(answer).links
    text = site.get(KEY).text
    assert "shop.charge/2026-11-23T14Z" in text
    assert "another" not in text


def test_one_incident(site: Served, store: SqlStore, commit: Commit) -> None:
    """Its page has state, counts, error groups, traceback, delivery, and links to its failures."""
    kinds = {"ValueError": 3, "KeyError": 1}
    long = "".join(f"  File 'shop.py', line {n}\n" for n in range(200)) + "ValueError: <no> such card"
    one = incident(
        exceptions=kinds, count=4, threshold=3, traceback=long, last_uuid="id-2", rule="cards", args="(<1>,)"
    )
    (item,) = store.outbox.items(dead=False, limit=1).rows
    store.outbox.delivered(item, NOW - 50, 2)
    commit(Changes(now=NOW, sequence=2, incidents=[one, incident("another", task="shop.other", message="other")]))
    answer = site.get(KEY)
    text = unescape(answer.text)
    for expected in (
        "ValueError (3), KeyError (1)",
        "pages at 3 failures",
        "<no> such card",
        "shop.py:charge",
        "(<1>,)",
        "cards",
    ):
        assert expected in text
    assert "&lt;no&gt; such card" in answer.text
    assert "last sent with a count of 2" in text
    assert "another" not in text
    assert {"/failures/id-2", "/tasks/shop.charge"} <= Links(answer).links
    found = site.get(f"/api/v1{KEY}").json()
    assert (found["key"], found["count"], found["last_uuid"]) == (one.key, 4, "id-2")
    assert found["traceback"] == long
    assert [(each["exception"], each["count"], each["sample"]) for each in found["errors"]] == [
        ("ValueError", 2, "id-2")
    ]


def test_an_incident_that_is_not_stored(site: Served) -> None:
    """An old link gives the reason and the setting."""
    for path in ("/incidents/shop.charge%2F2026-01-01T00Z", "/incidents/%00", "/incidents/a%2F..%2F..%2Fb"):
        for base in ("", "/api/v1"):
            answer = site.get(f"{base}{path}")
            assert answer.status_code == 404
            assert "store.retention, 30 days" in answer.text


def test_a_storm_shows_the_groups_of_its_tasks(site: Served, commit: Commit) -> None:
    """The groups of all its tasks, most failures first; at most 50 groups of 20 tasks."""
    names = [f"shop.t{n:02}" for n in range(30)]
    commit(
        Changes(
            now=NOW,
            sequence=2,
            groups=[group(name, f"{n:016}") for n, name in enumerate(names)],
            errors=[ErrorDelta(BUCKET, f"{n:016}", n + 1) for n in range(30)],
            incidents=[
                incident(
                    "storm/h/*",
                    task="storm",
                    reason=Reason.STORM_OPENED,
                    tasks={name: n + 1 for n, name in enumerate(names)} | {"other": 99},
                )
            ],
        )
    )
    found = site.get("/api/v1/incidents/storm%2Fh%2F%2A").json()["errors"]
    assert [each["task"] for each in found] == names[:9:-1]
    page = site.get("/incidents/storm%2Fh%2F%2A")
    assert "A storm of 31 tasks" in page.text
    assert "/tasks/shop.t29" in Links(page).links


def test_incidents_by_the_form(site: Served, commit: Commit) -> None:
    """The form filters like the API; the fields keep their values, and the filter can be removed."""
    commit(Changes(now=NOW, sequence=2, incidents=[incident("mail", task="shop.mail", exceptions={"OSError": 1})]))
    assert "shop.mail" in site.get("/incidents").text
    answer = site.get("/incidents?task=shop.charge&exception=ValueError&since=1h&until=")
    assert 'incidents/mail"' not in answer.text
    assert {KEY, "/incidents"} <= Links(answer).links
    assert re.search(r'name="task"[^>]*value="shop.charge"', answer.text)
    assert "No incidents found" in site.get("/incidents?since=2026-11-24").text
    assert site.get("/incidents?since=x").status_code == 400


@pytest.mark.parametrize(
    ("sort", "wanted"),
    [
        ("", ["c", "b", "a"]),
        ("-began", ["a", "b", "c"]),
        ("task", ["b", "c", "a"]),
        ("failures", ["a", "c", "b"]),
        ("-failures", ["b", "c", "a"]),
        ("state", ["c", "a", "b"]),
        ("last", ["b", "c", "a"]),
        ("no such", ["c", "b", "a"]),
    ],
)
def test_incidents_are_sorted_by_any_column(site: Served, commit: Commit, sort: str, wanted: list[str]) -> None:
    """The order is in the address; an unknown column means newest first."""
    facts = {"a": ("zeta", 9, 300, "resolved"), "b": ("alpha", 1, 900, "suppressed"), "c": ("beta", 5, 600, "open")}
    commit(
        Changes(
            now=NOW,
            sequence=2,
            incidents=[
                incident(
                    f"sort/{key}", task=task, count=count, first_at=NOW - 500 + at, last_at=NOW + last,
                    state=IncidentState(state),
                )
                for at, (key, (task, count, last, state)) in enumerate(facts.items())
            ],
        )
    )  # fmt: skip
    period = {"since": time(NOW - 501), "until": time(NOW - 490)}
    text = site.get("/incidents", params={**period, "sort": sort}).text
    assert re.findall(r"incidents/sort%2F(\w)", text) == wanted
    assert text.count('aria-sort="') == 1


def test_pages_of_sorted_incidents_hold_each_once(site: Served, commit: Commit) -> None:
    """However many are equal, the pages are numbered, and have each incident once."""
    made = [incident(f"many/{number}", task="t", count=number % 3, first_at=NOW - number) for number in range(120)]
    commit(Changes(now=NOW, sequence=2, incidents=made))
    found: list[str] = []
    for page in ("", "2", "3", "99"):
        text = site.get("/incidents", params={"task": "t", "sort": "failures", "page": page}).text
        found += re.findall(r'<a href="./incidents/many%2F(\d+)"', text) if page != "99" else []
        assert ("page 3 of 3" in text) == (page in {"3", "99"})
    assert len(found) == len(set(found)) == 120
    counts = [int(number) % 3 for number in found]
    assert counts == sorted(counts, reverse=True)
