"""Links to other systems, as templates: ``https://logs.example.com/?q={task_id}``.

What is filled in comes from tasks and is hostile, so everything but letters, digits and ``-._~`` is percent-encoded,
and it may stand behind the host only: no task chooses where a link leads.
"""

import re
from collections.abc import Mapping
from typing import Final

from celery_monitor.core.model import Failure, Incident
from celery_monitor.core.text import OTHER

PLACEHOLDERS: Final = ("task_id", "task", "worker", "queue", "exception", "incident", "fleet")
MAX_LENGTH: Final = 2_000
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_WHERE: Final = re.compile(r"https?://[^/?#{}\s@]+(?=[/?#]|$)")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def problem(template: str) -> str | None:
    """What is wrong with a template; None when nothing is."""
    if not _WHERE.match(template) or not template.isprintable() or " " in template:
        return "must be an http:// or https:// URL, with placeholders only after the host"
    unknown = [name for name in _PLACEHOLDER.findall(template) if name not in PLACEHOLDERS]
    rest = _PLACEHOLDER.sub("", template)
    if unknown or "{" in rest or "}" in rest:
        return f"may contain braces only in these placeholders: {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}"
    return None if len(template) <= MAX_LENGTH else f"must have at most {MAX_LENGTH} characters"


def fill(templates: Mapping[str, str], values: Mapping[str, str]) -> list[tuple[str, str]]:
    """Title and URL of each template whose placeholders all have a value, in order."""
    links = []
    for title, template in templates.items():
        if all(values.get(name) for name in _PLACEHOLDER.findall(template)):
            links.append((title, _PLACEHOLDER.sub(lambda match: _encoded(values[match[1]]), template)))
    return links


def of_failure(failure: Failure, fleet: str) -> dict[str, str]:
    """What a failure gives to fill in."""
    return {
        "task_id": failure.uuid,
        "task": failure.name,
        "worker": failure.hostname,
        "queue": failure.queue,
        "exception": failure.exception,
        "incident": failure.incident or "",
        "fleet": fleet,
    }


def of_incident(incident: Incident) -> dict[str, str]:
    """What an incident gives: of several workers, queues and exceptions that with the most failures."""
    return {
        "task_id": incident.last_uuid,
        "task": "" if incident.is_storm else incident.task,
        "worker": _most(incident.workers),
        "queue": _most(incident.queues),
        "exception": _most(incident.exceptions),
        "incident": incident.key,
        "fleet": incident.fleet,
    }


def _most(counts: Mapping[str, int]) -> str:
    known = {name: count for name, count in counts.items() if name != OTHER}
    return max(known, key=lambda name: known[name]) if known else ""


def _encoded(value: str) -> str:
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in value.encode("utf-8", "replace"))
