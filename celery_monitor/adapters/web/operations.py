"""Changes by users, which are limited to silences, as JSON for programs and as forms on the page; and schedules.

Only operators (``people.py``) may change something. If no sign-in is configured nobody may, because everybody who can
reach the port could hold back pages. Browsers send credentials also with requests that other sites cause, so those are
refused: a program's request must be JSON, which a form of another site cannot send, and the origin that a browser
sends (``origin.py``) must be this site.
"""

import secrets
from functools import partial
from http import HTTPStatus
from typing import Annotated, Final
from urllib.parse import parse_qs

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from celery_monitor.adapters.web import views
from celery_monitor.adapters.web.api import answer, current
from celery_monitor.adapters.web.origin import OTHER_SITE, of_this_site
from celery_monitor.adapters.web.parameters import ParameterError, Parameters
from celery_monitor.adapters.web.people import Person, may_change, person_of
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.render import page, root
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.core.model import Silence
from celery_monitor.core.silences import silence_of
from celery_monitor.errors import TooManySilencesError
from celery_monitor.settings.units import duration

MAX_BODY: Final = 64 << 10
"""Maximum size in bytes of a request that changes something."""
OFF: Final = (
    "silences can be changed here only if sign-in is configured: set web.username and web.password, or use "
    "celery-monitor silence add"
)
VIEWER: Final = "you have read-only access: ask a member of one of the groups in web.operators"
_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
_duration: Final = duration("1s", "30d")


class SilenceRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a POST to ``/api/v1/silences``."""

    match: list[str]
    reason: str
    lasting: Annotated[str, msgspec.Meta(max_length=20)] = msgspec.field(name="for")
    queues: list[str] = []


class Operations:
    """The endpoints of silences and schedules."""

    def __init__(self, sources: Sources, queries: Queries, external_url: str | None) -> None:
        """``external_url``: the URL of the page for users, if configured."""
        self._sources = sources
        self._queries = queries
        self._external_url = external_url

    def routes(self) -> list[Route]:
        """The routes of the endpoints."""
        return [
            Route("/api/v1/silences", self.silences, methods=["GET"]),
            Route("/api/v1/silences", self.add, methods=["POST"]),
            Route("/api/v1/silences/{id}", self.end, methods=["DELETE"]),
            Route("/api/v1/schedules", self.schedules),
            Route("/silences", self.page, methods=["GET"]),
            Route("/silences", self.add_by_form, methods=["POST"]),
            Route("/silences/{id}/end", self.end_by_form, methods=["POST"]),
            Route("/schedules", self.schedules_page),
        ]

    async def silences(self, request: Request) -> Response:
        """Silences that have not ended, or ended ones."""
        query = Parameters(request, ("ended",), now=self._now)
        book = self._sources.silences
        silences = await self._queries(partial(book.ended if query.flag("ended") else book.current, self._now))
        return answer({"items": [views.silence(silence, self._now) for silence in silences], "next": None})

    async def add(self, request: Request) -> Response:
        """Add a silence from JSON."""
        person = self._permit(request, _JSON)
        try:
            silence_request = msgspec.json.decode(await _body(request), type=SilenceRequest)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise ParameterError(f"the body must be JSON with match, for and reason: {exc}") from exc
        silence = await self._add(
            silence_request.match, silence_request.queues, silence_request.lasting, silence_request.reason, person
        )
        return answer(views.silence(silence, self._now), 201)

    async def end(self, request: Request) -> Response:
        """End a silence now."""
        self._permit(request, None)
        return answer(views.silence(await self._end(request), self._now))

    async def page(self, request: Request) -> Response:
        """The page of silences, with a form for operators. ``match`` fills in its tasks."""
        match = request.query_params.get("match", "")[:1000]
        return await self._shown(request, {"match": match, "queues": "", "for": "1h", "reason": ""}, None)

    async def add_by_form(self, request: Request) -> Response:
        """Add a silence from the form; on an error the form keeps its values."""
        person = self._permit(request, _FORM)
        values = await _form(request)
        globs, queues = values.get("match", "").split(), values.get("queues", "").split()
        try:
            await self._add(globs, queues, values.get("for", ""), values.get("reason", ""), person)
        except ParameterError as exc:
            empty = {"match": "", "queues": "", "for": "", "reason": ""}
            return await self._shown(request, empty | values, str(exc), status=400)
        return RedirectResponse(f"{root(request)}silences", 303)

    async def end_by_form(self, request: Request) -> Response:
        """End a silence now; it is not an error if it has ended already."""
        self._permit(request, _FORM)
        await self._queries(partial(self._sources.silences.end, request.path_params["id"], self._now))
        return RedirectResponse(f"{root(request)}silences", 303)

    async def schedules(self, request: Request) -> Response:
        """Schedules, with expected starts and runs."""
        Parameters(request, (), now=self._now)
        return answer({"items": self._schedules(), "next": None})

    async def schedules_page(self, request: Request) -> Response:
        """The page of schedules."""
        return page(request, self._sources, "schedules.html", schedules=self._schedules(), refresh=True)

    def _schedules(self) -> list[views.Json]:
        snapshot = current(self._sources.snapshot)
        return [views.schedule(schedule, snapshot.counters) for schedule in snapshot.schedules]

    @property
    def _now(self) -> float:
        return self._sources.clock.now()

    async def _shown(
        self, request: Request, values: dict[str, str], problem: str | None, status: int = 200
    ) -> Response:
        book, now = self._sources.silences, self._now
        silences = await self._queries(partial(book.current, now))
        ended = await self._queries(partial(book.ended, now))
        return page(
            request,
            self._sources,
            "silences.html",
            status,
            silences=[views.silence(silence, now) for silence in silences],
            ended=[views.silence(silence, now) for silence in ended[:20]],
            windows=self._sources.mute,
            given=values,
            problem=problem,
            may_change=may_change(person_of(request.scope)),
        )

    async def _add(self, match: list[str], queues: list[str], lasting: str, reason: str, person: Person) -> Silence:
        try:
            seconds = _duration.parse(lasting)
        except ValueError as exc:
            raise ParameterError(f"for: {exc}") from exc
        try:
            silence = silence_of(
                silence_id=secrets.token_hex(4), match=match, lasting=seconds, reason=reason, now=self._now,
                queues=queues, created_by=person.name,
            )  # fmt: skip
            await self._queries(partial(self._sources.silences.add, silence))
        except (ValueError, TooManySilencesError) as exc:
            raise ParameterError(str(exc)) from exc
        return silence

    def _permit(self, request: Request, media_type: str | None) -> Person:
        """The person who changes something. Raises HTTPException if the change is not permitted."""
        person = person_of(request.scope)
        if person is None or not may_change(person):
            raise HTTPException(HTTPStatus.FORBIDDEN, OFF if person is None else VIEWER)
        if not of_this_site(request.headers, self._external_url, form=media_type == _FORM):
            raise HTTPException(HTTPStatus.FORBIDDEN, OTHER_SITE)
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type is not None and content_type != media_type:
            raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body must be {media_type}")
        return person

    async def _end(self, request: Request) -> Silence:
        silences = await self._queries(partial(self._sources.silences.end, request.path_params["id"], self._now))
        if silences is None:
            raise HTTPException(404, "no silence with this ID is in effect")
        return silences


async def _body(request: Request) -> bytes:
    """The body of a request. Raises HTTPException if it is too long."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {MAX_BODY} bytes")
        parts.append(part)
    return b"".join(parts)


async def _form(request: Request) -> dict[str, str]:
    text = (await _body(request)).decode("utf-8", "replace")
    try:
        return {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True, max_num_fields=20).items()}
    except ValueError as exc:
        raise ParameterError("the form has too many fields") from exc
