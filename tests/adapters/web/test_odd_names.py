"""Names with odd characters are found as written by the program and as shown."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin

import httpx
import pytest

from celery_monitor.adapters.store import open_store
from celery_monitor.adapters.web import Site, WebServer
from celery_monitor.core.model import Delivery, Restored
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.core.text import path_part
from celery_monitor.settings.web import WebSettings
from tests.adapters.web.conftest import served
from tests.adapters.web.fleet import NOW, Fleet, ran

ODD = (
    "nul\0inside",
    "\0",
    "tab\tinside",
    "line\nbreak",
    "\u202eturned",
    "no\u00a0break",
    r"as\x00written",
    "50%",
    "a_b",
    "*star?",
    "[set]",
    "a+b&c=d#e",
    'it\'s "quoted"',
    "Straße/каталог",
    "\N{CREDIT CARD}",
    ".",
    "..",
    "..~",
)
"""Names of tasks, queues and workers, and task IDs."""


def events(name: str) -> list[Any]:
    """Two tasks with that name, one running and one failed; IDs, queue and worker have it too."""
    fields = [
        *ran(f"{name}/running", name, -90, args=f"('{name}',)"),
        *ran(f"{name}/failed", name, -60, "failed", exception=f"OddError('{name}')"),
        {"type": "worker-heartbeat", "timestamp": NOW - 2, "active": 1, "processed": 2},
    ]
    return [one | {"hostname": f"celery@{name}"} | ({"queue": name} if "queue" in one else {}) for one in fields]


@pytest.fixture
def client(store_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """A fleet with all of these names, as the core passes them to each database."""
    store = open_store(store_url, directory=tmp_path, retention=30 * 86_400.0, fingerprint_window=100)
    store.start()
    monitor = Monitor(Limits(name_wait=0.0), Restored(), NOW)
    monitor.receive([Delivery(json.dumps(one).encode()) for name in ODD for one in events(name)], NOW)
    changes = monitor.take(NOW)
    assert changes is not None
    store.commit(changes)
    fleet = Fleet(store, monitor=monitor, workers=[*monitor.snapshot().workers])
    server = WebServer(Site(WebSettings(), fleet.sources()), host="127.0.0.1", port=0)
    with served(server) as one, httpx.Client(base_url=one.url, timeout=60, follow_redirects=True) as made:
        yield made
    store.stop()


FILTERS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("/api/v1/tasks", "task", lambda one: one["name"]),
    ("/api/v1/errors", "task", lambda one: one["task"]),
    ("/api/v1/failures", "task", lambda one: one["task"]),
    ("/api/v1/incidents", "task", lambda one: one["task"]),
    ("/api/v1/incidents", "key", lambda one: one["key"]),
    ("/api/v1/runs", "task", lambda one: one["task"]),
    ("/api/v1/runs", "queue", lambda one: one["queue"]),
    ("/api/v1/runs", "worker", lambda one: one["hostname"]),
    ("/api/v1/runs?state=failed", "task", lambda one: one["task"]),
    ("/api/v1/runs?state=failed", "queue", lambda one: one["queue"]),
    ("/api/v1/runs?state=failed", "worker", lambda one: one["hostname"]),
)
PAGES = (
    ("/tasks", "q"),
    ("/errors", "task"),
    ("/failures", "task"),
    ("/failures", "message"),
    ("/incidents", "task"),
    ("/runs", "q"),
    ("/runs", "queue"),
    ("/runs?state=failed", "q"),
    ("/runs?state=failed", "queue"),
)


def test_filters(client: httpx.Client) -> None:
    """Values shown by a list of the API are found by them, and by the worker's original; each page finds them too."""
    for path, parameter, shown in FILTERS:
        listed = {shown(one) for one in asked(client, path, limit="1000").json()["items"]}
        assert len(listed) >= len(ODD), (path, parameter)
        for name in listed:
            assert found(client, path, parameter, name, shown) == {name}, (path, parameter, name)
    for name in ODD:
        for path, parameter, shown in FILTERS:
            if parameter != "key":
                sent = f"celery@{name}" if parameter == "worker" else name
                assert len(found(client, path, parameter, sent, shown)) == 1, (path, parameter, name)
        for path, parameter in PAGES:
            text = asked(client, path, **{parameter: name}).text
            assert "found" not in text.partition("<main")[2], (path, parameter, name)
        for path in (
            "tasks/{}",
            "runs/{}%2Frunning",
            "runs/{}%2Ffailed",
            "failures/{}%2Ffailed",
            "workers/celery%40{}",
            "queues/{}",
        ):
            address = path.format(quote(path_part(name) if path.endswith("/{}") else name, safe=""))
            assert client.get(f"/{address}").status_code == 200, address
            if not path.startswith("workers"):
                assert client.get(f"/api/v1/{address}").status_code == 200, address


@pytest.mark.parametrize("listing", ["tasks", "queues"])
def test_links_to_dots(client: httpx.Client, listing: str) -> None:
    """Clients remove the parts ``.`` and ``..`` from a path, but no link has any."""
    links = re.findall(rf'href="(\./{listing}/[^"]+)"', client.get(f"/{listing}").text)
    assert len(links) >= len(ODD)
    reached = set()
    for link in links:
        text = client.get(urljoin(f"{client.base_url}/{listing}", link)).text
        reached |= set(re.findall("<h1>([.~]+) ", text))
    assert reached == {".", "..", "..~"}


def asked(client: httpx.Client, path: str, **parameters: str) -> httpx.Response:
    """The answer to a path that may have a query."""
    return client.get(f"{path}{'&' if '?' in path else '?'}{urlencode(parameters)}")


def found(client: httpx.Client, path: str, parameter: str, value: str, shown: Callable[[Any], str]) -> set[str]:
    """The results of a filter."""
    answer = asked(client, path, **{parameter: value, "limit": "1000"})
    assert answer.status_code == 200, answer.text
    return {shown(one) for one in answer.json()["items"]}
