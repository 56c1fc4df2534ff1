"""The ring buffer of a standby, and what a process may do under its lease."""

import pytest

from celery_monitor.core.leadership import Leadership
from celery_monitor.core.model import Delivery
from celery_monitor.core.replay import OVERHEAD, ReplayRing, Resumption, position_of


def deliveries(tags: str) -> list[Delivery]:
    """One message for each letter."""
    return [Delivery(b"", tag=tag) for tag in tags]


def at(position: str | None) -> str | None:
    """The position of the message with this letter."""
    return position_of(Delivery(b"", tag=position)) if position else None


def ring(history: str, max_bytes: int = 1_000_000, max_age: float = 1e9) -> ReplayRing:
    """A ring buffer: ``<`` subscribes, ``>`` disconnects, letters are messages; a second passes before each."""
    made, now = ReplayRing(max_bytes, max_age), 100.0
    for step in history:
        now += 1
        if step == "<":
            made.subscribed(now)
        elif step == ">":
            made.lost(now)
        else:
            made.add(deliveries(step), now)
    return made


@pytest.mark.parametrize(
    ("history", "position", "alive_at", "applied", "gap", "watched_until"),
    [
        pytest.param("<abc", "a", 102, "bc", 0, None, id="what comes after the position"),
        pytest.param("<abc", "c", 104, "", 0, None, id="all is committed"),
        pytest.param("<abc", None, None, "abc", 0, None, id="nothing was ever committed"),
        pytest.param("<abc", None, 99, "abc", 2, None, id="nothing committed since a leader began"),
        pytest.param("<abc", "z", 99, "abc", 2, None, id="the position came before the subscription"),
        pytest.param("<abc", "z", 105, "abc", 0, None, id="and the leader was alive after it"),
        pytest.param("", "a", 99, "", 0, 99, id="never subscribed"),
        pytest.param("<ab>", "a", 102, "b", 0, 104, id="not connected"),
        pytest.param("<ab>", "z", 102, "", 0, 102, id="not connected, and the position may be later"),
        pytest.param("<ab><cd", "a", 102, "bcd", 1, None, id="a gap between two connections"),
        pytest.param("<ab><cd", "d", 107, "", 0, None, id="a gap that the leader did not have"),
        pytest.param("<ab><cd", "z", 104.5, "cd", 0.5, None, id="a position in the gap"),
        pytest.param("<ab><>>", "b", 103, "", 0, 104, id="a connection that brought nothing"),
        pytest.param("<ab>", "b", 103, "", 0, 104, id="the gap begins with the loss, not with the position"),
    ],
)
def test_a_message_is_committed_or_applied(
    history: str,
    position: str | None,
    alive_at: float | None,
    *,
    applied: str,
    gap: float,
    watched_until: float | None,
) -> None:
    """Messages after the position are applied, those before it are not, and missing ones are a gap."""
    resumption = ring(history).resume(at(position), alive_at)
    assert "".join(one.tag for one in resumption.deliveries) == applied
    assert (resumption.gap, resumption.watched_until) == (gap, watched_until)


def test_trimming_changes_nothing_but_the_size() -> None:
    """After any trim, a take-over applies the same messages as without it."""
    for history in ("<abcd", "<ab><cd", "<ab>"):
        for position in "abcd":
            for trimmed in "abcd":
                if trimmed <= position and position in history:
                    made = ring(history)
                    assert made.trim(at(trimmed)) == (trimmed in history)
                    assert made.resume(at(position), 100.0) == ring(history).resume(at(position), 100.0)


def test_the_ring_is_empty_after_what_is_committed() -> None:
    """A trim frees the memory of everything up to the position."""
    made = ring("<ab><cd")
    assert made.trim(at("d"))
    assert (len(made), made.bytes) == (0, 0)
    assert not made.trim(at("z"))


@pytest.mark.parametrize(
    ("bounds", "position", "gap"),
    [
        pytest.param({"max_bytes": 2 * OVERHEAD}, "a", 2.0, id="bytes"),
        pytest.param({"max_age": 1.0}, "a", 2.0, id="seconds"),
        pytest.param({"max_bytes": 2 * OVERHEAD}, "b", 0.0, id="just enough"),
    ],
)
def test_what_did_not_fit_is_a_gap(bounds: dict[str, float], position: str, gap: float) -> None:
    """A buffer that dropped uncommitted messages reports their time as a gap, and never applies a message twice."""
    made = ring("<abcd", **bounds)  # type: ignore[arg-type]
    assert made.dropped == 2
    resumption = made.resume(at(position), 101.0)
    assert ("".join(one.tag for one in resumption.deliveries), resumption.gap) == ("cd", gap)


def test_an_overflowing_ring_lets_go_of_ended_connections() -> None:
    """The limit in bytes applies to all connections together."""
    made = ring("<ab>" * 10, max_bytes=3 * OVERHEAD)
    assert len(made) == 3
    assert made.bytes <= 3 * OVERHEAD


def test_a_ring_is_used_once() -> None:
    """A second resumption returns nothing: no message is returned twice."""
    made = ring("<ab")
    made.resume(None, None)
    assert made.resume(None, 5.0) == Resumption(watched_until=5.0)


def test_senders_without_tags_of_their_own() -> None:
    """Messages of a library that gives all the same tag are distinguished by their contents."""
    made = ReplayRing(1_000_000, 1e9)
    made.subscribed(1.0)
    alike = [Delivery(b"%d" % number, tag="constant") for number in range(4)]
    made.add(alike, 2.0)
    made.trim(position_of(alike[1]))
    assert made.resume(position_of(alike[2]), 1.0).deliveries == [alike[3]]


def test_a_lease_is_trusted_for_less_than_it_holds() -> None:
    """Notifications stop first, then messages are released. A renewal counts from its request."""
    term = Leadership(4.0, 100.0)
    assert (term.may_send(102.9), term.may_send(103.0)) == (True, False)
    assert (term.may_consume(103.9), term.may_consume(104.0)) == (True, False)
    term.renewed(102.0)
    term.renewed(101.0)
    assert (term.may_send(104.9), term.may_consume(105.9)) == (True, True)


def test_a_term_ends_once() -> None:
    """Neither a late answer to a renewal nor a second reason restores a lost lease."""
    term = Leadership(4.0, 100.0)
    term.end("another one leads")
    term.renewed(200.0)
    term.end("resigned")
    assert (term.may_send(100.0), term.may_consume(100.0), term.end_reason) == (False, False, "another one leads")


def test_a_store_is_unreachable_after_the_trust_has_ended() -> None:
    """A renewal reports it only if it failed after the previous renewal's trusted time, whenever it began."""
    term = Leadership(4.0, 100.0)
    term.failed(102.0)
    assert not term.unreachable()
    term.failed(103.0)
    assert term.unreachable()
    term.renewed(104.0)
    assert not term.unreachable()
