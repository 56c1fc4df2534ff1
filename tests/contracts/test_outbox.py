"""The contract of an Outbox for the notifier."""

import pytest

from celery_monitor.adapters.store import SqlStore
from celery_monitor.core.backoff import MAX_WAIT
from celery_monitor.core.model import (
    FIRST_UPDATE,
    REFRESH,
    Action,
    ChannelDelivery,
    IncidentState,
    MessageKind,
    OutboxItem,
    OutboxRequest,
)
from celery_monitor.core.paging import Page
from tests.contracts.values import NOW, changes, incident

KEY = "shop.charge/2026-11-23T12Z"


class Box:
    """A store with its outbox and the sequence number."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.outbox = store.outbox
        self.sequence = 0

    def flush(self, *entries: OutboxRequest, now: float = NOW) -> None:
        self.sequence += 1
        self.store.commit(changes(self.sequence, now=now, outbox=entries))

    def due(self, now: float = NOW) -> list[OutboxItem]:
        return self.outbox.due(now, 100)

    def keys(self, now: float = NOW) -> list[str]:
        return [item.key for item in self.due(now)]

    def one(self, now: float = NOW) -> OutboxItem:
        (item,) = self.due(now)
        return item


@pytest.fixture
def box(sql: SqlStore) -> Box:
    """The outbox of an empty store."""
    return Box(sql)


def trigger(key: str = KEY, due_at: float = NOW, route: str = "", priority: int = 0, at: float = 0.0) -> OutboxRequest:
    """A request for a page, or for its update."""
    return OutboxRequest("pagerduty", key, Action.TRIGGER, route, due_at, priority, at)


def resolve(key: str = KEY, due_at: float = NOW) -> OutboxRequest:
    """A request to resolve an incident."""
    return OutboxRequest("pagerduty", key, Action.RESOLVE, "", due_at, FIRST_UPDATE)


def report(date: str = "2026-11-22") -> OutboxRequest:
    """A request for a mail."""
    return OutboxRequest("email", date, Action.REPORT)


def test_open_incidents_of_a_channel(box: Box) -> None:
    """The open incidents that the channel has delivered, by key, in pages."""
    keys = [f"key{number}" for number in range(5)]
    states = [IncidentState.OPEN] * 4 + [IncidentState.RESOLVED]
    incidents = [incident(key, state=state) for key, state in zip(keys, states, strict=True)]
    box.sequence += 1
    rows = [*map(trigger, keys), OutboxRequest("am", "key0", Action.TRIGGER, "", NOW)]
    box.store.commit(changes(box.sequence, incidents=incidents, outbox=rows))
    assert box.outbox.open_incidents("pagerduty", 10) == Page([])
    for item in box.outbox.items(dead=False, limit=10).rows:
        if item.channel == "pagerduty" and item.key != "key3":
            box.outbox.delivered(item, NOW, 1)
    first = box.outbox.open_incidents("pagerduty", 2)
    assert first.rows == incidents[:2]
    assert box.outbox.open_incidents("pagerduty", 2, first.next) == Page([incidents[2]])
    assert box.outbox.open_incidents("am", 10) == Page([])


def test_a_flush_enqueues(box: Box) -> None:
    """A row can be sent once its flush is committed and it is due."""
    assert box.due() == []
    box.flush(trigger(due_at=NOW + 5, route="billing"))
    assert box.due() == []
    item = box.one(NOW + 5)
    assert (item.channel, item.key, item.action, item.route) == ("pagerduty", KEY, Action.TRIGGER, "billing")
    assert (item.attempts, item.created_at, item.due_at, item.state) == (0, NOW, NOW + 5, "pending")


def test_what_waits_on_a_channel(box: Box) -> None:
    """All rows that are not delivered or given up, due or not, including retries by a person."""
    assert not box.outbox.waiting("pagerduty")
    box.flush(trigger("a", due_at=NOW + 60))
    assert (box.outbox.waiting("pagerduty"), box.outbox.waiting("email")) == (True, False)
    item = box.one(NOW + 60)
    box.outbox.retry(item, NOW + 900, "503")
    assert box.outbox.waiting("pagerduty")
    box.outbox.dead(item, NOW, "400")
    assert not box.outbox.waiting("pagerduty")
    box.outbox.revive(item.id, NOW)
    assert box.outbox.waiting("pagerduty")
    box.outbox.delivered(item, NOW, 1)
    assert not box.outbox.waiting("pagerduty")


def test_a_pending_row_is_refreshed(box: Box) -> None:
    """The same key and action give the same row with a new revision, due at the earlier time."""
    box.flush(trigger(due_at=NOW + 10))
    box.flush(trigger(due_at=NOW + 20))
    assert [item.due_at for item in box.outbox.items(dead=False, limit=10).rows] == [NOW + 10]
    box.flush(trigger(due_at=NOW + 2))
    item = box.one(NOW + 2)
    assert item.revision == 3
    assert box.outbox.pending() == {"pagerduty": (1, NOW)}


def test_a_retry_is_not_hastened(box: Box) -> None:
    """Retry-After is respected, however many failures arrive meanwhile."""
    box.flush(trigger())
    box.outbox.retry(box.one(), NOW + 60, "429")
    box.flush(trigger(due_at=NOW + 1))
    assert box.due(NOW + 59) == []
    assert box.one(NOW + 60).attempts == 1


def test_order_of_a_route(box: Box) -> None:
    """A route's rows are sent one by one; other routes do not wait."""
    box.flush(trigger("a"), trigger("b"), trigger("c", route="billing"), trigger("d"))
    assert box.keys() == ["a", "c"]
    box.outbox.delivered(box.due()[0], NOW, 1)
    assert box.keys() == ["b", "c"]


def test_order_of_channels(box: Box) -> None:
    """Channels do not wait for each other."""
    box.flush(trigger("a"))
    assert box.outbox.enqueue(report(), NOW)
    assert box.keys() == ["a", "2026-11-22"]


def test_a_retry_holds_back_nobody(box: Box) -> None:
    """A row that is refused repeatedly does not block later pages of its route."""
    box.flush(trigger("a"), trigger("b"), trigger("c", route="billing"))
    box.outbox.retry(box.due()[0], NOW + 30, "503")
    assert box.keys() == ["b", "c"]
    box.outbox.delivered(box.due()[0], NOW, 1)
    assert box.keys() == ["c"]
    assert box.keys(NOW + 30) == ["a", "c"]


def test_the_most_important_first(box: Box) -> None:
    """The most severe new incident first, the newest of equals; then resolutions; then updates."""
    box.flush(
        trigger("update of critical", priority=REFRESH),
        trigger("update of error", priority=REFRESH + 1),
        trigger("over", priority=REFRESH + 1),
        resolve("over"),
        trigger("info", priority=3, at=NOW),
        trigger("error of 11 h", priority=1, at=NOW - 3600),
        trigger("error of 12 h", priority=1, at=NOW),
        trigger("another of 12 h", priority=1, at=NOW),
        trigger("critical of yesterday", priority=0, at=NOW - 86_400),
    )
    order = []
    while due := box.due():
        order.append(f"{due[0].key} {due[0].action}")
        box.outbox.delivered(due[0], NOW, 1)
    assert order == [
        "critical of yesterday trigger",
        "error of 12 h trigger",
        "another of 12 h trigger",
        "error of 11 h trigger",
        "info trigger",
        "update of critical trigger",
        "update of error trigger",
        "over trigger",
        "over resolve",
    ]


def test_a_page_stays_one_however_it_is_refreshed(box: Box) -> None:
    """An undelivered page keeps its priority when its counts grow; after delivery, further changes are an update."""
    box.flush(trigger("a", priority=1, at=NOW))
    box.flush(trigger("a", priority=REFRESH + 1, at=NOW + 5))
    on_its_way = box.one()
    assert (on_its_way.priority, on_its_way.revision) == (1, 2)
    box.flush(trigger("a", priority=REFRESH + 1, at=NOW + 5))
    box.outbox.delivered(on_its_way, NOW, 1)
    assert box.one().priority == REFRESH + 1
    box.flush(trigger("a", priority=0, at=NOW + 6))  # it opens again
    assert box.one().priority == 0


def test_a_resolve_waits_for_its_trigger(box: Box) -> None:
    """Even if the trigger waits for a retry: otherwise it would reopen the incident."""
    box.flush(trigger())
    box.outbox.retry(box.one(), NOW + 30, "503")
    box.flush(resolve())
    assert box.due() == []
    assert box.one(NOW + 30).action is Action.TRIGGER


def test_retries_are_hastened(box: Box) -> None:
    """Those of one channel; rows that are not due yet and other channels are unchanged."""
    box.flush(trigger("a"), trigger("b", route="billing"), trigger("later", due_at=NOW + 60))
    assert box.outbox.enqueue(report(), NOW)
    for item in box.due():
        box.outbox.retry(item, NOW + 300, "timeout")
    assert box.due() == []
    box.outbox.expedite("pagerduty", NOW)
    assert box.keys() == ["a", "b"]
    assert box.due()[0].attempts == 1


def test_an_update_holds_back_nobody(box: Box) -> None:
    """Younger rows overtake a row that is not due, which is sent when it is due."""
    box.flush(trigger("a", due_at=NOW + 600), trigger("b"))
    assert box.keys() == ["b"]
    assert box.keys(NOW + 600) == ["a"]


@pytest.mark.parametrize("ahead", [MAX_WAIT + 1, 366 * 86_400.0])
def test_a_clock_that_was_ahead(box: Box, ahead: float) -> None:
    """A row with a due time from a wrong clock is sent immediately, and does not block others."""
    box.flush(trigger("a", due_at=NOW + ahead), now=NOW + ahead)
    box.outbox.retry(box.one(NOW + ahead), NOW + ahead + 1, "timeout")
    box.flush(trigger("b", due_at=NOW + ahead), now=NOW + ahead)
    box.flush(trigger("c"))
    for key in "abc":
        assert box.one().key == key
        box.outbox.delivered(box.one(), NOW, 1)


def test_a_clock_that_was_a_little_ahead(box: Box) -> None:
    """A row that was not tried yet is sent immediately; after a failure it waits as usual."""
    box.flush(trigger(due_at=NOW + 1800), now=NOW + 1800)
    assert box.keys(NOW) == [KEY]
    box.outbox.retry(box.one(NOW), NOW + 600, "timeout")
    assert box.due(NOW + 599) == []
    box.outbox.delivered(box.one(NOW + 600), NOW + 600, 1)
    box.flush(trigger("interval", due_at=NOW + 900), now=NOW + 630)  # by a replica whose clock is a little ahead
    assert box.due(NOW + 600) == []


def test_the_longest_wait(box: Box) -> None:
    """The maximum Retry-After is respected."""
    box.flush(trigger())
    box.outbox.retry(box.one(), NOW + MAX_WAIT, "429")
    assert box.due(NOW) == box.due(NOW + MAX_WAIT - 1) == []
    assert box.keys(NOW + MAX_WAIT) == [KEY]


def test_limit(box: Box) -> None:
    """At most the requested number of rows, oldest first."""
    box.flush(*(trigger(f"k{i}", route=f"r{i}") for i in range(5)))
    assert [item.key for item in box.outbox.due(NOW, 2)] == ["k0", "k1"]


def test_delivered(box: Box) -> None:
    """A delivered row does not come again, and its incident has the time and the failure count."""
    box.sequence += 1
    box.store.commit(changes(1, incidents=[incident(KEY, count=3)], outbox=[trigger()]))
    box.outbox.delivered(box.one(), NOW + 1, 3)
    assert box.due(NOW + 1000) == []
    assert box.outbox.pending() == {}
    (row,) = box.store.reader.incidents(limit=10).rows
    assert (row.delivered_at, row.delivered_count, row.error) == (NOW + 1, 3, None)


def test_first_delivery_is_remembered(box: Box) -> None:
    """Updates change the delivered count, but not the delivery time."""
    box.sequence += 1
    box.store.commit(changes(1, incidents=[incident(KEY)], outbox=[trigger()]))
    box.outbox.delivered(box.one(), NOW + 1, 1)
    box.flush(trigger())
    box.outbox.delivered(box.one(), NOW + 600, 40)
    (row,) = box.store.reader.incidents(limit=10).rows
    assert (row.delivered_at, row.delivered_count) == (NOW + 1, 40)


def test_the_flush_leaves_the_delivery_alone(box: Box) -> None:
    """The monitor's next change of an incident does not overwrite the notifier's record."""
    box.sequence += 1
    box.store.commit(changes(1, incidents=[incident(KEY)], outbox=[trigger()]))
    box.outbox.delivered(box.one(), NOW + 1, 1)
    box.sequence += 1
    box.store.commit(changes(2, incidents=[incident(KEY, count=2)]))
    (row,) = box.store.reader.incidents(limit=10).rows
    assert (row.incident.count, row.delivered_at, row.delivered_count) == (2, NOW + 1, 1)


def enqueued(channel: str, action: Action = Action.TRIGGER, due_at: float = NOW) -> OutboxRequest:
    """Like ``trigger``, on another channel."""
    return OutboxRequest(channel, KEY, action, "", due_at)


def test_each_channel_has_its_own_delivery(box: Box) -> None:
    """State, attempts, error, and receipt are per channel; the incident combines them."""
    box.sequence += 1
    entries = [enqueued(channel) for channel in ("chat", "oncall", "audit")]
    box.store.commit(changes(1, incidents=[incident(KEY, count=3)], outbox=entries))
    chat, oncall, audit = box.due()
    box.outbox.retry(oncall, NOW + 5, "connection refused")
    box.outbox.dead(audit, NOW, "no such room")
    box.outbox.delivered(chat, NOW + 1, 3, "1700000000.1")
    (row,) = box.store.reader.incidents(limit=10).rows
    assert list(row.deliveries) == [
        ChannelDelivery("audit", "dead", 1, "no such room", None, 0, None),
        ChannelDelivery("chat", "delivered", 1, None, NOW + 1, 3, "1700000000.1"),
        ChannelDelivery("oncall", "pending", 1, "connection refused", None, 0, None),
    ]
    assert (row.delivered_at, row.delivered_count, row.error) == (None, 0, "no such room")
    box.outbox.delivered(box.one(NOW + 5), NOW + 6, 3)
    box.outbox.revive(audit.id, NOW + 7)
    box.outbox.delivered(box.one(NOW + 7), NOW + 8, 2)
    (row,) = box.store.reader.incidents(limit=10).rows
    assert [(one.state, one.attempts, one.error) for one in row.deliveries] == [
        ("delivered", 2, None),
        ("delivered", 1, None),
        ("delivered", 2, None),
    ]
    assert (row.delivered_at, row.delivered_count, row.error) == (NOW + 8, 2, None)


def test_a_delivery_is_pending_as_long_as_anything_waits(box: Box) -> None:
    """A waiting update or resolve makes it pending; later rows see the receipt."""

    def state() -> str:
        (row,) = box.store.reader.incidents(limit=10).rows
        return row.deliveries[0].state

    box.sequence += 1
    box.store.commit(changes(1, incidents=[incident(KEY)], outbox=[enqueued("chat")]))
    assert box.one().receipt is None
    on_its_way = box.one()
    box.flush(enqueued("chat", due_at=NOW + 600))
    box.outbox.delivered(on_its_way, NOW + 1, 1, "1.1")
    assert state() == "pending"
    box.outbox.delivered(box.one(NOW + 600), NOW + 600, 2)
    assert state() == "delivered"
    box.flush(enqueued("chat", Action.RESOLVE))
    assert (state(), box.one().receipt) == ("pending", "1.1")
    box.outbox.delivered(box.one(), NOW + 700, 0)
    assert state() == "delivered"


def test_refreshed_while_sent(box: Box) -> None:
    """A row refreshed while it was sent stays, due at the time of the refresh."""
    box.flush(trigger())
    on_its_way = box.one()
    box.flush(trigger(due_at=NOW + 600))
    box.outbox.delivered(on_its_way, NOW + 1, 1)
    assert box.due(NOW + 599) == []
    again = box.one(NOW + 600)
    assert (again.id, again.attempts) == (on_its_way.id, 0)
    box.outbox.delivered(again, NOW + 600, 2)
    assert box.due(NOW + 9999) == []


def test_retry_records_the_error(box: Box) -> None:
    """Until it is delivered, the row and the incident show why not."""
    box.sequence += 1
    box.store.commit(changes(1, incidents=[incident(KEY)], outbox=[trigger()]))
    box.outbox.retry(box.one(), NOW + 5, "connection refused")
    item = box.one(NOW + 5)
    assert (item.attempts, item.error) == (1, "connection refused")
    (row,) = box.store.reader.incidents(limit=10).rows
    assert (row.error, row.delivered_at) == ("connection refused", None)
    box.outbox.delivered(item, NOW + 5, 1)
    (row,) = box.store.reader.incidents(limit=10).rows
    assert row.error is None


def test_dead_and_revived(box: Box) -> None:
    """A dead row is not sent, blocks nothing, is listed, and is due again when revived."""
    box.sequence += 1
    box.store.commit(changes(1, incidents=[incident(KEY)], outbox=[trigger(), trigger("b")]))
    box.outbox.dead(box.due()[0], NOW, "400 invalid routing key")
    assert box.keys() == ["b"]
    (dead,) = box.outbox.items(dead=True, limit=10).rows
    assert (dead.key, dead.state, dead.error) == (KEY, "dead", "400 invalid routing key")
    (row,) = [r for r in box.store.reader.incidents(limit=10).rows if r.incident.key == KEY]
    assert row.error == "400 invalid routing key"
    assert box.outbox.revive(None, NOW + 1) == 1
    assert box.outbox.revive(None, NOW + 1) == 0
    assert box.one(NOW + 1).key == KEY


def test_an_unknown_outcome(box: Box) -> None:
    """It is neither delivered nor dead: it is listed, and sent again only when that row is revived."""
    box.flush(trigger())
    item = box.one()
    box.outbox.note(item, '{"taken":["a@b"]}')
    box.outbox.uncertain(item, NOW, "may have been delivered")
    assert box.due() == []
    (row,) = box.outbox.items(dead=False, limit=9).rows
    assert (row.state, row.error, row.progress) == ("unknown", "may have been delivered", '{"taken":["a@b"]}')
    assert box.outbox.items(dead=True, limit=9).rows == [row]
    assert (box.outbox.given_up(), box.outbox.unknown()) == ({}, {item.channel: 1})
    assert box.outbox.revive(None, NOW + 1) == 0
    assert box.outbox.revive(item.id, NOW + 1) == 1
    again = box.one(NOW + 1)
    assert (again.attempts, again.progress) == (0, '{"taken":["a@b"]}')


def test_revive_a_waiting_row(box: Box) -> None:
    """A person may shorten the wait for a retry."""
    box.flush(trigger())
    item = box.one()
    box.outbox.retry(item, NOW + 3600, "timeout")
    assert box.outbox.revive(item.id, NOW + 1) == 1
    assert box.one(NOW + 1).id == item.id


def test_revive_unknown(box: Box) -> None:
    """Missing or delivered rows are not revived."""
    box.flush(trigger())
    item = box.one()
    box.outbox.delivered(item, NOW, 1)
    assert box.outbox.revive(item.id, NOW) == 0
    assert box.outbox.revive(999, NOW) == 0


def test_revive_with_a_newer_one_waiting(box: Box) -> None:
    """A dead row whose key has a newer row is not sent twice: the newer one becomes due."""
    box.flush(trigger())
    box.outbox.dead(box.one(), NOW, "400")
    box.flush(trigger(due_at=NOW + 600))
    box.outbox.revive(None, NOW + 1)
    assert box.keys(NOW + 1) == [KEY]
    assert box.outbox.items(dead=True, limit=10).rows == []
    box.outbox.delivered(box.one(NOW + 1), NOW + 1, 1)
    assert box.due(NOW + 9999) == []


@pytest.mark.parametrize("state", ["dead", "waiting", "replaced"])
@pytest.mark.parametrize(("priority", "kind"), [(1, MessageKind.OPENED), (REFRESH + 1, MessageKind.UPDATED)])
def test_a_revived_row_keeps_its_kind(box: Box, state: str, priority: int, kind: MessageKind) -> None:
    """An incident that opened again is new: mail, for example, sends nothing for an update."""
    box.flush(trigger())
    box.outbox.delivered(box.one(), NOW, 1, "receipt")
    box.flush(trigger(priority=priority))
    item = box.one()
    if state == "waiting":
        box.outbox.retry(item, NOW + 300, "timeout")
    else:
        box.outbox.dead(item, NOW, "400")
    if state == "replaced":
        box.flush(trigger(due_at=NOW + 600, priority=priority))
    for _ in range(2):
        box.outbox.revive(item.id if state != "replaced" else None, NOW + 1)
        assert box.one(NOW + 1).kind is kind
    box.flush(trigger("urgent"))
    assert [one.key for one in box.due(NOW + 1)] == [KEY]  # a person's request goes first
    again = box.one(NOW + 1)
    box.flush(trigger(priority=REFRESH + 1))
    assert box.one(NOW + 1).kind is kind
    box.outbox.delivered(again, NOW + 1, 2)
    box.outbox.delivered(box.one(NOW + 1), NOW + 1, 1)  # the other key
    assert (box.one(NOW + 1).key, box.one(NOW + 1).kind) == (KEY, MessageKind.UPDATED)


@pytest.mark.parametrize("which", ["all", "one"])
@pytest.mark.parametrize("end", ["delivered", "dead", "pending"])
def test_revive_a_trigger_of_a_resolved_incident(box: Box, which: str, end: str) -> None:
    """Its resolution is sent again after it: otherwise the incident would stay open for the receiver."""
    box.flush(trigger())
    opened = box.one()
    box.outbox.dead(opened, NOW, "400")
    box.flush(resolve())
    if end == "delivered":
        box.outbox.delivered(box.one(), NOW, 0)
    elif end == "dead":
        box.outbox.dead(box.one(), NOW, "400")
    assert box.outbox.revive(opened.id if which == "one" else None, NOW + 1) >= 1
    again = box.one(NOW + 1)
    assert again.action is Action.TRIGGER
    box.outbox.delivered(again, NOW + 1, 1)
    assert box.one(NOW + 1).action is Action.RESOLVE
    box.outbox.delivered(box.one(NOW + 1), NOW + 1, 0)
    assert box.due(NOW + 9999) == []


def test_revive_a_trigger_and_an_earlier_resolve(box: Box) -> None:
    """The later resolution replaces the earlier one, and is sent once."""
    box.flush(trigger())
    box.outbox.dead(box.one(), NOW, "400")
    for _ in range(2):
        box.flush(resolve())
        box.outbox.dead(box.one(), NOW, "400")
    last = max(item.id for item in box.outbox.items(dead=True, limit=9).rows)
    assert box.outbox.revive(last, NOW) == 1
    box.outbox.delivered(box.one(), NOW, 0)
    box.outbox.revive(None, NOW + 1)
    for action in (Action.TRIGGER, Action.RESOLVE):
        item = box.one(NOW + 1)
        assert item.action is action
        box.outbox.delivered(item, NOW + 1, 0)
    assert (box.due(NOW + 9999), box.outbox.given_up()) == ([], {})


def test_revive_a_resolve_of_a_reopened_incident(box: Box) -> None:
    """It is dropped: it would close the incident for the receiver while the task fails."""
    box.sequence += 1
    box.store.commit(changes(1, incidents=[incident(KEY)], outbox=[trigger()]))
    box.outbox.delivered(box.one(), NOW, 1)
    box.flush(resolve())
    box.outbox.dead(box.one(), NOW, "400")
    box.flush(trigger())
    box.outbox.delivered(box.one(), NOW, 2)
    assert box.outbox.revive(None, NOW + 1) == 0
    assert (box.due(NOW + 9999), box.outbox.given_up()) == ([], {})
    (row,) = box.store.reader.incidents(limit=10).rows
    assert [(one.state, one.delivered_count) for one in row.deliveries] == [("delivered", 2)]


def test_a_report_is_claimed_once(box: Box) -> None:
    """The first claim of a date wins, whatever the state of its row."""
    assert box.outbox.enqueue(report(), NOW)
    assert not box.outbox.enqueue(report(), NOW)
    box.outbox.delivered(box.one(), NOW, 0)
    assert not box.outbox.enqueue(report(), NOW)
    assert box.outbox.enqueue(report("2026-11-23"), NOW)
    box.outbox.dead(box.one(), NOW, "no recipient")
    assert not box.outbox.enqueue(report("2026-11-23"), NOW)
    box.flush(report(), report("2026-11-23"))
    assert box.due() == []


def test_a_resolve_comes_last(box: Box) -> None:
    """A waiting update is sent before a later resolve."""
    box.flush(trigger(due_at=NOW + 600))
    box.flush(resolve(due_at=NOW + 5))
    first = box.one(NOW + 5)
    assert first.action is Action.TRIGGER
    box.outbox.delivered(first, NOW + 5, 1)
    assert box.one(NOW + 5).action is Action.RESOLVE


def test_an_old_resolve_does_not_close_a_new_trigger(box: Box) -> None:
    """An incident that was resolved and reopened while nothing could be sent ends up open."""
    box.flush(trigger())
    box.outbox.retry(box.one(), NOW + 30, "timeout")
    box.flush(resolve())
    box.flush(trigger())
    box.outbox.delivered(box.one(NOW + 30), NOW + 30, 2)
    assert box.due(NOW + 9999) == []
    box.flush(resolve())
    assert box.one().action is Action.RESOLVE


def test_late_outcomes(box: Box) -> None:
    """An outcome for a row that is no longer pending changes nothing."""
    box.flush(trigger())
    item = box.one()
    box.outbox.delivered(item, NOW, 1)
    box.outbox.retry(item, NOW + 1, "late")
    box.outbox.dead(item, NOW + 1, "late")
    assert box.due(NOW + 9999) == []
    assert box.outbox.items(dead=True, limit=10).rows == []


def test_items_page(box: Box) -> None:
    """Rows are listed oldest first, page by page."""
    box.flush(*(trigger(f"k{i}") for i in range(5)))
    first = box.outbox.items(dead=False, limit=3)
    rest = box.outbox.items(dead=False, limit=3, cursor=first.next)
    assert [item.key for item in (*first.rows, *rest.rows)] == [f"k{i}" for i in range(5)]
    assert rest.next is None


def test_items_of_a_time(box: Box) -> None:
    """Rows are listed by creation time; the end of the period is exclusive."""
    for number in range(4):
        box.flush(trigger(f"k{number}"), now=NOW + number)
    found = box.outbox.items(dead=False, limit=10, since=NOW + 1, until=NOW + 3).rows
    assert [item.key for item in found] == ["k1", "k2"]


def test_given_up(box: Box) -> None:
    """The number of given-up rows per channel, without waiting or delivered ones."""
    assert box.outbox.given_up() == {}
    box.flush(trigger("a"), trigger("b"), trigger("c"))
    for _ in range(2):
        box.outbox.dead(box.one(), NOW, "400")
    assert box.outbox.given_up() == {"pagerduty": 2}


def test_last_delivered(box: Box) -> None:
    """The time of each channel's last delivery, regardless of waiting rows."""
    assert box.outbox.last_delivered("pagerduty") is None
    box.flush(trigger("a"), trigger("b"))
    box.outbox.delivered(box.one(), NOW + 1, 1)
    box.outbox.delivered(box.one(), NOW + 2, 1)
    box.flush(trigger("a"))
    assert box.outbox.last_delivered("pagerduty") == NOW + 2
    assert box.outbox.last_delivered("email") is None


def test_incident_as_committed(box: Box) -> None:
    """The message uses the incident's state at the time of sending."""
    assert box.outbox.incident(KEY) is None
    box.sequence += 1
    whole = incident(KEY, count=7, workers={"celery@a": 7}, args="(1,)", runbook_url="https://run.example/charge")
    box.store.commit(changes(1, incidents=[whole]))
    assert box.outbox.incident(KEY) == whole
