"""Sends the outbox rows of a mail channel for incidents: one mail when an incident opens, and one when it resolves."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from celery_monitor.adapters.channels import page_of
from celery_monitor.adapters.channels.email import message
from celery_monitor.adapters.channels.email.delivery import Draft, MailSender, required
from celery_monitor.adapters.channels.email.session import SmtpServer
from celery_monitor.adapters.channels.email.text import printable_text
from celery_monitor.core.headline import headline, line, paragraphs
from celery_monitor.core.model import Incident, MessageKind, OutboxItem
from celery_monitor.errors import RejectedError
from celery_monitor.ports import Sent

INCIDENTS: Final = "incidents"
"""What recipients receive from this address, for the test mail."""
_SUBJECT: Final = 200
_TEXT: Final = 8_000
_ID: Final = re.compile(r"<[\x21-\x3b\x3d\x3f-\x7e]{1,900}>\Z")


class IncidentMailer(MailSender):
    """Sender of a mail channel for incidents."""

    def __init__(
        self,
        *,
        channel: str,
        server: SmtpServer,
        sender: str | None,
        to: Sequence[str],
        incident: Callable[[str], Incident | None],
        note: Callable[[OutboxItem, str], None],
        external_url: str | None,
        replicated: bool = False,
    ) -> None:
        """``incident`` returns the committed state of an incident and may raise StoreUnavailableError."""
        super().__init__(channel=channel, server=server, sender=sender, to=to, note=note, replicated=replicated)
        self._incident = incident
        self._external_url = external_url

    def draft(self, item: OutboxItem) -> Draft | Sent:
        """The mail of the row. Nothing is sent for further failures of an open incident."""
        incident, kind = self._incident(item.key), item.kind
        if kind is MessageKind.UPDATED:
            return Sent(0, item.receipt, skipped=True)
        if kind is MessageKind.RESOLVED and item.receipt is None:
            return Sent(0)  # no mail was sent when it opened
        if incident is None:
            raise RejectedError("its incident is older than store.retention and no longer stored")
        sender = required(self._from, self._to)
        identity = _identity(item)
        compose = partial(
            _compose,
            incident,
            kind,
            identity=identity,
            at=item.created_at,
            replies_to=item.receipt if item.receipt and _ID.match(item.receipt) else None,
            sender=sender,
            to=self._to,
            external_url=self._external_url,
        )
        receipt = item.receipt or message.message_id(identity, sender)
        return Draft(compose, 0 if kind is MessageKind.RESOLVED else incident.count, receipt)


def subject_of(incident: Incident, kind: MessageKind) -> str:
    """One line that begins with the severity."""
    prefix = "Resolved" if kind is MessageKind.RESOLVED else str(incident.severity).upper()
    return printable_text(line(f"{prefix}: {headline(incident)}", _SUBJECT))


def body_of(incident: Incident, kind: MessageKind, external_url: str | None) -> str:
    """The body as plain text, in which nothing is interpreted as markup."""
    head, *rest = paragraphs(incident, resolved=kind is MessageKind.RESOLVED, limit=_TEXT)
    links = [(page_of(external_url, incident.key), "Incident"), (incident.runbook_url, "Runbook")]
    links_text = "\n".join(f"{label}: {url}" for url, label in links if url)
    parts = [head, *([links_text] if links_text else []), *rest]
    return "\n\n".join(printable_text(part, lines=True) for part in parts) + "\n"


def _compose(
    incident: Incident,
    kind: MessageKind,
    _refused: Mapping[str, str],
    *,
    identity: str,
    at: float,
    replies_to: str | None,
    sender: str,
    to: Sequence[str],
    external_url: str | None,
    international: bool,
) -> bytes:
    return message.incident(
        sender=sender,
        recipients=to,
        subject=subject_of(incident, kind),
        fleet=incident.fleet,
        text=body_of(incident, kind, external_url),
        identity=identity,
        at=at,
        replies_to=replies_to,
        international=international,
    )


def _identity(item: OutboxItem) -> str:
    """The identity of the row's mail. It stays the same if the row is updated before it is delivered."""
    parts = f"{item.channel}/{item.key}/{item.action}/{item.id}/{item.created_at!r}"
    return f"incident-{hashlib.blake2b(parts.encode('utf-8', 'replace'), digest_size=12).hexdigest()}"
