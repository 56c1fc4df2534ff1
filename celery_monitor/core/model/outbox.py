"""Rows of the outbox: notifications to send."""

import enum
import hashlib
from dataclasses import dataclass
from typing import Final

import msgspec


class Action(enum.StrEnum):
    """The action of an outbox row. ``trigger`` both opens and updates an incident."""

    TRIGGER = "trigger"
    RESOLVE = "resolve"
    REPORT = "report"


class MessageKind(enum.StrEnum):
    """The kind of message that an incident's row sends to its channel."""

    OPENED = "opened"
    """A new or reopened incident."""
    UPDATED = "updated"
    RESOLVED = "resolved"


ASKED_FOR: Final = -1
"""Priority of a row that a person has asked to retry and that opens no incident."""
ASKED_FOR_OPENING: Final = -2
"""Priority of a row that a person has asked to retry and that opens an incident."""
FIRST_UPDATE: Final = 4
"""Lower priorities, equal to the index of the severity, open an incident. A resolve has this priority, refreshes have
higher numbers."""
REFRESH: Final = 5
"""Added to the index of the severity for a row that updates an open incident."""


class OutboxRequest(msgspec.Struct, frozen=True, gc=False):
    """Requests an outbox row. If a row of the same (channel, key, action) is pending, the store updates it instead."""

    channel: str
    """The name of its channel."""
    key: str
    """The incident's key, or the report's date (YYYY-MM-DD)."""
    action: Action
    route: str = ""
    due_at: float = 0.0
    priority: int = 0
    """Lowest number first."""
    at: float = 0.0
    """Among equal priorities, the newest is sent first."""


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """A row of the outbox."""

    id: int
    channel: str
    key: str
    action: Action
    route: str
    revision: int
    """Incremented when the row is updated; the delivery of an older revision leaves it pending."""
    attempts: int
    created_at: float
    due_at: float
    state: str
    """pending, delivered, dead, or unknown (it may have been delivered)."""
    error: str | None = None
    """Error of the last attempt, without secrets."""
    delivered_at: float | None = None
    priority: int = 0
    progress: str | None = None
    """State that the sender stores with the row."""
    receipt: str | None = None
    """The receiver's identifier of the incident, from an earlier delivery on this channel."""

    @property
    def kind(self) -> MessageKind:
        """The message kind of an incident's row. If the receiver does not have the incident yet, it is OPENED."""
        if self.action is Action.RESOLVE:
            return MessageKind.RESOLVED
        return MessageKind.OPENED if self.opens or self.receipt is None else MessageKind.UPDATED

    @property
    def opens(self) -> bool:
        """Whether it is a trigger that opens its incident or opens it again."""
        return self.action is Action.TRIGGER and (
            0 <= self.priority < FIRST_UPDATE or self.priority == ASKED_FOR_OPENING
        )

    @property
    def asked_for(self) -> bool:
        """Whether a person has asked to retry it."""
        return self.priority < 0

    @property
    def event_id(self) -> str:
        """ID of the message: the same for each attempt, different for each revision."""
        parts = f"{self.channel}/{self.key}/{self.action}/{self.id}/{self.revision}/{self.created_at!r}"
        return f"msg_{hashlib.blake2b(parts.encode('utf-8', 'replace'), digest_size=16).hexdigest()}"
