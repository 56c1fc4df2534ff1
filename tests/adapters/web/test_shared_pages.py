"""One answer for all viewers of the same page."""

import asyncio
from dataclasses import dataclass, field

import pytest
from starlette.types import Message, Receive, Scope, Send

from celery_monitor.adapters.web import shared_pages
from celery_monitor.adapters.web.people import Person, Role, person_of, sign
from celery_monitor.adapters.web.shared_pages import OLDEST, SharedPages
from tests.adapters.web.conftest import Serve, Served
from tests.fakes import ManualClock

SCRIPT = {"cache-control": "max-age=3"}


@dataclass
class Site:
    """An application that counts its answers, and the cache in front of it."""

    clock: ManualClock = field(default_factory=ManualClock)
    made: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = 200
    fault: Exception | None = None

    def __post_init__(self) -> None:
        self.gate.set()
        self.shared = SharedPages(self._make, self.clock.monotonic)

    async def _make(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        person = person_of(scope)
        self.made.append(f"{scope['path']} {person.name if person else 'nobody'}")
        number = len(self.made)
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"number", b"%d" % number)]})
        await send({"type": "http.response.body", "body": b"%d" % number})

    async def ask(
        self,
        target: str = "/",
        *,
        headers: dict[str, str] | None = None,
        person: Person | None = None,
        method: str = "GET",
    ) -> tuple[int, str]:
        """Status and text of an answer to the script, unless there are other headers."""
        path, _, query = target.partition("?")
        fields = [(name.encode(), value.encode()) for name, value in (SCRIPT if headers is None else headers).items()]
        scope: Scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": fields}
        scope["query_string"] = query.encode()
        if person is not None:
            sign(scope, person)
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            message.get("headers", []).append((b"added", b"by what is in front"))
            sent.append(message)

        await self.shared(scope, receive, send)
        assert len(sent[0]["headers"]) == 2
        assert person_of(scope) == person
        return sent[0]["status"], b"".join(one.get("body", b"") for one in sent).decode()


def test_all_who_look_get_one_answer() -> None:
    """While it is being created, and while it is recent; a viewer who leaves does not affect the others."""

    async def run() -> None:
        site = Site()
        site.gate.clear()
        asked = [asyncio.ensure_future(site.ask()) for _ in range(20)]
        await asyncio.sleep(0)
        asked[0].cancel()
        await asyncio.sleep(0)
        site.gate.set()
        assert {await one for one in asked[1:]} == {(200, "1")}
        site.clock.advance(3.0)
        assert await site.ask() == (200, "1")
        site.clock.advance(0.5)
        assert await site.ask() == (200, "2")
        assert await site.ask(headers={"cache-control": "no-transform, max-age=1"}) == (200, "2")
        site.clock.advance(1.5)
        assert await site.ask(headers={"cache-control": "max-age=1"}) == (200, "3")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        *(("/", {"cache-control": asked}) for asked in ("max-age=0", "no-cache", "max-age=-3", "max-age=x", "")),
        ("/", {}),
        ("/metrics", SCRIPT),
        ("/readyz", SCRIPT),
        ("/api/v1/tasks", SCRIPT),
    ],
)
def test_others_get_what_is_known_now(target: str, headers: dict[str, str]) -> None:
    """Reloads, programs, and changes get a new answer."""

    async def run() -> None:
        site = Site()
        answers = [await site.ask(target, headers=headers) for _ in range(3)]
        assert [text for _, text in answers] == ["1", "2", "3"]
        assert [(await site.ask("/", method="POST"))[1] for _ in range(2)] == ["4", "5"]

    asyncio.run(run())


def test_a_change_is_seen_at_once() -> None:
    """After a change, no earlier answer is used, not even one in progress."""

    async def run() -> None:
        site = Site()
        assert [(await site.ask())[1], (await site.ask())[1]] == ["1", "1"]
        await site.ask("/silences", method="POST")
        assert (await site.ask())[1] == "3"
        await site.ask("/", method="HEAD")
        assert (await site.ask())[1] == "3"

    asyncio.run(run())


def test_other_pages_are_other_answers() -> None:
    """By address, parameters, encoding, and the person's role; answers do not contain the person's name."""

    async def run() -> None:
        site = Site()
        viewers = [Person("ann", Role.VIEWER, session=True), Person("bob", Role.VIEWER)]
        for _ in range(2):
            answers = [
                await site.ask(),
                await site.ask("/?span=7d"),
                await site.ask("/tasks"),
                await site.ask(headers=SCRIPT | {"accept-encoding": "gzip"}),
                *[await site.ask(person=person) for person in viewers],
                await site.ask(person=Person("cleo", Role.OPERATOR)),
            ]
            assert [text for _, text in answers] == ["1", "2", "3", "4", "5", "5", "6"]
        assert not [one for one in site.made if one.split()[1:] not in (["nobody"], [])]

    asyncio.run(run())


def test_an_error_is_not_kept() -> None:
    """Waiting viewers get it, and the next one asks again; after a server error each gets a new answer."""

    async def run() -> None:
        site = Site(status=503)
        assert [*await asyncio.gather(site.ask(), site.ask())] == [(503, "1"), (503, "1")]
        assert await site.ask() == (503, "2")
        site.fault = ValueError("of ours")
        for result in await asyncio.gather(site.ask(), site.ask(), return_exceptions=True):
            assert result is site.fault
        site.status, site.fault = 200, None
        assert (await site.ask())[0] == 200

    asyncio.run(run())


def test_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept, for any requests, and none for long."""
    monkeypatch.setattr(shared_pages, "MAX_ANSWERS", 4)

    async def run() -> None:
        site = Site()
        for number in range(9):
            await site.ask(f"/?page={number}")
        assert (await site.ask("/?page=5"))[1] == "6"
        assert (await site.ask("/?page=0"))[1] == "10"
        site.clock.advance(OLDEST)
        assert (await site.ask("/?page=8", headers={"cache-control": "max-age=9999"}))[1] == "11"

    asyncio.run(run())


def test_a_page_is_shared_and_still_guarded(serve: Serve, site: Served) -> None:
    """The script's answer has the headers of every page, and requires the sign-in."""
    first, second = (site.get("/tasks", headers=SCRIPT) for _ in range(2))
    assert first.text == second.text
    assert {*first.headers.items()} ^ {*second.headers.items()} <= {
        ("date", one.headers["date"]) for one in (first, second)
    }
    assert first.headers["cache-control"] == "no-store"
    assert first.headers["content-encoding"] == "gzip"
    guarded = serve(username="ops", password="secret")
    assert guarded.get("/tasks", headers=SCRIPT, auth=("ops", "secret")).status_code == 200
    assert guarded.get("/tasks", headers=SCRIPT).status_code == 401
