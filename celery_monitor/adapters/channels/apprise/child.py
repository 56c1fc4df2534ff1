"""A process that sends one message by Apprise, or only looks at the URL. It imports nothing of this program.

Reads JSON from standard input: ``url``, ``title``, ``body``, ``kind`` (Apprise's type of the message), or ``url`` alone
for a look. Writes JSON to standard output: ``outcome`` (sent, failed, unknown_url, not_installed, good_url) and
``told``, what Apprise has logged, which may hold parts of the URL.
"""

import json
import logging
import sys

_LINES = 5


class _Collected(logging.Handler):
    """The last lines."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines = [*self.lines, record.getMessage()][-_LINES:]


def main() -> None:
    """Send it."""
    request = json.load(sys.stdin)
    collected = _Collected()
    logging.getLogger("apprise").addHandler(collected)
    outcome = _outcome(request)
    json.dump({"outcome": outcome, "told": "; ".join(collected.lines)}, sys.stdout)


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
