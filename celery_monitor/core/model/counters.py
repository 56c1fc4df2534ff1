"""Names of the monitor's own counters, as stored."""

import enum
from collections.abc import Mapping
from typing import NewType

LabelledCounter = NewType("LabelledCounter", str)
"""Name of a counter of a ``CounterFamily``."""


class CounterName(enum.StrEnum):
    """Counters without a label, and two timestamps. The names are stored, so they never change."""

    MESSAGES = "messages"
    STARTS = "starts"
    UPTIME = "uptime_seconds"
    STREAM_GAP = "stream_gap_seconds"
    RECONNECTS = "reconnects"
    UNOBSERVED = "unobserved"
    UNNAMED_FAILURES = "unnamed_failures"
    TOO_OLD_FAILURES = "too_old_failures"
    SILENCED_FAILURES = "silenced_failures"
    """Failures covered by a silence or a mute window."""
    STORE_ROLLED_BACK = "store_rolled_back"
    EVICTED_TASKS = "evicted"
    TASK_NAMES_OVER_LIMIT = "task_names_over_limit"
    READ_UNTIL = "read_until"
    """A timestamp: everything published before it is counted. Missing if the monitor may not publish probes."""
    ALIVE_AT = "alive_at"
    """A timestamp: the last flush."""


class CounterFamily(enum.StrEnum):
    """Counters with one label. The name of each is ``family.label``."""

    EVENTS = "events"
    """By type of event."""
    DISCARDED = "discarded"
    """By reason."""
    INCIDENTS = "incidents"
    """By reason."""
    LOST = "lost"
    """By task: runs that were lost with their worker."""
    MISSED = "missed"
    """By schedule: expected starts that were missed."""
    UNJUDGED = "unjudged"
    """By schedule: expected starts that could not be judged, because events of that time are lost."""
    LIMIT = "limit"
    """By bound: how often it was exceeded."""

    def counter(self, label: str) -> LabelledCounter:
        """Name of the counter for a label."""
        return LabelledCounter(f"{self.value}.{label}")

    def label(self, name: str) -> str | None:
        """Label of a counter's name; None if the counter is not of this family."""
        family, separator, label = name.partition(".")
        return label if separator and family == self.value else None

    def of(self, counters: Mapping[str, float]) -> dict[str, float]:
        """This family's counters by label."""
        return {label: value for name, value in counters.items() if (label := self.label(name)) is not None}
