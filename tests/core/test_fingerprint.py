"""Recognises messages that were applied before."""

import time

from celery_monitor.core.fingerprint import MAX_EPOCHS, Fingerprints, fingerprint_of
from celery_monitor.core.model import Delivery


def messages(number: int, start: int = 0) -> list[Delivery]:
    """Messages flagged as redelivered, each with a different body."""
    return [Delivery(b"%d" % one, redelivered=True) for one in range(start, start + number)]


def test_a_smaller_prefetch_forgets_nothing() -> None:
    """Messages delivered under a larger prefetch are recognised when they are redelivered under a smaller one."""
    messages = [Delivery(b"%d" % number, redelivered=True) for number in range(50)]
    before = Fingerprints(capacity=50)
    before.connected(acknowledges=True)
    for message in messages:
        before.is_redelivered_duplicate(message)

    after = Fingerprints(capacity=5)
    after.restore(before.epoch, [(before.epoch, before.take())])
    after.connected(acknowledges=True)

    assert all(after.is_redelivered_duplicate(message) for message in messages)


def test_fingerprints_of_the_version_before_are_known() -> None:
    """Version 0.2.0 stored blake2b. Its unacknowledged messages are redelivered to its successor."""
    after = Fingerprints(capacity=5)
    after.restore(7, [(7, b"".join(fingerprint_of(message.body) for message in messages(3)))])
    after.connected(acknowledges=True)

    assert [after.is_redelivered_duplicate(message) for message in messages(4)] == [True, True, True, False]


def test_the_newest_of_a_connection_are_known_on_it() -> None:
    """A quorum queue whose leader moves redelivers all unacknowledged messages on the same connection."""
    of = Fingerprints(capacity=50)
    of.connected(acknowledges=True)
    assert not any(of.is_redelivered_duplicate(one) for one in messages(175))
    assert all(of.is_redelivered_duplicate(one) for one in messages(50, 125))
    assert all(of.is_redelivered_duplicate(one) for one in messages(50, 125))


def test_what_comes_again_and_again_stays_known() -> None:
    """While the store is unavailable, each connection redelivers the same messages, and none is acknowledged."""
    of = Fingerprints(capacity=50)
    of.connected(acknowledges=True)
    assert not any(of.is_redelivered_duplicate(one) for one in messages(50))
    for _ in range(3 * MAX_EPOCHS):
        of.connected(acknowledges=True)
        assert all(of.is_redelivered_duplicate(one) for one in messages(50))


def test_a_full_prefetch_of_unknown_messages_costs_no_more_for_each() -> None:
    """Unknown flagged messages take the same time each, as the lock is held meanwhile."""
    of = Fingerprints(capacity=30_000)
    of.connected(acknowledges=True)
    coming = messages(30_000)
    began = time.process_time()
    assert not any(of.is_redelivered_duplicate(one) for one in coming)
    assert time.process_time() - began < 1.0
