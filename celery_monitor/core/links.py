"""Link templates for other systems, such as ``https://logs.example.com/?q={task_id}``.

The values come from tasks and are untrusted, so everything except letters, digits and ``-._~`` is percent-encoded, and
placeholders are allowed only after the host: no task can choose where a link leads.
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
    """The problem with a template; None if it is valid."""
    if not _WHERE.match(template) or not template.isprintable() or " " in template:
        return "must be an http:// or https:// URL, with placeholders only after the host"
    unknown = [name for name in _PLACEHOLDER.findall(template) if name not in PLACEHOLDERS]
    rest = _PLACEHOLDER.sub("", template)
    if unknown or "{" in rest or "}" in rest:
        return f"may contain braces only in these placeholders: {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}"
    return None if len(template) <= MAX_LENGTH else f"must have at most {MAX_LENGTH} characters"


def fill(templates: Mapping[str, str], values: Mapping[str, str]) -> list[tuple[str, str]]:
    """Title and URL of each template for which all placeholders have a value, in order."""
    links = []
    for title, template in templates.items():
        if all(values.get(name) for name in _PLACEHOLDER.findall(template)):
            links.append((title, _PLACEHOLDER.sub(lambda match: _encoded(values[match[1]]), template)))
    return links


def of_failure(failure: Failure, fleet: str) -> dict[str, str]:
    """The values of a failure."""
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
    """The values of an incident: the worker, queue and exception with the most failures."""
    return {
        "task_id": incident.last_uuid,
        "task": "" if incident.is_storm else incident.task,
        "worker": _most_frequent(incident.workers),
        "queue": _most_frequent(incident.queues),
        "exception": _most_frequent(incident.exceptions),
        "incident": incident.key,
        "fleet": incident.fleet,
    }


def _most_frequent(counts: Mapping[str, int]) -> str:
    known = {name: count for name, count in counts.items() if name != OTHER}
    return max(known, key=lambda name: known[name]) if known else ""


def _encoded(value: str) -> str:
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in value.encode("utf-8", "replace"))
