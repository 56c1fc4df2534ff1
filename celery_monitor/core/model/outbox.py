"""Rows of the outbox: notifications to be sent."""

import enum
import hashlib
from dataclasses import dataclass
from typing import Final

import msgspec


class Action(enum.StrEnum):
    """What an outbox row does. ``trigger`` both opens and updates."""

    TRIGGER = "trigger"
    RESOLVE = "resolve"
    REPORT = "report"


class MessageKind(enum.StrEnum):
    """What a row of an incident tells the receiver of its channel."""

    OPENED = "opened"
    """A new incident, or one that was resolved and is open again."""
    UPDATED = "updated"
    RESOLVED = "resolved"


ASKED_FOR: Final = -1
"""Priority of a row that a person wants to be tried again."""
FIRST_UPDATE: Final = 4
"""Priorities below it open an incident: the severity's place. A resolve has this one, refreshes have those above."""
REFRESH: Final = 5
"""What is added to the severity's place for a row that tells of an incident that is open already."""


class OutboxRequest(msgspec.Struct, frozen=True, gc=False):
    """Asks the store for an outbox row. A pending row of the same (channel, key, action) is refreshed instead."""

    channel: str
    """The name of the channel that it goes to."""
    key: str
    """The incident's key, or the report's date (YYYY-MM-DD)."""
    action: Action
    route: str = ""
    due_at: float = 0.0
    priority: int = 0
    """The lowest is sent first."""
    at: float = 0.0
    """Of equal priorities, the newest is sent first."""


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """A row of the outbox: waiting, delivered, dead, or of unknown outcome."""

    id: int
    channel: str
    key: str
    action: Action
    route: str
    revision: int
    """Grows when the row is refreshed; a delivery of an older revision leaves it pending."""
    attempts: int
    created_at: float
    due_at: float
    state: str
    """pending, delivered, dead, or unknown (it may have been delivered)."""
    error: str | None = None
    """Of the last attempt, without secrets."""
    delivered_at: float | None = None
    priority: int = 0
    progress: str | None = None
    """What the sender keeps with the row, of itself."""
    receipt: str | None = None
    """The receiver's identifier of the incident, from an earlier delivery on this channel."""

    @property
    def kind(self) -> MessageKind:
        """Of a row of an incident. An incident that the receiver has not had yet is opened, however much it grew."""
        if self.action is Action.RESOLVE:
            return MessageKind.RESOLVED
        is_opening = 0 <= self.priority < FIRST_UPDATE
        return MessageKind.OPENED if is_opening or self.receipt is None else MessageKind.UPDATED

    @property
    def event_id(self) -> str:
        """Of what the row tells: the same for each attempt, another one when there is more to tell."""
        parts = f"{self.channel}/{self.key}/{self.action}/{self.id}/{self.revision}/{self.created_at!r}"
        return f"msg_{hashlib.blake2b(parts.encode('utf-8', 'replace'), digest_size=16).hexdigest()}"
