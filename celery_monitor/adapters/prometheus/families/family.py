"""What a metric family is."""

import enum
from dataclasses import dataclass


class Kind(enum.StrEnum):
    """Types as OpenMetrics names them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family. ``name`` has neither the prefix nor the ``_total`` or ``_info`` of its samples."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    """Only where the name ends in it: OpenMetrics asks for that, and the drop-in names cannot change."""

    @property
    def sample(self) -> str:
        """The name by which queries know it."""
        return self.name + {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(self.kind, "")
