"""The state transitions: the next stage of a run, by kind of event and present stage."""

from typing import Final

from celery_monitor.core.model import (
    FAILED,
    RECEIVED,
    REJECTED,
    RETRIED,
    REVOKED,
    SENT,
    STARTED,
    SUCCEEDED,
    Stage,
)

CANCELLED: Final = 8
"""task-cancelled: the worker killed the task, at a cold shutdown or because its connection was lost. Celery sends it
only for started tasks. They count as lost (``core/conditions``) and are counted nowhere else."""

KINDS: Final = {
    "task-sent": SENT,
    "task-received": RECEIVED,
    "task-started": STARTED,
    "task-succeeded": SUCCEEDED,
    "task-failed": FAILED,
    "task-retried": RETRIED,
    "task-rejected": REJECTED,
    "task-revoked": REVOKED,
    "task-cancelled": CANCELLED,
}

_S, _R, _T, _Y, _Q, _OK, _F, _J, _V = map(int, Stage)
"""Plain ints: comparing enum members would double the cost of a transition."""
TRANSITIONS: Final[dict[int, tuple[int, ...]]] = {
    # at:         SENT RECEIVED STARTED RETRYING REQUEUED SUCCEEDED FAILED REJECTED REVOKED
    SENT:        (_S,  _R,      _T,     _Y,      _Q,      _OK,      _F,    _J,      _V),
    RECEIVED:    (_R,  _R,      _R,     _R,      _R,      _R,       _R,    _R,      _R),
    STARTED:     (_T,  _T,      _T,     _T,      _T,      _T,       _T,    _T,      _T),
    SUCCEEDED:   (_OK, _OK,     _OK,    _OK,     _OK,     _OK,      _OK,   _OK,     _OK),
    FAILED:      (_F,  _F,      _F,     _F,      _F,      _F,       _F,    _F,      _F),
    RETRIED:     (_Y,  _R,      _Y,     _Y,      _Y,      _OK,      _F,    _J,      _V),
    REJECTED:    (_J,  _R,      _J,     _J,      _J,      _OK,      _F,    _J,      _V),
    REVOKED:     (_V,  _V,      _V,     _V,      _V,      _OK,      _F,    _J,      _V),
    CANCELLED:   (_V,  _V,      _T,     _V,      _V,      _OK,      _F,    _J,      _V),
}  # fmt: skip
