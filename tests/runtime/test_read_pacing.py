"""Reads are neither small nor late, at any rate."""

import pytest

from celery_monitor.runtime.read_pacing import BATCH, BATCH_BYTES, READ_INTERVAL, ReadPacing

SECONDS = 20.0
TURN = 0.001
"""Seconds that a read takes."""
SIZE = 600
"""Bytes of a message with one event."""


@pytest.mark.parametrize("size", [SIZE, 20 * SIZE])
@pytest.mark.parametrize("rate", [1, 50, 500, 1_000, 1_500, 3_000, 10_000, 50_000])
def test_constant_rate(rate: float, size: int) -> None:
    """Each read returns about a batch, in messages or bytes, or all that arrives in READ_INTERVAL."""
    pacing, now, read, reads, longest = ReadPacing(), 0.0, 0, 0, 0.0
    while now < SECONDS:
        arrived = int(rate * now)
        pacing.note(arrived - read, size * (arrived - read), now)
        read, reads = arrived, reads + 1
        pause = max(0.0, pacing.next_at - now)
        longest, now = max(longest, pause), now + max(pause, TURN)
    assert longest == pytest.approx(READ_INTERVAL) or longest < READ_INTERVAL
    # Right after a read of a batch, the next one may be small.
    batches = max(rate / BATCH, rate * size / BATCH_BYTES)
    assert reads <= 2.1 * SECONDS * min(1 / TURN, max(1 / READ_INTERVAL, batches))


def test_a_backlog_is_read_without_pauses() -> None:
    """The sizes of real reads from RabbitMQ with a backlog; only the small ones are followed by a short pause."""
    pacing, now, paused = ReadPacing(), 0.0, 0.0
    sizes = [2000, 1426, 2, 2000, 572, 2, 2000, 1426, 55, 2000, 519, 2, 2000, 1479, 2] * 5
    for messages in sizes:
        now += 0.03
        pacing.note(messages, messages * SIZE, now)
        pause = max(0.0, pacing.next_at - now)
        paused, now = paused + pause, now + pause
    assert paused < now / 5


def test_a_backlog_of_large_messages() -> None:
    """The sizes of real reads of messages with 20 events: the socket's buffer holds less than BATCH of them."""
    pacing = ReadPacing()
    for now, messages in enumerate([171, 223, 151, 200]):
        pacing.note(messages, messages * 20 * SIZE, float(now))
        assert pacing.next_at == now


def test_a_stream_that_becomes_slow() -> None:
    """The pauses are long again after a second or two, even after 100,000 messages in one read."""
    pacing, now, pause = ReadPacing(), 0.0, 0.0
    pacing.note(100_000, 100_000 * SIZE, now)
    while now < 10 * READ_INTERVAL:
        pacing.note(1, SIZE, now)
        pause, now = pacing.next_at - now, pacing.next_at
    assert pause == pytest.approx(READ_INTERVAL)


def test_a_small_batch() -> None:
    """With a small prefetch, the pauses are shorter at the same rate, so that it is not exhausted."""
    now, pacing, usual = 0.0, ReadPacing(batch=25), ReadPacing()
    for _ in range(20):
        for one in (pacing, usual):
            one.note(20, 20 * SIZE, now)
        assert pacing.next_at <= usual.next_at
        now += 0.05
    assert 0.0 < pacing.next_at - 0.95 < 0.4 * READ_INTERVAL
    assert usual.next_at - 0.95 == pytest.approx(READ_INTERVAL)


def test_a_maximum_pause() -> None:
    """A page is committed sooner."""
    pacing = ReadPacing()
    pacing.note(1, SIZE, 10.0, max_pause=0.05)
    assert pacing.next_at == pytest.approx(10.05)
    pacing.note(BATCH, BATCH * SIZE, 11.0, max_pause=0.05)
    assert pacing.next_at == 11.0
