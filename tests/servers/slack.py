"""A stand-in for Slack's Web API and incoming webhooks, after its public documentation.

It checks what Slack checks of a message (limits of texts and blocks, arguments that are known), keeps what is posted,
and answers as the documentation says. A script may come before: an answer, nothing, or nothing after the message was
taken.
"""

import json
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

from tests.servers.recorder import Answer, Recorder, Request

TOKEN: Final = "xoxb-1234-5678-abcdefghijkl"
CHANNEL: Final = "C0123456789"
_LONG: Final = 60.0
WEBHOOK: Final = "/services/T000/B000/XXXXXXXXXXXXXXXXXXXXXXXX"
_KNOWN: Final = {
    "chat.postMessage": {
        "channel", "text", "blocks", "thread_ts", "reply_broadcast", "metadata", "parse", "link_names",
        "unfurl_links", "unfurl_media",
    },
    "chat.update": {"channel", "ts", "text", "blocks", "parse", "link_names", "metadata"},
    "conversations.history": {"channel", "oldest", "limit", "include_all_metadata", "cursor"},
    "conversations.replies": {"channel", "ts", "oldest", "limit", "include_all_metadata", "cursor"},
    "auth.test": set(),
}  # fmt: skip


@dataclass
class Message:
    """A message in the channel."""

    ts: str
    text: str
    blocks: list[dict[str, Any]]
    metadata: dict[str, Any] | None
    thread_ts: str | None = None
    broadcast: bool = False
    updates: int = 0


@dataclass
class SlackServer:
    """``script``: what is done with the next posts or updates, each once.

    An answer stands in place of Slack's own, None for no answer and no message, "lost" for a message that is taken and
    no answer.
    """

    scopes: set[str] = field(default_factory=lambda: {"chat:write", "channels:history"})
    messages: list[Message] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    script: deque[Answer | Literal["lost"] | None] = field(default_factory=deque)
    searches: deque[Answer] = field(default_factory=deque)
    """Answers in place of Slack's own to the next reads, each once."""
    page: int = 200
    gate: threading.Event | None = None
    """Nothing is looked at before it is set."""
    answering: threading.Event | None = None
    """What is posted is taken, and not answered before it is set."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._recorder = Recorder(self._answer)
        self.url = f"{self._recorder.url}/api"
        self.webhook_url = f"{self._recorder.url}{WEBHOOK}"

    @contextmanager
    def running(self) -> Iterator["SlackServer"]:
        """Serve until the end of the block."""
        with self._recorder.running():
            yield self

    @property
    def requests(self) -> list[Request]:
        """All requests."""
        return self._recorder.requests

    def methods(self) -> list[str]:
        """The methods that were called, in order."""
        return [request.path.rpartition("/")[2] for request in self.requests]

    def threads(self) -> list[Message]:
        """Messages that are not replies."""
        return [one for one in self.messages if one.thread_ts is None]

    def replies(self) -> list[Message]:
        """Messages in threads."""
        return [one for one in self.messages if one.thread_ts is not None]

    def _answer(self, request: Request) -> Answer | None:
        if self.gate is not None:
            self.gate.wait(_LONG)
        answer = self._answered(request)
        if self.answering is not None and "conversations" not in request.path:
            self.answering.wait(_LONG)
        return answer

    def _answered(self, request: Request) -> Answer | None:
        with self._lock:
            if request.path == WEBHOOK:
                return self._scripted(lambda: self._webhook(request))
            method = request.path.removeprefix("/api/")
            if request.method == "HEAD":
                return Answer(302)
            given = self._arguments(request)
            if unknown := given.keys() - _KNOWN[method]:
                self.violations.append(f"{method}: unknown arguments {unknown}")
            if request.headers.get("authorization") != f"Bearer {TOKEN}":
                return _refused("invalid_auth")
            if given.get("channel", CHANNEL) != CHANNEL:
                return _refused("channel_not_found")
            if method.startswith("chat."):
                return self._scripted(lambda: self._chat(method, given))
            return self.searches.popleft() if self.searches else self._read(method, given)

    def _scripted(self, do: Any) -> Answer | None:
        if not self.script:
            answer: Answer = do()
            return answer
        wanted = self.script.popleft()
        if wanted == "lost":
            do()
            return None
        return wanted

    def _arguments(self, request: Request) -> dict[str, Any]:
        if request.headers["content-type"].startswith("application/json"):
            given: dict[str, Any] = request.json
            return given
        return dict(parse_qsl(request.body.decode()))

    def _webhook(self, request: Request) -> Answer:
        given = request.json
        if error := self._invalid(given):
            return Answer(400, error.encode())
        self._add(given)
        return Answer(200, b"ok")

    def _chat(self, method: str, given: dict[str, Any]) -> Answer:
        if "chat:write" not in self.scopes:
            return _refused("missing_scope")
        if error := self._invalid(given):
            return _refused(error)
        if method == "chat.postMessage":
            return _accepted({"channel": CHANNEL, "ts": self._add(given).ts, "message": given})
        found = [one for one in self.messages if one.ts == given["ts"]]
        if not found:
            return _refused("message_not_found")
        found[0].text, found[0].blocks = given["text"], given.get("blocks", [])
        found[0].updates += 1
        return _accepted({"channel": CHANNEL, "ts": given["ts"], "text": given["text"]})

    def _read(self, method: str, given: dict[str, Any]) -> Answer:
        if method == "auth.test":
            return _accepted({"team": "shop", "user": "monitor"})
        if "channels:history" not in self.scopes:
            return _refused("missing_scope")
        thread = given.get("ts")
        found = [
            one for one in self.messages
            if one.thread_ts == thread or (thread is not None and one.ts == thread) or one.broadcast
        ]  # fmt: skip
        start = int(given.get("cursor", 0))
        page = found[start : start + min(self.page, int(given.get("limit", 100)))]
        more = start + len(page) < len(found)
        shown = [
            {"type": "message", "ts": one.ts, "text": one.text}
            | ({"metadata": one.metadata} if given.get("include_all_metadata") == "true" and one.metadata else {})
            for one in page
        ]
        cursor = {"next_cursor": str(start + len(page))} if more else {}
        return _accepted({"messages": shown, "has_more": more, "response_metadata": cursor})

    def _add(self, given: dict[str, Any]) -> Message:
        ts = f"{1_700_000_000 + len(self.messages)}.000100"
        one = Message(
            ts, given["text"], given.get("blocks", []), given.get("metadata"), given.get("thread_ts"),
            given.get("reply_broadcast", False),
        )  # fmt: skip
        self.messages.append(one)
        return one

    def _invalid(self, given: dict[str, Any]) -> str | None:
        """Slack's limits. What would notify people who were not meant is a violation."""
        if not given.get("text"):
            return "no_text"
        if len(given["text"]) > 40_000:
            return "msg_too_long"
        blocks = given.get("blocks", [])
        if len(blocks) > 50:
            return "invalid_blocks"
        texts = [given["text"]]
        for block in blocks:
            fields = block.get("fields", [])
            objects = [*fields, *block.get("elements", []), *([block["text"]] if "text" in block else [])]
            longest = max((len(one["text"]) for one in objects), default=0)
            if not objects or len(fields) > 10 or longest > (2_000 if fields else 3_000):
                return "invalid_blocks"
            if any(not one["text"] or not one.get("verbatim") for one in objects):
                return "invalid_blocks"
            texts += [one["text"] for one in objects]
        for text in texts:
            self._check(text)
        return None

    def _check(self, text: str) -> None:
        if re.search("@(channel|here|everyone)", text):
            self.violations.append(f"a mention: {text[:200]!r}")
        for found in re.findall("<([^>]*)>?", text):
            if not re.fullmatch(r"https?://[^|<>]+\|[A-Za-z ]+", found):
                self.violations.append(f"a link or mention: {found[:200]!r}")
        if re.search("&(?!amp;|lt;|gt;)", text):
            self.violations.append(f"an ampersand that is not escaped: {text[:200]!r}")


def _accepted(fields: dict[str, Any]) -> Answer:
    return Answer(200, json.dumps({"ok": True, **fields}).encode())


def _refused(error: str) -> Answer:
    return Answer(200, json.dumps({"ok": False, "error": error}).encode())


def refused(error: str) -> Answer:
    """The Web API's answer to a refused call."""
    return _refused(error)


def throttled(seconds: int) -> Answer:
    """Slack's answer to too many requests."""
    return Answer(429, json.dumps({"ok": False, "error": "ratelimited"}).encode(), (("retry-after", str(seconds)),))
