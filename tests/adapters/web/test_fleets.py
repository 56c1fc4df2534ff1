"""The links to the other fleets in the same database."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from celery_monitor.adapters.web import Site, WebServer
from celery_monitor.errors import StoreUnavailableError
from celery_monitor.ports import OtherFleet
from celery_monitor.settings.web import WebSettings
from tests.adapters.web.conftest import served
from tests.adapters.web.fleet import NOW, Fleet
from tests.fakes import ManualClock

KNOWN = [
    OtherFleet("mail<b>", "https://mail.example.com/celery"),
    OtherFleet("evil", "javascript:alert(1)"),
    OtherFleet("worse", 'https://x.example.com/"onclick="a b'),
    OtherFleet("in clear", "http://user:secret@x.example.com"),
]


def test_the_switch(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links to pages with a valid URL, queried once a minute by pages only; none without a shared database."""
    monkeypatch.setattr("celery_monitor.adapters.web.fleets.PATIENCE_SECONDS", 60)
    clock, asked = ManualClock(time=NOW), list[int]()
    answers: list[Sequence[OtherFleet] | StoreUnavailableError] = [KNOWN, StoreUnavailableError("down"), []]

    def fleets() -> Sequence[OtherFleet]:
        answer = answers[len(asked)]
        asked.append(1)
        if isinstance(answer, StoreUnavailableError):
            raise answer
        return answer

    sources = replace(fleet.sources(), clock=clock, fleets=fleets)
    with served(WebServer(Site(WebSettings(), sources), host="127.0.0.1", port=0)) as site:
        for path in ("/metrics", "/livez", "/api/v1/tasks", "/style.css"):
            assert site.get(path).status_code == 200
        assert asked == []
        for path in ("/", "/tasks", "/nothing"):
            page = site.get(path).text
            assert '<a href="https://mail.example.com/celery/" rel="noreferrer">mail&lt;b&gt;</a>' in page
            assert "1 other fleet<" in page
            assert not any(bad in page for bad in ("javascript:", "onclick", "secret@"))
        assert len(asked) == 1
        clock.advance(60)
        assert "mail&lt;b&gt;" in site.get("/").text  # the store does not say otherwise
        clock.advance(60)
        assert "other fleet" not in site.get("/").text
        assert len(asked) == 3
    with served(WebServer(Site(WebSettings(), fleet.sources()), host="127.0.0.1", port=0)) as site:
        assert "other fleet" not in site.get("/").text
