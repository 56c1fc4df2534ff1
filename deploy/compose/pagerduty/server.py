#!/usr/bin/env python3
"""A stand-in for PagerDuty's Events API: takes events at /v2/enqueue, shows the incidents at /."""

import html
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT = int(os.environ.get("PORT", "8026"))
KEY_LENGTH = 32
MAX_RESERVE = 512_000
COLORS = {"critical": "#b3261e", "error": "#c4501b", "warning": "#a07000", "info": "#31688e"}
incidents: dict[str, dict[str, Any]] = {}
"""By dedup key, in the order of their first event."""


def take(event: dict[str, Any]) -> str:
    """Apply an event as PagerDuty would; its dedup key.

    Raises:
        ValueError: PagerDuty would refuse it, with the reason.
    """
    action, key = event.get("event_action"), event.get("dedup_key", "")
    if len(event.get("routing_key", "")) != KEY_LENGTH:
        raise ValueError("'routing_key' is not 32 characters long")
    if action not in {"trigger", "acknowledge", "resolve"}:
        raise ValueError("'event_action' is unknown")
    if action == "trigger" and not {"summary", "source", "severity"} <= event.get("payload", {}).keys():
        raise ValueError("'payload' lacks summary, source or severity")
    incident = incidents.setdefault(key, {"events": 0, "state": "none"})
    if action == "trigger":
        incident |= {"state": "triggered", "payload": event["payload"], "links": event.get("links", [])}
    elif incident["state"] != "none":
        incident["state"] = f"{action}d"
    incident["events"] += 1
    incident["at"] = time.strftime("%H:%M:%S", time.gmtime())
    return str(key)


def row(key: str, incident: dict[str, Any]) -> str:
    """An incident as a row of the table."""
    payload = incident.get("payload", {})
    links = " ".join(
        f'<a href="{html.escape(link["href"])}">{html.escape(link.get("text", "link"))}</a>'
        for link in incident.get("links", [])
        if link["href"].startswith(("http://", "https://"))
    )
    details = html.escape(json.dumps(payload.get("custom_details", {}), indent=2, ensure_ascii=False))
    color = COLORS.get(payload.get("severity", ""), "#555") if incident["state"] == "triggered" else "#4a7c4a"
    return (
        f'<tr><td style="color:{color}"><b>{html.escape(incident["state"])}</b></td>'
        f"<td><b>{html.escape(payload.get('summary', ''))}</b><br><small>{html.escape(key)}</small> {links}"
        f"<details><summary>details</summary><pre>{details}</pre></details></td>"
        f"<td>{html.escape(payload.get('severity', ''))}</td><td>{incident['events']}</td>"
        f"<td>{incident['at']} UTC</td></tr>"
    )


def page() -> str:
    """Every incident, the newest first."""
    rows = "".join(row(key, incident) for key, incident in reversed(list(incidents.items())))
    return (
        '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="10"><title>Incidents</title>'
        "<style>body{font:15px system-ui;margin:2em auto;max-width:70em}table{border-collapse:collapse;width:100%}"
        "td,th{text-align:left;vertical-align:top;padding:.5em;border-bottom:1px solid #ddd}"
        "pre{white-space:pre-wrap}</style><h1>What PagerDuty would show</h1>"
        "<table><tr><th>State<th>Incident<th>Severity<th>Events<th>Last</tr>"
        f"{rows or '<tr><td colspan=5>No incident yet.</td></tr>'}</table>"
    )


class Handler(BaseHTTPRequestHandler):
    """The API's one path, and the page."""

    def do_POST(self) -> None:
        """Take an event."""
        try:
            length = int(self.headers.get("Content-Length", "0"))
            event = self.rfile.read(length) if self.path == "/v2/enqueue" and 0 < length <= MAX_RESERVE else b""
            key = take(json.loads(event))
        except (ValueError, AttributeError, TypeError) as exc:
            self.answer(400, {"status": "invalid event", "message": "Event object is invalid", "errors": [str(exc)]})
        else:
            self.answer(202, {"status": "success", "message": "Event processed", "dedup_key": key})

    def do_GET(self) -> None:
        """Show the incidents."""
        self.answer(200, page())

    def answer(self, status: int, content: dict[str, Any] | str) -> None:
        """JSON for a mapping, HTML for a text."""
        body = content if isinstance(content, str) else json.dumps(content)
        kind = "text/html; charset=utf-8" if isinstance(content, str) else "application/json"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say what came in."""
        if self.command == "POST":
            super().log_message(format, *args)


if __name__ == "__main__":
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()
