"""The answer to somebody who may not go on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RefusedReason = Literal["wrong", "throttled", "header", "group", "answer", "provider"]
"""Why: see the metric ``monitor_sign_ins_refused``."""
REASONS: tuple[RefusedReason, ...] = ("wrong", "throttled", "header", "group", "answer", "provider")


@dataclass(frozen=True, slots=True)
class Refused:
    """A status, the message for the person, and how the answer goes on."""

    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: RefusedReason | None = None
    """None: nobody tried to sign in, which is not counted."""
    retry: bool = False
    """Signing in by the provider may help: the page leads there."""

    @property
    def leads(self) -> bool:
        """Nobody tried to sign in, so a browser can be led there at once."""
        return self.retry and self.reason is None
