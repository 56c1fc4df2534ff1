"""The delivery state of each recipient of one mail. It is stored in the mail's outbox row and so survives a restart.

Recipients are claimed before the whole mail is sent to the server. A claim that another process finds was left by a
process that died in between. Then it is unknown whether the server has the mail, as it is when the server did not
answer. Such a recipient is retried after UNKNOWN_RETRY_DELAY, with MAX_ATTEMPTS attempts in total.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from celery_monitor.adapters.channels.email.answers import Refusal
from celery_monitor.adapters.channels.email.smtp import Journal
from celery_monitor.settings import email_address

MAX_ATTEMPTS: Final = 3
"""Maximum number of attempts for a mail whose outcome stays unknown."""
UNKNOWN_RETRY_DELAY: Final = 1800.0
"""Seconds between two of these attempts."""


class _ProgressState(msgspec.Struct, omit_defaults=True):
    """The stored state. Recipients are identified by their mailbox, regardless of how their names are written."""

    taken: set[str] = msgspec.field(default_factory=set)
    refused: dict[str, str] = msgspec.field(default_factory=dict)
    """Permanently refused recipients, with the server's answer."""
    unknown: dict[str, int] = msgspec.field(default_factory=dict)
    """How often the outcome was unknown, by recipient."""
    claimed: set[str] = msgspec.field(default_factory=set)
    attempt: int = -1
    """The row's number of attempts before the last one with an unknown outcome."""


class Progress(Journal):
    """The progress of one row. ``keep`` stores the text at each change, ``keep_claim`` when recipients are claimed."""

    def __init__(
        self, text: str | None, keep: Callable[[str], None], keep_claim: Callable[[str], None] | None = None
    ) -> None:
        """``text``: the stored text; None at first. If ``keep_claim`` raises, the mail is not sent."""
        self._state = _read(text)
        self._keep = keep
        self._keep_claim = keep_claim or keep
        self._attempts = 0
        self._waiting: set[str] = set()
        """Recipients that this attempt skips, because their outcome has just become unknown."""

    def begin(self, attempts: int) -> None:
        """Begin an attempt of the row, after this many ``attempts``."""
        state, self._attempts = self._state, attempts
        self._waiting = set()
        if state.claimed:
            self._lose(state.claimed)
        elif state.unknown and state.attempt == attempts:
            self._waiting = set(state.unknown)  # the attempt itself was not recorded
        elif attempts == 0:  # somebody requested a retry
            state.unknown.clear()
            if not state.taken:  # the mail was given up, and what it was refused for has been repaired
                state.refused.clear()
        self._save()

    def pending(self, recipients: Sequence[str]) -> list[str]:
        """The recipients to try now."""
        state = self._state
        done = state.taken | state.refused.keys() | self._waiting
        done |= {name for name, times in state.unknown.items() if times >= MAX_ATTEMPTS}
        return [recipient for recipient in recipients if _identity(recipient) not in done]

    def open(self, recipients: Sequence[str]) -> list[str]:
        """The recipients with an unknown outcome that will be retried."""
        return [name for name in recipients if 0 < self._state.unknown.get(_identity(name), 0) < MAX_ATTEMPTS]

    def unknown(self, recipients: Sequence[str]) -> list[str]:
        """The recipients with an unknown outcome."""
        return [name for name in recipients if _identity(name) in self._state.unknown]

    def refused(self, recipients: Sequence[str]) -> dict[str, str]:
        """The permanently refused recipients, with the server's answer."""
        refused = self._state.refused
        return {name: refused[_identity(name)] for name in recipients if _identity(name) in refused}

    def accepted(self, recipients: Sequence[str]) -> list[str]:
        """The recipients for which the server accepted the mail."""
        return [name for name in recipients if _identity(name) in self._state.taken]

    def refuse(self, recipients: Sequence[str], why: str) -> None:
        """Record that these recipients will not get the mail."""
        self._state.refused |= {_identity(name): why for name in recipients}
        self._save()

    # --- Journal -----------------------------------------------------------------------------------------------------
    def claim(self, recipients: Sequence[str]) -> None:
        """See Journal."""
        self._state.claimed = {_identity(name) for name in recipients}
        self._keep_claim(self._text())

    def settle(self, accepted: Sequence[str], refused: Mapping[str, Refusal], unknown: Sequence[str]) -> None:
        """See Journal."""
        state = self._state
        state.claimed = set()
        state.taken |= {_identity(name) for name in accepted}
        state.refused |= {_identity(name): str(refusal) for name, refusal in refused.items() if refusal.final}
        for name in state.taken | state.refused.keys():
            state.unknown.pop(name, None)
        if unknown:
            self._lose({_identity(name) for name in unknown})
        self._save()

    def _lose(self, identities: set[str]) -> None:
        state = self._state
        self._waiting = set(identities)
        for name in identities:
            state.unknown[name] = state.unknown.get(name, 0) + 1
        state.claimed = set()
        state.attempt = self._attempts

    def _save(self) -> None:
        self._keep(self._text())

    def _text(self) -> str:
        return msgspec.json.encode(self._state).decode()


def _identity(recipient: str) -> str:
    try:
        return email_address.parse(recipient).identity
    except ValueError:
        return recipient


def _read(text: str | None) -> _ProgressState:
    try:
        return _ProgressState() if text is None else msgspec.json.decode(text, type=_ProgressState)
    except msgspec.MsgspecError:
        return _ProgressState()
