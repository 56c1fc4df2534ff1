"""Shares answers between viewers who have the same page open, as their browsers refresh it every few seconds.

The page's script requests an answer with a maximum age (``cache-control: max-age=3``, RFC 9111, section 5.2.1.1).
Clicks and reloads are answered with current data, above all after the user's own action.
"""

import asyncio
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from celery_monitor.adapters.web.audience import is_page
from celery_monitor.adapters.web.people import Person, person_of, sign

OLDEST: Final = 5.0
"""Maximum age of an answer in seconds, whatever the client accepts."""
MAX_ANSWERS: Final = 32
"""Maximum number of cached answers, about 20 kB each."""
_READING: Final = ("GET", "HEAD")
_MAX_AGE: Final = re.compile(r"\bmax-age=([1-9]\d{0,3})\b")


@dataclass(frozen=True, slots=True)
class _SharedAnswer:
    at: float
    """Monotonic time at which rendering began."""
    made: "asyncio.Task[list[Message]]"


class SharedPages:
    """Answers from the cache, or lets the application render the page, once at a time."""

    def __init__(self, app: ASGIApp, monotonic: Callable[[], float]) -> None:
        self._app = app
        self._monotonic = monotonic
        self._answers: dict[Hashable, _SharedAnswer] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        oldest = _oldest(scope)
        if oldest <= 0:
            await self._app(scope, receive, send)
            if scope["method"] not in _READING:
                self._answers = {}  # otherwise a silence that was just added could disappear again
            return
        made = self._answer(scope, oldest).made
        # A client that disconnects must not cancel the answer for the others, and one error must not affect all.
        await asyncio.wait({made})
        if made.cancelled() or made.exception() is not None:
            await self._app(scope, receive, send)
            return
        for message in made.result():
            await send(_copied(message))

    def _answer(self, scope: Scope, oldest: float) -> _SharedAnswer:
        now, key = self._monotonic(), _key(scope)
        self._answers = {key: one for key, one in self._answers.items() if now - one.at < OLDEST}
        found = self._answers.get(key)
        if found is None or now - found.at > oldest:
            found = _SharedAnswer(now, asyncio.ensure_future(self._make(scope)))
            found.made.add_done_callback(lambda made: None if _good(made) else self._drop(key, made))
            self._answers = dict([*self._answers.items(), (key, found)][-MAX_ANSWERS:])
        return found

    def _drop(self, key: Hashable, made: "asyncio.Task[list[Message]]") -> None:
        """Drop a failed answer, so that the next request renders the page again."""
        if key in self._answers and self._answers[key].made is made:
            del self._answers[key]

    async def _make(self, scope: Scope) -> list[Message]:
        """Render the answer without a user name: the script keeps the name of the person who opened the page."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        own = dict(scope)
        if (person := person_of(scope)) is not None:
            sign(own, Person("", person.role))
        await self._app(own, _nothing, keep)
        return messages


def _oldest(scope: Scope) -> float:
    """Maximum acceptable age of the answer in seconds; 0 if it must be current."""
    if scope["method"] != "GET" or not is_page(scope["path"]):
        return 0.0
    found = _MAX_AGE.search(Headers(scope=scope).get("cache-control", ""))
    return min(float(found[1]), OLDEST) if found else 0.0


def _key(scope: Scope) -> Hashable:
    """Everything that an answer depends on."""
    person, encodings = person_of(scope), Headers(scope=scope).getlist("accept-encoding")
    return scope["raw_path"], scope["query_string"], person and person.role, tuple(encodings)


def _good(made: "asyncio.Task[list[Message]]") -> bool:
    if made.cancelled() or made.exception() is not None:
        return False
    status: int = made.result()[0]["status"]
    return status == HTTPStatus.OK


def _copied(message: Message) -> Message:
    """A copy, because outer layers add headers."""
    return {**message, "headers": list(message["headers"])} if "headers" in message else dict(message)


async def _nothing() -> Message:
    """The empty body of a GET request."""
    return {"type": "http.request", "body": b"", "more_body": False}
