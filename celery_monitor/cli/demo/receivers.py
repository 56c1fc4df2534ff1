"""The demo's receivers: a PagerDuty stand-in on a loopback port, and a mailbox that is a file."""

import contextlib
import datetime as dt
import http.server
import json
import threading
from pathlib import Path
from typing import Any, Final

from celery_monitor.adapters.channels.email.phrases import subject
from celery_monitor.adapters.channels.email.render import render_html
from celery_monitor.cli.demo.screen import say
from celery_monitor.core.text import printable
from celery_monitor.ports import Clock
from celery_monitor.runtime.report import DayReport

_WIDTH: Final = 140
_MAX_BODY_BYTES: Final = 1 << 20
_TIMEOUT: Final = 5.0


class Pager:
    """Accepts events like PagerDuty's Events API v2, and prints the effect of each one."""

    def __init__(self) -> None:
        """Listen on a free port of the loopback interface."""
        self._lock = threading.Lock()
        self._open: dict[str, str] = {}
        self._resolved: set[str] = set()
        handler = type("Handler", (_Handler,), {"take": self.take})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="demo-pager", daemon=True)

    @property
    def url(self) -> str:
        """The base URL of the API."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        """Start to answer requests."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering requests."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, event: dict[str, Any]) -> None:
        """Print the effect of an event."""
        key, payload = str(event.get("dedup_key")), event.get("payload") or {}
        with self._lock:
            if event.get("event_action") == "resolve":
                task = self._open.pop(key, key)
                self._resolved.add(key)
                say("resolved", f"{task} recovered")
                return
            first = "reopened" if key in self._resolved else "opened"
            kind = "updated" if key in self._open else first
            self._open[key] = printable(str(payload.get("component")), _WIDTH)
            say(kind, f"{payload.get('severity')}: {printable(str(payload.get('summary')), _WIDTH)}")


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = _TIMEOUT

    def take(self, event: dict[str, Any]) -> None:
        raise NotImplementedError

    def do_POST(self) -> None:
        """Read an event and answer that it was accepted."""
        length = int(self.headers.get("Content-Length") or 0)
        event = json.loads(self.rfile.read(min(length, _MAX_BODY_BYTES)))
        self.take(event)
        answer = {"status": "success", "message": "Event processed", "dedup_key": event.get("dedup_key")}
        body = json.dumps(answer).encode()
        with contextlib.suppress(OSError):  # the monitor is shutting down and did not wait
            self.send_response(202)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing, because each event prints a line."""


class Mailbox:
    """Writes the daily mail to a file."""

    def __init__(self, report: DayReport, clock: Clock, file: Path, external_url: str) -> None:
        self._report = report
        self._clock = clock
        self._file = file
        self._external_url = external_url

    def deliver(self) -> None:
        """Write today's mail to the file and print its subject. Raises StoreUnavailableError."""
        now = self._clock.now()
        summary = self._report.summary(dt.datetime.fromtimestamp(now, dt.UTC).date(), now)
        self._file.write_text(render_html(summary, self._external_url), encoding="utf-8")
        say("mail", subject(summary))
