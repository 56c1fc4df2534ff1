"""One answer for all who have the same page open: their browsers ask for it every few seconds.

The page's script says how old its answer may be (``cache-control: max-age=3``, RFC 9111, section 5.2.1.1). Whoever
clicks or reloads is answered with what is known now, after an action of his own above all.
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
"""Seconds for which an answer is kept, whatever a client says."""
MAX_ANSWERS: Final = 32
"""Answers: some 20 kB each."""
_READING: Final = ("GET", "HEAD")
_MAX_AGE: Final = re.compile(r"\bmax-age=([1-9]\d{0,3})\b")


@dataclass(frozen=True, slots=True)
class _SharedAnswer:
    at: float
    """By the monotonic clock, when it was begun."""
    made: "asyncio.Task[list[Message]]"


class SharedPages:
    """Answers with what it has, or has the application make it: once at a time."""

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
                self._answers = {}  # nobody sees a silence that was just added go away again
            return
        made = self._answer(scope, oldest).made
        # One client that leaves must not take the answer from the others, nor one error be an error of each.
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
        """Who asks later asks again."""
        if key in self._answers and self._answers[key].made is made:
            del self._answers[key]

    async def _make(self, scope: Scope) -> list[Message]:
        """The answer, without a name: the script shows that of the person who has opened the page."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        own = dict(scope)
        if (person := person_of(scope)) is not None:
            sign(own, Person("", person.role))
        await self._app(own, _nothing, keep)
        return messages


def _oldest(scope: Scope) -> float:
    """How old the answer may be, in seconds; 0 where it must be of now."""
    if scope["method"] != "GET" or not is_page(scope["path"]):
        return 0.0
    found = _MAX_AGE.search(Headers(scope=scope).get("cache-control", ""))
    return min(float(found[1]), OLDEST) if found else 0.0


def _key(scope: Scope) -> Hashable:
    """All that an answer depends on."""
    person, encodings = person_of(scope), Headers(scope=scope).getlist("accept-encoding")
    return scope["raw_path"], scope["query_string"], person and person.role, tuple(encodings)


def _good(made: "asyncio.Task[list[Message]]") -> bool:
    if made.cancelled() or made.exception() is not None:
        return False
    status: int = made.result()[0]["status"]
    return status == HTTPStatus.OK


def _copied(message: Message) -> Message:
    """What passes it on adds headers."""
    return {**message, "headers": list(message["headers"])} if "headers" in message else dict(message)


async def _nothing() -> Message:
    """The body of a GET."""
    return {"type": "http.request", "body": b"", "more_body": False}
