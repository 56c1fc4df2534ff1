"""Addresses that people type: they lead to the intended page, and nowhere else."""

import socket
from urllib.parse import urljoin

import pytest

from celery_monitor.core.model import Changes
from tests.adapters.web.conftest import Served
from tests.adapters.web.fleet import NOW, bucket
from tests.adapters.web.test_api import Commit


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/tasks/", "/tasks"),
        ("/reports", "/reports/today"),
        ("/reports/", "/reports/today"),
        ("/reports/today/", "/reports/today"),
        ("/failures/", "/failures"),
        ("/failures/?task=shop.charge&since=1h", "/failures?task=shop.charge&since=1h"),
        ("/failures/id-1/", "/failures/id-1"),
        ("/incidents//", "/incidents"),
        ("/workers/", "/workers"),
        ("/queues/", "/queues"),
        ("/queues/billing/", "/queues/billing"),
        ("/api/v1/queues/", "/api/v1/queues"),
        ("/tasks/shop.charge/", "/tasks/shop.charge"),
        ("/livez/", "/livez"),
        ("/api/v1/tasks/", "/api/v1/tasks"),
        ("/api/v1/tasks/?limit=1", "/api/v1/tasks?limit=1"),
    ],
)
def test_it_leads_to_what_was_meant(usual_site: Served, path: str, meant: str) -> None:
    """A collection without its own page, and an extra slash, lead to the intended page."""
    answer = usual_site.get(path, follow_redirects=True)
    assert answer.status_code == 200
    assert str(answer.url) == usual_site.url + meant


@pytest.mark.parametrize(
    ("path", "meant"),
    [("/failures/", "/failures"), ("/reports", "/reports/today"), ("/failures/id-1/?a=b", "/failures/id-1?a=b")],
)
def test_it_leads_there_behind_a_proxy(usual_site: Served, path: str, meant: str) -> None:
    """A proxy may serve the site under a path, which it strips."""
    location = usual_site.get(path).headers["location"]
    assert urljoin(f"https://proxy.example/celery{path}", location) == f"https://proxy.example/celery{meant}"


def test_a_name_may_end_with_a_slash(site: Served, commit: Commit) -> None:
    """A task whose name ends with a slash is shown, not another one."""
    commit(Changes(now=NOW, sequence=2, buckets=[bucket("shop.charge/", "q")]))
    answer = site.get("/api/v1/tasks/shop.charge/")
    assert (answer.status_code, answer.json()["name"]) == (200, "shop.charge/")


def test_what_is_not_there_stays_so(usual_site: Served) -> None:
    """A page that exists neither with nor without the slash is not found."""
    assert usual_site.get("/nothing/", follow_redirects=True).status_code == 404
    assert usual_site.get("/api/v1/nothing/", follow_redirects=True).status_code == 404


@pytest.mark.parametrize(
    "target", [b"//evil.example/", b"///evil.example//", b"/\\evil.example/", b"/%5Cevil.example/", b"/%0d%0ax:y/"]
)
def test_it_never_leads_elsewhere(usual_site: Served, target: bytes) -> None:
    """No address redirects to another host or adds headers."""
    with socket.create_connection(("127.0.0.1", usual_site.server.port), timeout=60) as client:
        client.sendall(b"GET " + target + b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        got = b""
        while chunk := client.recv(65536):
            got += chunk
    assert got.startswith(b"HTTP/1.1 307 ")
    (location,) = [line[10:] for line in got.split(b"\r\n") if line.lower().startswith(b"location: ")]
    assert location.startswith(b"../")
    assert b"\r\nx:y" not in got
