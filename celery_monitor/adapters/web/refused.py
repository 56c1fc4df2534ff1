"""The refusal of a request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RefusedReason = Literal["wrong", "throttled", "header", "group", "answer", "provider"]
"""Reasons: see the metric ``monitor_sign_ins_refused``."""
REASONS: tuple[RefusedReason, ...] = ("wrong", "throttled", "header", "group", "answer", "provider")


@dataclass(frozen=True, slots=True)
class Refused:
    """Status, message, headers and reason of a refusal."""

    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: RefusedReason | None = None
    """None if there was no attempt to sign in, which is not counted."""
    retry: bool = False
    """Whether a sign-in with the provider may help, so that the page links to it."""

    @property
    def redirectable(self) -> bool:
        """Whether a browser can be redirected to the sign-in, because there was no attempt yet."""
        return self.retry and self.reason is None
