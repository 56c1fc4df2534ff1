"""Failed sign-ins: logged, counted, and throttled."""

from ipaddress import ip_network

import pytest
from structlog.testing import capture_logs

from celery_monitor.adapters.web import throttle
from celery_monitor.adapters.web.throttle import MAX_CLIENTS, MAX_FAILURES, WINDOW, Throttle, client_of
from tests.adapters.web.conftest import Serve

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


def test_who_fails_too_often_waits() -> None:
    """Until the end of the window that began with the first failure; others do not."""
    made = Throttle()
    allowed = [made.failed("a", 100.0 + number) for number in range(MAX_FAILURES)]
    assert allowed == [False] * (MAX_FAILURES - 1) + [True]
    assert made.wait("a", 130.0) == 100.0 + WINDOW - 130.0
    assert made.wait("b", 130.0) == 0
    assert made.wait("a", 100.0 + WINDOW) == 0
    assert not made.failed("a", 100.0 + WINDOW)
    assert made.wait("a", 100.0 + WINDOW) == 0


def test_the_memory_is_bounded() -> None:
    """However many addresses fail, few are stored."""
    made = Throttle()
    for number in range(MAX_CLIENTS * 3):
        made.failed(str(number), 1.0)
    assert len(made._clients) == MAX_CLIENTS


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("10.0.0.9", "198.51.100.7", "198.51.100.7"),
        ("::ffff:10.0.0.9", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.9", "1.1.1.1, 198.51.100.7,10.2.2.2", "198.51.100.7"),
        ("10.0.0.9", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("10.0.0.9", "198.51.100.7, <script>", "10.0.0.9"),
        ("10.0.0.9", "", "10.0.0.9"),
        ("fd00::1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:aaaa::1", "", "2001:db8:1:2::/64"),
        ("unknown", "198.51.100.7", "unknown"),
    ],
)
def test_who_asks(peer: str, forwarded: str, client: str) -> None:
    """The peer, unless it is a trusted proxy: then the last address that a trusted proxy has added."""
    assert client_of(peer, forwarded, PROXIES) == client


def test_guessing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures are logged without the password; after too many, even the right one has to wait, but not metrics."""
    clock = [0.0]
    monkeypatch.setattr("celery_monitor.adapters.web.basic.monotonic", lambda: clock[0])
    site = serve(username="ops", password="right", trusted_proxies=["127.0.0.1"])

    def status(password: str, client: str = "192.0.2.1") -> int:
        headers = {"x-forwarded-for": client}
        return site.get("/api/v1/tasks", auth=("ops\n", password), headers=headers).status_code

    with capture_logs() as lines:
        assert site.get("/api/v1/tasks").status_code == 401
        assert [status(f"guess-{number}") for number in range(MAX_FAILURES + 2)] == [401] * MAX_FAILURES + [429] * 2
        refusal = site.get("/api/v1/tasks", auth=("ops", "right"), headers={"x-forwarded-for": "192.0.2.1"})
        assert (refusal.status_code, refusal.headers["retry-after"]) == (429, "60")
        assert site.get("/api/v1/tasks", auth=("ops", "right")).status_code == 200
        assert site.get("/metrics", headers={"x-forwarded-for": "192.0.2.1"}).status_code == 200
        clock.append(clock.pop() + throttle.WINDOW)
        assert status("wrong") == 401
    failed = [line for line in lines if line["event"] == "Sign-in failed"]
    assert len(failed) == MAX_FAILURES + 1
    assert failed[0]["client"] == "192.0.2.1"
    assert failed[0]["user"] == "ops\ufffd"
    assert [line["client"] for line in lines if line["event"].startswith("Too many")] == ["192.0.2.1"]
    assert "guess" not in str(lines)
    counted = {reason: count for reason, count in site.server.sign_ins_refused.items() if count}
    assert counted == {"wrong": MAX_FAILURES + 1, "throttled": 3}
