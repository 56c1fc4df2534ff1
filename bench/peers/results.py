"""What bench/side_by_side.py has measured, as it is kept in a file."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

KEPT: Final = Path("build/side_by_side.json")


@dataclass
class Results:
    """Everything that was measured."""

    machine: str
    """When and where, for a sentence."""
    size: str
    """How much, for a sentence."""
    streams: list[dict[str, Any]] = field(default_factory=list)
    """The fields of each Measured."""
    pages: dict[str, list[list[float]]] = field(default_factory=dict)
    """Broker → for each run, what its pages took, sorted, in seconds."""
    seconds: float = 0.0
    """That all of it took."""

    def keep(self) -> None:
        """Write them down."""
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps(asdict(self), indent=1))
