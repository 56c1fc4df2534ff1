"""A site on a real socket with a real store."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.adapters.web import Site, WebServer
from celery_monitor.adapters.web import server as module
from celery_monitor.core.model import Changes
from celery_monitor.settings.web import WebSettings
from tests.adapters.web.fleet import Fleet, usual
from tests.servers.unencrypted import NO_TLS


@dataclass
class Served:
    """A running server."""

    server: WebServer
    stop: threading.Event
    thread: threading.Thread
    turns: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.server.port}"

    def get(self, path: str, **options: object) -> httpx.Response:
        """One request on a new connection."""
        return httpx.get(self.url + path, timeout=60, verify=NO_TLS, **options)  # type: ignore[arg-type]

    def close(self) -> None:
        """Stop it; fails if it does not stop."""
        self.stop.set()
        self.thread.join(60)
        self.server.stop()
        assert not self.thread.is_alive()


Serve = Callable[..., Served]


@contextmanager
def served(server: WebServer) -> Iterator[Served]:
    """A server that answers during the block."""
    server.start()
    stop, turns = threading.Event(), list[int]()
    thread = threading.Thread(target=server.serve, args=(stop, lambda: turns.append(1)), name="web-test")
    thread.start()
    one = Served(server, stop, thread, turns)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(autouse=True)
def quick_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server stops immediately: hundreds are started and stopped in sequence."""
    monkeypatch.setattr(module, "TICK", 0.02)


@contextmanager
def usual_store(path: Path) -> Iterator[SqlStore]:
    """A store with the usual fleet in it."""
    made = open_store(f"sqlite:///{path}", retention=30 * 86_400.0, fingerprint_window=100)
    made.start()
    made.commit(usual())
    yield made
    made.stop()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    """A store with the usual fleet."""
    with usual_store(tmp_path / "store.db") as made:
        yield made


@pytest.fixture(scope="module")
def usual_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of the usual fleet, open to all, for the tests of a file that only read what it answers.

    To start a store and a server takes longer than most answers.
    """
    with usual_store(tmp_path_factory.mktemp("usual") / "store.db") as made:
        site = Site(WebSettings(), Fleet(made).sources())
        with served(WebServer(site, host="127.0.0.1", port=0)) as one:
            yield one


@pytest.fixture
def commit(store: SqlStore) -> Callable[[Changes], None]:
    """Adds to the store."""
    return store.commit


@pytest.fixture
def fleet(store: SqlStore) -> Fleet:
    """The data of the site."""
    return Fleet(store)


@pytest.fixture
def serve(fleet: Fleet) -> Iterator[Serve]:
    """Starts servers of the fleet on free ports, and stops them after the test."""
    with ExitStack() as started:

        def start(**settings: object) -> Served:
            site = Site(WebSettings(**settings), fleet.sources())
            return started.enter_context(served(WebServer(site, host="127.0.0.1", port=0)))

        yield start


@pytest.fixture
def site(serve: Serve) -> Served:
    """A server of the fleet without a sign-in."""
    return serve()
