import pytest

from celery_monitor.core.backoff import delay


@pytest.mark.parametrize(("attempt", "longest"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (11, 300), (10**9, 300)])
def test_interval_doubles_up_to_the_cap(attempt: int, longest: float) -> None:
    """The interval is 1 s after the first failure, doubles, and is at most 300 s."""
    assert delay(attempt, 1.0) == longest


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.999])
def test_full_jitter(fraction: float) -> None:
    """The delay is a random fraction of the whole interval, starting from zero."""
    assert delay(4, fraction) == pytest.approx(8 * fraction)


def test_reconnects_have_their_own_base_and_cap() -> None:
    """Base and cap are parameters."""
    assert [delay(n, 1.0, base=0.5, cap=3.0) for n in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 3.0]


def test_no_failure_yet_counts_as_one() -> None:
    """An attempt number below 1 gives the interval of the first failure."""
    assert delay(0, 1.0) == delay(-5, 1.0) == 1.0
