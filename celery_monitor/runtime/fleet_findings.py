"""Problems with the workers' answers or events, as text for the page, ``/readyz`` and the log."""

from collections.abc import Collection, Container
from typing import Final

import structlog

from celery_monitor.core.text import printable
from celery_monitor.runtime.inspect_policy import InspectBackoff, MissingEvents, UnresponsiveWorkers

_SILENT: Final = (
    "workers send events but none answers remote control requests: requests are now sent rarely, because a worker "
    "that cannot read one logs an error; check the workers' accept_content (must include json), task_serializer "
    "(must be json: replies use it), control_exchange (compare broker.control_exchange), "
    "worker_enable_remote_control, and on Redis global_keyprefix and fanout_prefix; celery-monitor doctor compares them"
)
_NO_EVENTS: Final = (
    "workers answer remote control requests but none of their events arrives: compare their event_exchange with "
    "broker.exchange (celery-monitor doctor does this); workers that run with --without-heartbeat and have no tasks "
    "send no events either"
)
_NAMED: Final = 5
_MAX_LENGTH: Final = 100

_log = structlog.get_logger()


class FleetFindings:
    """Evaluates each round of requests to the workers. Does no I/O except logging."""

    def __init__(self) -> None:
        self.finding: str | None = None
        """What is wrong, and what to do; None when nothing is."""
        self._unresponsive = UnresponsiveWorkers()
        self._missing_events = MissingEvents()

    def round(
        self, now: float, active_workers: Collection[str], answered: Container[str], messages: int | None
    ) -> None:
        """A request to all workers was answered by some. ``messages``: see MissingEvents. Times are monotonic."""
        self._unresponsive.round(active_workers, answered)
        self._missing_events.round(now, messages)

    def update(self, backoff: InspectBackoff) -> None:
        """Determine the current finding; each is logged once."""
        finding = None
        if backoff.is_backed_off:
            finding = _SILENT
        elif unresponsive := self._unresponsive.names():
            names = ", ".join(printable(hostname, _MAX_LENGTH) for hostname in unresponsive[:_NAMED])
            more = f" and {len(unresponsive) - _NAMED} more" if len(unresponsive) > _NAMED else ""
            finding = (
                f"these workers send events but never answer remote control requests: {names}{more}; their queues "
                "and the names of their current tasks are unknown: check their accept_content, control_exchange and "
                "worker_enable_remote_control"
            )
        elif self._missing_events.found:
            finding = _NO_EVENTS
        if finding is not None and self.finding is None:
            _log.warning(
                "Workers do not answer remote control requests, or their events do not arrive", finding=finding
            )
        elif finding is None and self.finding is not None:
            _log.info("All workers answer remote control requests again, and their events arrive")
        self.finding = finding
