"""The measurements of bench/side_by_side.py and their file."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

RESULTS_FILE: Final = Path("build/side_by_side.json")


@dataclass
class Results:
    """All measurements."""

    machine: str
    """The date and the machine, for a sentence."""
    size: str
    """The size of the measurement, for a sentence."""
    streams: list[dict[str, Any]] = field(default_factory=list)
    """The fields of each Measured."""
    pages: dict[str, list[list[float]]] = field(default_factory=dict)
    """Broker → for each run, the sorted durations of its pages in seconds."""
    seconds: float = 0.0
    """The total duration."""

    def keep(self) -> None:
        """Write the results to the file."""
        RESULTS_FILE.parent.mkdir(exist_ok=True)
        RESULTS_FILE.write_text(json.dumps(asdict(self), indent=1))
