"""Requests and the interpretation of answers, with a server that enforces PagerDuty's contract."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest

from celery_monitor.adapters.channels.pagerduty.channel import endpoint
from celery_monitor.adapters.channels.pagerduty.send import KeySource, PagerDuty
from celery_monitor.adapters.http import exchange
from celery_monitor.adapters.http.exchange import retry_after
from celery_monitor.core.model import Action, Incident
from celery_monitor.errors import DeliveryError, InterruptedSendError, RejectedError, RetryableError
from celery_monitor.settings.secret import Secret, SecretSource
from tests.adapters.channels.pagerduty.incidents import AT, KEY, an_incident, an_item
from tests.fakes import ManualClock
from tests.servers.certificate import Certificate
from tests.servers.pagerduty import Behaviour, PagerDutyServer
from tests.servers.ports import free_port
from tests.servers.waiting import wait_until

TIMEOUT = 1.0
TOLERANCE = 30.0
"""Seconds beyond the timeout in which a request must have ended, on a busy machine; else it would never end."""
WAIT_SECONDS = 60.0
"""The timeout where a request is to be answered, however busy the machine is."""


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    """A simulated PagerDuty that accepts every routing key."""
    with PagerDutyServer() as running:
        yield running


class Sending:
    """A sender of one incident, which the test may replace."""

    def __init__(self, url: str, keys: dict[str, KeySource] | None = None, timeout: float = WAIT_SECONDS) -> None:
        self.incident: Incident | None = an_incident()
        self.clock = ManualClock(time=AT)
        self.pagerduty = PagerDuty(
            url=url,
            keys={"": SecretSource(Secret(KEY))} if keys is None else keys,
            incident=lambda _: self.incident,
            clock=self.clock,
            timeout=timeout,
            external_url="https://monitor.example.com/",
        )

    def be_patient(self) -> None:
        """Use a long timeout from now on, for a busy machine."""
        self.pagerduty.timeout = WAIT_SECONDS

    def send(self, action: Action = Action.TRIGGER, **item: object) -> int:
        """Send a row; returns the number of reported failures."""
        sent = self.pagerduty.send(an_item(self.incident or an_incident(), action, **item))
        assert sent.receipt == item.get("key", (self.incident or an_incident()).key)
        return sent.count


@pytest.fixture
def sending(server: PagerDutyServer) -> Sending:
    """A sender with one routing key."""
    return Sending(server.url)


@pytest.fixture
def graceful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is shut down ends as soon as its thread runs."""
    monkeypatch.setattr(exchange, "GRACE", WAIT_SECONDS)


def test_a_trigger_keeps_the_contract(server: PagerDutyServer, sending: Sending) -> None:
    """A trigger is one valid request that opens one incident, and returns the number of failures."""
    sending.incident = an_incident(count=7)
    assert sending.send() == 7
    assert len(server.received) == 1
    assert server.violations == []
    assert server.opened(KEY) == {"shop.billing.charge/2026-11-23T14Z": 1}


def test_an_update_opens_nothing_new(server: PagerDutyServer, sending: Sending) -> None:
    """A second trigger with the same key updates the open alert."""
    sending.send()
    sending.incident = an_incident(count=9)
    sending.send()
    (alert,) = server.alerts.values()
    assert (alert.opened, alert.updates) == (1, 1)
    assert server.received[1].details["failures"] == 9


def test_a_resolve_resolves(server: PagerDutyServer, sending: Sending) -> None:
    """A resolve row closes the alert with the same key, without a stored incident."""
    sending.send()
    key = an_incident().key
    sending.incident = None
    assert sending.send(Action.RESOLVE, key=key) == 0
    (alert,) = server.alerts.values()
    assert (alert.open, alert.resolves) == (False, 1)
    assert server.violations == []


@pytest.mark.parametrize("code", [200, 204, 301, 302, 303, 307, 308, 401, 403, 404, 407, 408, 429, 500, 502, 503, 504])
def test_temporary_refusals(server: PagerDutyServer, sending: Sending, code: int) -> None:
    """Answers that are not about the event are retried by the notifier: one request, and no redirect is followed."""
    server.behave(Behaviour.status(code, b"over capacity", Location=f"{server.url}/v2/enqueue"))
    with pytest.raises(RetryableError, match=str(code)):
        sending.send()
    assert len(server.received) == 1


@pytest.mark.parametrize("code", [400, 413, 415, 422])
def test_final_refusals(server: PagerDutyServer, sending: Sending, code: int) -> None:
    """A rejection of the event itself is final and is quoted; one request."""
    server.behave(Behaviour.status(code, b'{"status":"invalid event",\n "errors":["length"]}'))
    with pytest.raises(RejectedError, match=rf'{code}: .*"errors":\["length"\]'):
        sending.send()
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (400, b"Invalid routing key"),
        (
            400,
            b'{"status":"invalid event","errors":["Length of \'routing_key\' is incorrect (should be 32 characters)"]}',
        ),
        (400, b'{"errors":["\'routing_key\' cannot contain non-alphanumeric characters."]}'),
        (400, b'{"message":"Event object is invalid","errors":["Service key can\'t be blank"]}'),
        (401, b"unknown integration key"),
        (403, b"this Routing Key is disabled"),
    ],
)
def test_a_routing_key_that_is_refused_waits_for_a_person(
    server: PagerDutyServer, sending: Sending, code: int, answer: bytes
) -> None:
    """No page is given up; the error says what to repair, without the key."""
    server.behave(Behaviour.status(code, answer + b" " + KEY.encode()))
    with pytest.raises(RetryableError, match=r"pagerduty\.routing_key") as raised:
        sending.send()
    assert raised.value.needs_repair
    assert KEY not in str(raised.value)


def test_an_event_that_is_refused_is_no_fault_of_its_key(server: PagerDutyServer, sending: Sending) -> None:
    """Even though the answer repeats the request."""
    server.behave(
        Behaviour.status(400, b'{"status":"invalid event","errors":["summary"],"sent":"' + KEY.encode() + b'"}')
    )
    with pytest.raises(RejectedError, match=r"\[routing key\]"):
        sending.send()


@pytest.mark.parametrize(
    "behaviour", [Behaviour.garbage(), Behaviour.garbage(b""), Behaviour.garbage(b"[]"), Behaviour.drip_body(202)]
)
def test_a_202_is_taken_whatever_its_body(server: PagerDutyServer, sending: Sending, behaviour: Behaviour) -> None:
    """The status means that the event was accepted; a broken or endless body does not cause a resend."""
    server.script(behaviour)
    began = time.monotonic()
    assert sending.send() == 1
    assert time.monotonic() - began < WAIT_SECONDS / 2
    assert len(server.received) == 1


@pytest.mark.parametrize("take", [True, False])
def test_a_dropped_connection_is_retried(server: PagerDutyServer, sending: Sending, *, take: bool) -> None:
    """A connection that breaks before the answer is retried, whether or not the event was accepted."""
    server.script(Behaviour.drop(take=take))
    with pytest.raises(RetryableError, match=r"PagerDuty \(127\.0\.0\.1:\d+\): "):
        sending.send()
    assert len(server.received) == 1
    sending.send()
    assert server.opened() == {an_incident().key: 1}


@pytest.mark.usefixtures("graceful")
@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour.hang(),
        Behaviour.drip(every=0.02),
        Behaviour.drip(every=0.02, code=503),
        Behaviour.drip_body(503, every=0.02),
    ],
    ids=["hang", "status", "headers", "body"],
)
def test_no_server_holds_a_request_longer_than_its_timeout(server: PagerDutyServer, behaviour: Behaviour) -> None:
    """Silence and slow bytes end with the timeout; the request's thread ends too."""
    sending = Sending(server.url, timeout=TIMEOUT)
    server.behave(behaviour)
    began = time.monotonic()
    with pytest.raises(RetryableError, match=r"within 1 s|timed out|responded with 503"):
        sending.send()
    assert TIMEOUT * 0.9 < time.monotonic() - began < TIMEOUT + TOLERANCE
    assert not [thread for thread in threading.enumerate() if thread.name == "pagerduty-request"]
    server.behave()
    sending.be_patient()
    assert sending.send() == 1


@pytest.mark.usefixtures("graceful")
def test_a_202_counts_though_its_headers_never_end(server: PagerDutyServer) -> None:
    """After a status line with 202 the event was accepted, even if the timeout ends the rest."""
    # Within it the status line has to come.
    timeout = 5.0
    sending = Sending(server.url, timeout=timeout)
    server.script(Behaviour.drip(every=0.02, take=True, code=202))
    began = time.monotonic()
    assert sending.send() == 1
    assert timeout * 0.9 < time.monotonic() - began < timeout + TOLERANCE


@pytest.mark.usefixtures("graceful")
def test_a_drip_over_tls(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout also applies with TLS, and a valid answer is accepted."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.certificate))
    with PagerDutyServer(certificate=certificate) as server:
        sending = Sending(server.url, timeout=TIMEOUT)
        server.behave(Behaviour.drip(every=0.02))
        began = time.monotonic()
        with pytest.raises(RetryableError, match=r"within 1 s|timed out"):
            sending.send()
        assert time.monotonic() - began < TIMEOUT + TOLERANCE
        server.behave()
        sending.be_patient()
        assert sending.send() == 1
        assert server.violations == []


def test_an_untrusted_certificate_gets_nothing(certificate: Certificate) -> None:
    """An untrusted server never receives the event or the key; it is retried later."""
    with PagerDutyServer(certificate=certificate) as server:
        with pytest.raises(RetryableError, match=r"(?i)certificate"):
            Sending(server.url).send()
        assert server.received == []


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_bundle_of_certificates_that_is_not_there(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    """The error names the file, its remedy the variable, and the page waits."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "missing.pem"))
    with (
        PagerDutyServer(certificate=certificate) as server,
        pytest.raises(RetryableError, match=r"missing\.pem") as caught,
    ):
        Sending(server.url).send()
    assert f"set {variable} in the environment" in str(caught.value.remedy)


def test_nobody_listens() -> None:
    """A refused connection is retried, and the error says so."""
    with pytest.raises(RetryableError, match="refused"):
        Sending(f"http://127.0.0.1:{free_port()}").send()


def test_a_name_server_that_hangs_holds_nothing(server: PagerDutyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless name lookup is abandoned at the timeout; at most one thread waits for it, and sends nothing."""
    answered = threading.Event()
    lookups = []

    def lookup(*args: object) -> object:
        lookups.append(args)
        answered.wait(150)
        return resolve(*args)  # type: ignore[arg-type]

    import socket

    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    # Within it the request's thread has to come to the lookup.
    timeout = 3.0
    sending = Sending(server.url, timeout=timeout)
    began = time.monotonic()
    with pytest.raises(RetryableError, match="within"):
        sending.send()
    with pytest.raises(RetryableError, match="DNS"):
        sending.send()
    assert time.monotonic() - began < timeout + TOLERANCE
    assert len(lookups) == 1
    answered.set()
    wait_until(lambda: not sending.pagerduty._exchange.alive)
    assert server.received == []
    sending.be_patient()
    assert sending.send() == 1


def test_stop_ends_a_request_under_way(server: PagerDutyServer) -> None:
    """Stopping does not wait for a server that hangs."""
    server.script(Behaviour.hang())
    sending = Sending(server.url, timeout=150.0)

    def stop_when_it_hangs() -> None:
        wait_until(lambda: server.received, 60)
        sending.pagerduty.stop()

    stopper = threading.Thread(target=stop_when_it_hangs)
    stopper.start()
    began = time.monotonic()
    with pytest.raises(InterruptedSendError, match="shutting down"):
        sending.send()
    stopper.join()
    assert time.monotonic() - began < 75
    with pytest.raises(InterruptedSendError, match="shutting down"):
        sending.send()
    assert len(server.received) == 1


def test_retry_after_in_seconds(server: PagerDutyServer, sending: Sending) -> None:
    """The Retry-After of a 429 reaches the notifier in seconds."""
    server.script(Behaviour.status(429, Retry_After="17"))
    with pytest.raises(RetryableError) as caught:
        sending.send()
    assert caught.value.after == 17


def test_retry_after_as_a_date(server: PagerDutyServer, sending: Sending) -> None:
    """Retry-After as an HTTP date is the time until then."""
    date = format_datetime(datetime.fromtimestamp(int(AT) + 90, UTC), usegmt=True)
    server.script(Behaviour.status(503, Retry_After=date))
    with pytest.raises(RetryableError) as caught:
        sending.send()
    assert caught.value.after == pytest.approx(90, abs=1)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("-5", 0.0),
        ("1.5", 1.5),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 99 Foo 2026 25:61:61 GMT", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ],
)
def test_unreadable_retry_after_is_ignored(header: str | None, seconds: float | None) -> None:
    """An invalid value is ignored, and no wait is negative."""
    assert retry_after(header, AT) == seconds


def test_an_incident_that_is_no_longer_stored(server: PagerDutyServer, sending: Sending) -> None:
    """A row whose incident was deleted is rejected without a request."""
    item = an_item(an_incident())
    sending.incident = None
    with pytest.raises(RejectedError, match="no longer stored"):
        sending.pagerduty.send(item)
    assert server.received == []


def test_a_key_file_is_read_again_when_it_changes(server: PagerDutyServer, tmp_path: Path) -> None:
    """A rotated key applies to the next request without a restart, and has another lane."""
    file = tmp_path / "key"
    file.write_text("A" * 32 + "\n")
    sending = Sending(server.url, {"": SecretSource(None, file)})
    item = an_item(an_incident())
    before = sending.pagerduty.rate_limit_key(item)
    sending.send()
    new = tmp_path / "new"
    new.write_text("B" * 32)
    new.rename(file)
    sending.send()
    assert [request.event["routing_key"] for request in server.received] == ["A" * 32, "B" * 32]
    assert sending.pagerduty.rate_limit_key(item) != before


def test_routes_have_keys_and_keys_have_lanes(server: PagerDutyServer) -> None:
    """A route uses its own key, an unknown route the default one; routes with the same key share a lane."""
    keys: dict[str, KeySource] = {
        "": SecretSource(Secret("A" * 32)),
        "billing": SecretSource(Secret("B" * 32)),
        "ledger": SecretSource(Secret("B" * 32)),
    }
    sending = Sending(server.url, keys)
    routes = ("", "billing", "ledger", "gone")
    for route in routes:
        sending.send(route=route)
    assert [request.event["routing_key"][0] for request in server.received] == ["A", "B", "B", "A"]
    lanes = [sending.pagerduty.rate_limit_key(an_item(an_incident(route=route))) for route in routes]
    assert lanes[0] == lanes[3] != lanes[1] == lanes[2]
    assert not any(
        rate_limit_key is None or "AAAA" in rate_limit_key or "BBBB" in rate_limit_key for rate_limit_key in lanes
    )


@pytest.mark.parametrize("keys", [{}, {"": SecretSource(None)}])
def test_without_a_routing_key(server: PagerDutyServer, keys: dict[str, KeySource]) -> None:
    """Without a routing key there is no lane, and nothing is sent."""
    sending = Sending(server.url, keys)
    assert sending.pagerduty.rate_limit_key(an_item(an_incident())) is None
    with pytest.raises(RejectedError, match="no routing key"):
        sending.send()
    assert server.received == []


def test_errors_never_hold_the_key(server: PagerDutyServer) -> None:
    """No error, log line or repr contains the routing key, even if the server quotes it."""
    key = "s3cr3tR0ut1ngKeyOfTheTest0123456"
    sending = Sending(server.url, {"": SecretSource(Secret(key))}, timeout=3.0)
    server.script(
        Behaviour.status(400, f'{{"errors":["Invalid routing key {key}"]}}'.encode()),
        Behaviour.status(503, key.encode() * 200),
        Behaviour.redirect(302, f"http://127.0.0.1/{key}"),
        Behaviour.drop(take=True),
        Behaviour.hang(),
    )
    for _ in range(5):
        with pytest.raises(DeliveryError) as caught:
            sending.send()
        error: BaseException | None = caught.value
        while error is not None:
            assert key not in f"{error!r} {error} {error.args}"
            error = error.__cause__
    assert key not in repr(sending.pagerduty)
    wait_until(lambda: len(server.received) == 5)


def test_passwords_of_netrc_are_not_sent(
    server: PagerDutyServer, sending: Sending, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A default entry in ~/.netrc does not add credentials to the request."""
    (tmp_path / ".netrc").write_text("default login somebody password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    sending.send()
    assert "Authorization" not in server.received[0].headers
    assert server.received[0].headers["Content-Type"] == "application/json"


def test_a_proxy_of_the_environment_is_used(sending: Sending, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP(S)_PROXY is used: in many fleets it is the only way out."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(RetryableError, match="refused"):
        sending.send()


@pytest.mark.parametrize(
    ("region", "url", "expected"),
    [
        ("us", None, "https://events.pagerduty.com"),
        ("eu", None, "https://events.eu.pagerduty.com"),
        ("eu", "http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
    ],
)
def test_endpoints(region: str, url: str | None, expected: str) -> None:
    """The region selects the address; a configured URL overrides it."""
    assert endpoint(region, url) == expected
