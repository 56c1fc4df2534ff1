"""The definition of a metric family."""

import enum
from dataclasses import dataclass


class Kind(enum.StrEnum):
    """OpenMetrics metric types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family. ``name`` contains neither the prefix nor the suffix ``_total`` or ``_info`` of its samples."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    """Set only if the name ends in it, as OpenMetrics requires; the drop-in names cannot change."""

    @property
    def sample(self) -> str:
        """The sample name, which queries use."""
        return self.name + {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(self.kind, "")
