"""Which runs of a worker need no further check."""

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from hypothesis import example, given, settings
from hypothesis import strategies as st

from celery_monitor.core.conditions.hosts import WorkerLiveness
from celery_monitor.core.worker import Liveness

if TYPE_CHECKING:
    from celery_monitor.core.workers import Workers

_WATCHED = 1_000.0
_PURGE = 600.0
_SINCE = st.sampled_from((0.0, 500.0, 995.0, _WATCHED))
_UNIX = st.sampled_from((0.0, 5.0, 12.0, 20.0, 35.0))
_SIGNS = st.builds(
    Liveness,
    last_seen=_SINCE,
    last_sign=_UNIX,
    began=_SINCE,
    began_at=_UNIX,
    stray_at=st.just(0.0) | _SINCE,
    no_heartbeats=st.sampled_from((False, False, True)),
    goodbye=st.just(-math.inf) | _SINCE,
    goodbye_sign=_UNIX,
    idle_at=_UNIX,
    idle_before=_UNIX,
)
_QUIET = Liveness(_WATCHED, 90.0, 0.0, 0.0, 0.0, False, -math.inf, 0.0, 0.0, 0.0)


@settings(max_examples=300)
@given(
    st.lists(_SIGNS | st.none(), min_size=1, max_size=2),
    st.booleans(),
    st.booleans(),
    _UNIX,
    st.sampled_from((30.0, 60.0, 900.0)),
)
@example([_QUIET], False, False, 1.0, 60.0)
def test_runs_after_safe_after_are_neither_ended_nor_lost(
    signs: list[Liveness | None],
    answered: bool,  # noqa: FBT001
    busy: bool,  # noqa: FBT001
    started_at: float,
    silent_for: float,
) -> None:
    """For any state of the worker, now and before, both answers would be no."""
    known: dict[str, Liveness | None] = {}
    liveness = WorkerLiveness(cast("Workers", SimpleNamespace(liveness=known.get)), _PURGE)
    if answered:
        liveness.note_answers(["w"], {"w"} if busy else frozenset(), 500.0)
    for known["w"] in signs:
        safe_after = liveness.safe_after("w", 30.0, _WATCHED)
        if started_at > safe_after:
            assert not liveness.has_ended("w", started_at, _WATCHED, denied_at=None)
            assert liveness.lost_at("w", started_at, silent_for, _WATCHED, finishing_for=0.0) is None


def test_a_worker_that_is_heard_is_safe() -> None:
    """Otherwise every run would need a full check: the usual case must be cheap."""
    liveness = WorkerLiveness(cast("Workers", SimpleNamespace(liveness=lambda _: _QUIET)), _PURGE)
    assert liveness.safe_after("w", 60.0, _WATCHED) == 0.0
    silent = _QUIET._replace(last_seen=_WATCHED - 60.0)
    liveness = WorkerLiveness(cast("Workers", SimpleNamespace(liveness=lambda _: silent)), _PURGE)
    assert liveness.safe_after("w", 60.0, _WATCHED) == math.inf
