"""Renders an incident as text and blocks within Slack's limits. Pure.

All text that a task controls is hostile: ``&``, ``<`` and ``>`` are escaped to prevent links and mentions, and mentions
like ``@channel`` are broken up. Sources: https://docs.slack.dev/messaging/formatting-message-text and
https://docs.slack.dev/reference/block-kit/blocks
"""

import re
from typing import Any, Final

from celery_monitor.adapters.channels import page_of
from celery_monitor.core.headline import headline, line, overview, text
from celery_monitor.core.model import Incident, MessageKind, Severity

SECTION_LIMIT: Final = 3_000
"""Maximum length of the text of a section or a context, escaped, in characters."""
FIELD_LIMIT: Final = 2_000
MAX_FIELDS: Final = 10
TEXT_LIMIT: Final = 4_000
"""Maximum length of a message's text that Slack recommends, in characters."""
_HEADLINE: Final = 1_000
_FACT: Final = 600
_TRACEBACK: Final = 2_900
_URL: Final = 1_000
_TITLE: Final = 100
_SIGNS: Final = {
    Severity.CRITICAL: "\N{LARGE RED CIRCLE}",
    Severity.ERROR: "\N{LARGE ORANGE CIRCLE}",
    Severity.WARNING: "\N{LARGE YELLOW CIRCLE}",
    Severity.INFO: "\N{LARGE BLUE CIRCLE}",
}
_RESOLVED: Final = "\N{WHITE HEAVY CHECK MARK} Resolved:"
_MENTION: Final = re.compile(r"@(?=channel|here|everyone|group)", re.IGNORECASE)
_BROKEN: Final = "@\N{WORD JOINER}"
_ESCAPES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LONGEST: Final = 5
"""Length of the longest escape sequence."""


def message(incident: Incident, kind: MessageKind, external_url: str | None) -> dict[str, Any]:
    """The message of an incident in its current state: ``text`` for notifications, ``blocks`` for the channel."""
    sign = _RESOLVED if kind is MessageKind.RESOLVED else _SIGNS[incident.severity]
    title = f"{sign} {escaped(line(headline(incident), _HEADLINE), SECTION_LIMIT - 100)}"
    blocks = [_section(f"*{_without_stars(title)}*"), _fields(incident)]
    if kind is not MessageKind.RESOLVED and (excerpt := _excerpt(incident)):
        blocks.append(_section(f"```{excerpt}```"))
    if links := _links(incident, external_url):
        blocks.append({"type": "context", "elements": [_mrkdwn(links)]})
    return {"text": title[:TEXT_LIMIT], "blocks": blocks}


def reply(incident: Incident, kind: MessageKind) -> str:
    """The reply in the thread of an incident's message."""
    prefix = {MessageKind.OPENED: "Open again:", MessageKind.UPDATED: "Update:", MessageKind.RESOLVED: _RESOLVED}[kind]
    return f"{prefix} {escaped(line(headline(incident), _HEADLINE), TEXT_LIMIT - 100)}"


def test_message(fleet: str, channel: str) -> dict[str, Any]:
    """A test message that is marked as such."""
    message = f"[{line(fleet)}] Test from celery-monitor: nothing failed (`celery-monitor notify test {channel}`)"
    return {"text": escaped(message, TEXT_LIMIT)}


def escaped(value: str, limit: int) -> str:
    """Text that Slack shows unchanged, shortened with ``…`` to at most ``limit`` characters."""
    value = _MENTION.sub(_BROKEN, text(value[:limit]))
    parts: list[str] = []
    length = 0
    for char in value:
        part = _ESCAPES.get(char, char)
        length += len(part)
        if length >= limit:
            return "".join(parts) + "…"
        parts.append(part)
    return "".join(parts)


def _fields(incident: Incident) -> dict[str, Any]:
    fields = [("Severity", str(incident.severity)), *overview(incident)][:MAX_FIELDS]
    return {
        "type": "section",
        "fields": [_mrkdwn(f"*{label}*\n{escaped(line(value, _FACT), FIELD_LIMIT - 50)}") for label, value in fields],
    }


def _excerpt(incident: Incident) -> str:
    """The end of the traceback, or the message. Backquotes are replaced, because they would end the block."""
    excerpt = text(incident.traceback or incident.message).replace("`", "'").strip()[-_TRACEBACK:]
    while len(excerpt_escaped := escaped(excerpt, len(excerpt) * _LONGEST + 1)) > _TRACEBACK:
        excerpt = excerpt[len(excerpt) // 3 + 1 :]
    return excerpt_escaped


def _without_stars(title: str) -> str:
    """The title without stars, which would end the bold text."""
    return title.replace("*", "\N{ASTERISK OPERATOR}")


def _links(incident: Incident, external_url: str | None) -> str:
    links = [(page_of(external_url, incident.key), "Incident"), (incident.runbook_url, "Runbook")]
    links += [(url, escaped(title, _TITLE)) for title, url in incident.links]
    usable = [(url, label) for url, label in links if url and len(url) <= _URL and not re.search(r"[<>|\s]", url)]
    return " · ".join(f"<{url.replace('&', '&amp;')}|{label}>" for url, label in usable)


def _section(content: str) -> dict[str, Any]:
    return {"type": "section", "text": _mrkdwn(content)}


def _mrkdwn(content: str) -> dict[str, Any]:
    # verbatim: Slack does not turn the names of channels and users into links.
    return {"type": "mrkdwn", "text": content, "verbatim": True}
