"""Sends outbox rows through Apprise, each in a separate process that is killed after a timeout.

Apprise reports whether a message was sent, but not why it failed, so every failure is retried.
"""

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from celery_monitor.adapters.channels import page_of
from celery_monitor.adapters.channels.apprise import child
from celery_monitor.core.headline import headline, line, paragraphs, text
from celery_monitor.core.model import Incident, MessageKind, OutboxItem, Severity
from celery_monitor.errors import InterruptedSendError, RejectedError, RetryableError
from celery_monitor.ports import Sent
from celery_monitor.settings import SecretSource
from celery_monitor.settings.secret import url_parts

INSTALL: Final = "install it: pip install 'celery-monitor[apprise]' (the container image has it)"
_CHILD: Final = Path(child.__file__)
_STOPPING: Final = "the monitor is shutting down"
_TITLE: Final = 250
_TEXT: Final = 1_500
_LINK: Final = 500
_REASON: Final = 300
_MAX_ANSWER: Final = 65_536
_KINDS: Final = {
    Severity.CRITICAL: "failure",
    Severity.ERROR: "failure",
    Severity.WARNING: "warning",
    Severity.INFO: "info",
}
_MENTION: Final = re.compile(r"@(?=\w)|<(?=[!@#/\w])")
"""Characters that services interpret as mentions, links or markup."""


class Apprise:
    """Sender of a channel of this type."""

    missing: str = "no url is configured"

    def __init__(
        self,
        *,
        channel: str,
        url: SecretSource,
        timeout: float,
        incident: Callable[[str], Incident | None],
        external_url: str | None = None,
    ) -> None:
        """``incident`` returns the committed state of an incident and may raise StoreUnavailableError.

        ``timeout`` is in seconds.
        """
        self.channel = channel
        self._url = url
        self._timeout = timeout
        self._incident = incident
        self._external_url = external_url
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()

    def rate_limit_key(self, item: OutboxItem) -> str | None:
        """One key, because there is one service; None without its URL."""
        del item
        return None if self._url.get() is None else self.channel

    def stop(self) -> None:
        """Abort a message in progress; from now on ``send`` raises InterruptedSendError. Thread-safe."""
        self._stopping.set()
        if (process := self._process) is not None:
            process.kill()

    def send(self, item: OutboxItem) -> Sent:
        """Like ``Sender.send``. Sends nothing for further failures of an open incident."""
        incident, kind = self._incident(item.key), item.kind
        if kind is MessageKind.UPDATED:
            return Sent(0, item.receipt, skipped=True)
        if kind is MessageKind.RESOLVED and item.receipt is None:
            return Sent(0)  # no message was sent when it opened
        if incident is None:
            raise RejectedError("its incident is older than store.retention and no longer stored")
        self.post(message_of(incident, kind, self._external_url))
        return Sent(0 if kind is MessageKind.RESOLVED else incident.count, item.receipt or item.event_id)

    def post(self, message: Mapping[str, str]) -> None:
        """Send a message: ``title``, ``body``, ``kind``. Without these, only check the URL.

        Raises RetryableError, RejectedError or InterruptedSendError.
        """
        url = self._url.get()
        if url is None:
            raise RejectedError(self.missing)
        outcome, output = self._run({**message, "url": url})
        for part in sorted(url_parts(url), key=len, reverse=True):
            output = output.replace(part, "[secret]")
        why = f": {line(output, _REASON)}" if output else ""
        if outcome == "not_installed":
            raise RetryableError(f"Apprise is not installed: {INSTALL}", remedy=INSTALL, needs_repair=True)
        if outcome == "unknown_url":
            remedy = "correct the URL; see https://appriseit.com/services/"
            raise RetryableError(f"Apprise cannot use the URL of {self.channel}{why}", remedy=remedy, needs_repair=True)
        if outcome == "failed":
            raise RetryableError(f"Apprise could not send the message{why}")

    def _run(self, request: Mapping[str, str]) -> tuple[str, str]:
        """Run the child process. Returns the outcome and the log output of Apprise."""
        if self._stopping.is_set():
            raise InterruptedSendError(_STOPPING)
        # -P: Apprise must not import the modules next to this file.
        command = [sys.executable, "-P", str(_CHILD)]
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet) as process:  # noqa: S603 - our own file
            self._process = process
            if self._stopping.is_set():  # otherwise nothing would end it
                process.kill()
            try:
                out, _ = process.communicate(json.dumps(request).encode(), self._timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise RetryableError(f"Apprise did not send the message within {self._timeout:g} s") from None
            finally:
                self._process = None
        if self._stopping.is_set() and process.returncode != 0:
            raise InterruptedSendError(_STOPPING)
        answer: Any = None
        with contextlib.suppress(ValueError):
            answer = json.loads(out[:_MAX_ANSWER])
        if not isinstance(answer, dict):
            raise RetryableError(f"the process that runs Apprise ended with code {process.returncode}")
        return str(answer.get("outcome")), str(answer.get("log", ""))


def message_of(incident: Incident, kind: MessageKind, external_url: str | None) -> dict[str, str]:
    """The message of an incident, in plain text. Text from a task cannot mention anybody."""
    resolved = kind is MessageKind.RESOLVED
    links = [(page_of(external_url, incident.key), "Incident"), (incident.runbook_url, "Runbook")]
    links_text = "\n".join(f"{label}: {url}" for url, label in links if url and len(url) <= _LINK)
    body = _harmless("\n\n".join(paragraphs(incident, resolved=resolved, limit=_TEXT)))
    return {
        "title": _harmless(line(f"{'Resolved: ' if resolved else ''}{headline(incident)}", _TITLE)),
        "body": f"{body}\n\n{links_text}" if links_text else body,
        "kind": "success" if resolved else _KINDS[incident.severity],
    }


def _harmless(message: str) -> str:
    return _MENTION.sub(lambda match: f"{match[0]}\N{WORD JOINER}", text(message))
