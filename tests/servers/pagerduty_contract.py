"""The documented rules of PagerDuty's Events API v2 for events: returns every violation as text."""

import json
import re
from collections.abc import Iterator
from typing import Any

EVENT_BYTES = 512_000
SUMMARY_CHARACTERS = 1024
DEDUP_KEY_CHARACTERS = 255
ROUTING_KEY_CHARACTERS = 32
SEVERITIES = ("critical", "error", "warning", "info")
ACTIONS = ("trigger", "acknowledge", "resolve")

_RFC3339 = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-][0-2]\d:?[0-5]\d)"
)
_TOP = {"routing_key", "event_action", "dedup_key", "payload", "images", "links", "client", "client_url"}
_PAYLOAD = {"summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"}


def violations(body: bytes) -> tuple[dict[str, Any], list[str]]:
    """The event, as far as it can be read, and every violated rule."""
    found = [f"event is {len(body)} bytes, more than {EVENT_BYTES}"] if len(body) > EVENT_BYTES else []
    try:
        event = json.loads(body, parse_constant=_no_constant)
    except (ValueError, UnicodeDecodeError) as exc:
        return {}, [*found, f"body is not JSON: {exc}"]
    if not isinstance(event, dict):
        return {}, [*found, "body is not an object"]
    return event, [*found, *_of_event(event)]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _of_event(event: dict[str, Any]) -> Iterator[str]:
    yield from (f"unknown field {name}" for name in event.keys() - _TOP)
    yield from _text(event, "routing_key", required=True)
    key = event.get("routing_key")
    if isinstance(key, str) and len(key) != ROUTING_KEY_CHARACTERS:
        yield f"routing_key is not {ROUTING_KEY_CHARACTERS} characters"
    action = event.get("event_action")
    if action not in ACTIONS:
        yield f"event_action is not one of {ACTIONS}"
    yield from _text(event, "dedup_key", required=action != "trigger", limit=DEDUP_KEY_CHARACTERS)
    yield from _text(event, "client")
    yield from _text(event, "client_url")
    yield from _links(event.get("links", []))
    if "payload" in event or action == "trigger":
        yield from _payload(event.get("payload"))
    yield from (f"{place} holds a lone surrogate" for place in _surrogates(event, "event"))


def _payload(payload: Any) -> Iterator[str]:
    if not isinstance(payload, dict):
        yield "payload is missing or not an object"
        return
    yield from (f"unknown field payload.{name}" for name in payload.keys() - _PAYLOAD)
    yield from _text(payload, "summary", required=True, limit=SUMMARY_CHARACTERS)
    yield from _text(payload, "source", required=True)
    if payload.get("severity") not in SEVERITIES:
        yield f"payload.severity is not one of {SEVERITIES}"
    for name in ("component", "group", "class"):
        yield from _text(payload, name)
    if "timestamp" in payload and not _RFC3339.fullmatch(str(payload["timestamp"])):
        yield "payload.timestamp is not RFC 3339"
    if not isinstance(payload.get("custom_details", {}), dict):
        yield "payload.custom_details is not an object"


def _text(fields: dict[str, Any], name: str, *, required: bool = False, limit: int | None = None) -> Iterator[str]:
    value = fields.get(name)
    if name not in fields:
        if required:
            yield f"{name} is missing"
    elif not isinstance(value, str):
        yield f"{name} is not a string"
    elif required and not value:
        yield f"{name} is empty"
    elif limit is not None and len(value) > limit:
        yield f"{name} is {len(value)} characters, more than {limit}"


def _links(links: Any) -> Iterator[str]:
    if not isinstance(links, list):
        yield "links is not a list"
        return
    for link in links:
        if not isinstance(link, dict) or link.keys() - {"href", "text"}:
            yield "a link is not {href, text}"
        elif not re.match(r"https?://[^\s]+\Z", str(link.get("href"))):
            yield f"a link's href is not a URL: {link.get('href')!r}"
        elif not isinstance(link.get("text", ""), str):
            yield "a link's text is not a string"


def _surrogates(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, str):
        if any("\ud800" <= char <= "\udfff" for char in value):
            yield place
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _surrogates(name, f"a name in {place}")
            yield from _surrogates(item, f"{place}.{name!r}")
    elif isinstance(value, list):
        for item in value:
            yield from _surrogates(item, f"{place}[]")
