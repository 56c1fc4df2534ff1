"""The interfaces between the runtime and the outside, as Protocols.

Implemented in ``adapters``, and in memory in ``tests/fakes.py``. Constructors do no I/O; ``start`` acquires resources;
``stop`` releases them, is bounded in time and idempotent.
"""

from celery_monitor.ports.channel import ChannelInfo, RepeatingSender, Sender, Sent
from celery_monitor.ports.clock import DEADLINE, Clock
from celery_monitor.ports.fleet import FleetControl
from celery_monitor.ports.outbox import Outbox
from celery_monitor.ports.reader import (
    ENDED_SEARCHED,
    MESSAGES_SEARCHED,
    EndedFilter,
    FailureFilter,
    Reader,
    TaskRow,
    TaskView,
)
from celery_monitor.ports.sign_in import Identity, IdentityProvider, SignInAttempt
from celery_monitor.ports.store import LeaseState, SilenceBook, Store, StoreSpace
from celery_monitor.ports.stream import Batch, CrashMarks, EventSource, Probe, Replay
from celery_monitor.ports.web import HealthReport, Metrics, OtherFleet, Scrape

__all__ = [
    "DEADLINE",
    "ENDED_SEARCHED",
    "MESSAGES_SEARCHED",
    "Batch",
    "ChannelInfo",
    "Clock",
    "CrashMarks",
    "EndedFilter",
    "EventSource",
    "FailureFilter",
    "FleetControl",
    "HealthReport",
    "Identity",
    "IdentityProvider",
    "LeaseState",
    "Metrics",
    "OtherFleet",
    "Outbox",
    "Probe",
    "Reader",
    "RepeatingSender",
    "Replay",
    "Scrape",
    "Sender",
    "Sent",
    "SignInAttempt",
    "SilenceBook",
    "Store",
    "StoreSpace",
    "TaskRow",
    "TaskView",
]
