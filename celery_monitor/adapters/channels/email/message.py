"""Builds MIME messages. The same summary gives the same bytes, so that a retry sends the same mail."""

import re
from collections.abc import Sequence
from email.headerregistry import Address, Group
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from hashlib import blake2b
from typing import Final

from celery_monitor.adapters.channels.email import phrases
from celery_monitor.adapters.channels.email.render import Size, fit_to_size, render_html, render_text
from celery_monitor.adapters.channels.email.text import shorten
from celery_monitor.core.summary import Summary
from celery_monitor.settings import email_address

_POLICY: Final = SMTP.clone(cte_type="7bit")
"""Not every server accepts 8-bit bodies."""
_UNFOLDED: Final = _POLICY.clone(max_line_length=998)
FLEET_LABEL: Final = 40
DAILY: Final = "daily report"


def report(
    summary: Summary,
    *,
    sender: str,
    recipients: Sequence[str],
    external_url: str | None = None,
    notes: tuple[str, ...] = (),
    again: bool = False,
    international: bool = False,
) -> bytes:
    """The daily mail, smaller than `render.MAX_BYTES`.

    Its Message-ID depends only on fleet and date, so that a duplicate after a crash is recognised as the same mail.
    ``again`` creates a new Message-ID, for a mail that somebody sends a second time on purpose. ``international``: it
    is sent with SMTPUTF8, so its headers may contain any address; otherwise addresses that need SMTPUTF8 are omitted.
    """
    stamp = f".{summary.generated_at:.0f}" if again else ""
    identity = f"report-{summary.date}{stamp}-{_digest(summary.fleet)}"

    def make(size: Size) -> bytes:
        return _mail(
            sender=sender,
            recipients=recipients,
            subject=phrases.subject(summary),
            fleet=summary.fleet,
            identity=identity,
            date=formatdate(summary.generated_at),
            text=render_text(summary, external_url, size=size, notes=notes),
            html=render_html(summary, external_url, size=size, notes=notes),
            international=international,
        )

    return fit_to_size(make)


def trial(
    *, fleet: str, sender: str, recipients: Sequence[str], international: bool = False, content: str = DAILY
) -> bytes:
    """The mail of ``notify test``, with the current time and a new Message-ID. ``content``: what will be sent."""
    line = f"This is a test; no action is needed. The {content} of this fleet will be sent from this address."
    return _mail(
        sender=sender,
        recipients=recipients,
        subject=f"[{shorten(fleet, phrases.FLEET_WIDTH)}] test of the {content}",
        fleet=fleet,
        identity=make_msgid("test", domain="-").strip("<>").rpartition("@")[0],
        date=formatdate(),
        text=f"{line}\n",
        html=None,
        international=international,
    )


def incident(
    *,
    sender: str,
    recipients: Sequence[str],
    subject: str,
    fleet: str,
    text: str,
    identity: str,
    at: float,
    replies_to: str | None,
    international: bool,
) -> bytes:
    """A mail about an incident. ``identity`` identifies it; ``replies_to`` is the Message-ID of the first mail."""
    return _mail(
        sender=sender,
        recipients=recipients,
        subject=subject,
        fleet=fleet,
        identity=identity,
        date=formatdate(at),
        text=text,
        html=None,
        international=international,
        replies_to=replies_to,
    )


def message_id(identity: str, sender: str) -> str:
    """The Message-ID of a mail with this identity."""
    return f"<{identity}@{email_address.parse(sender).domain.strip('[]')}>"


def _mail(
    *,
    sender: str,
    recipients: Sequence[str],
    subject: str,
    fleet: str,
    identity: str,
    date: str,
    text: str,
    html: str | None,
    international: bool,
    replies_to: str | None = None,
) -> bytes:
    author = email_address.parse(sender)
    domain = author.domain.strip("[]")
    label = re.sub(r"[^a-z0-9]+", "-", fleet.lower())[:FLEET_LABEL].strip("-") or "fleet"
    policy = _POLICY.clone(utf8=international)
    message = EmailMessage(policy=policy)
    message["Date"] = date
    message["From"] = author.header
    message["To"] = _readers(recipients, international=international)
    message["Subject"] = subject
    message["Message-ID"] = f"<{identity}@{domain}>"
    if replies_to is not None:
        message["In-Reply-To"] = message["References"] = replies_to
    message["List-Id"] = f"<{label}.celery-monitor.{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
        message.set_boundary(f"=_{_digest(identity)}")
    # Folding a long ASCII header can leave "Subject:" alone on its line, which some servers treat as a missing subject.
    # Encoded headers have to be folded, and are folded correctly.
    plain = all(str(value).isascii() for value in message.values())
    return message.as_bytes(policy=_UNFOLDED if plain else policy)


def _readers(recipients: Sequence[str], *, international: bool) -> Sequence[Address] | Group:
    """The value of the To header. Without SMTPUTF8, a header cannot contain every address."""
    boxes = [email_address.parse(recipient) for recipient in recipients]
    addresses = [box.header for box in boxes if international or not box.international]
    return addresses or Group("undisclosed-recipients")


def _digest(text: str) -> str:
    return blake2b(text.encode(errors="replace"), digest_size=6).hexdigest()
