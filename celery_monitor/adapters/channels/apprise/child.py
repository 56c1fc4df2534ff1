"""A process that sends one message through Apprise, or only checks the URL. It imports nothing of this program.

Reads JSON from standard input: ``url``, ``title``, ``body``, ``kind`` (Apprise's type of the message), or only ``url``
to check it. Writes JSON to standard output: ``outcome`` (sent, failed, unknown_url, not_installed, good_url) and
``log``, the log output of Apprise, which may contain parts of the URL.
"""

import json
import logging
import sys

_LINES = 5


class _Collected(logging.Handler):
    """Collects the last log messages."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines = [*self.lines, record.getMessage()][-_LINES:]


def main() -> None:
    """Send the message, or check the URL."""
    request = json.load(sys.stdin)
    collected = _Collected()
    logging.getLogger("apprise").addHandler(collected)
    outcome = _outcome(request)
    json.dump({"outcome": outcome, "log": "; ".join(collected.lines)}, sys.stdout)


def _outcome(request: dict[str, str]) -> str:
    try:
        import apprise  # noqa: PLC0415 - it may not be there, which is an outcome
    except ImportError:
        return "not_installed"
    service = apprise.Apprise.instantiate(request["url"], suppress_exceptions=True)
    if service is None:
        return "unknown_url"
    if "body" not in request:
        return "good_url"
    sent = service.notify(
        title=request["title"], body=request["body"], notify_type=request["kind"], body_format=apprise.NotifyFormat.TEXT
    )
    return "sent" if sent else "failed"


if __name__ == "__main__":
    main()
