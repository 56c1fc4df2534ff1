"""Each check of the doctor, without a broker."""

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from celery_monitor.adapters.channels import configured
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.store import open_store
from celery_monitor.cli import main
from celery_monitor.cli.doctor import fleet, services
from celery_monitor.cli.doctor.config_mismatch import agreement
from celery_monitor.cli.doctor.finding import Finding, State
from celery_monitor.cli.healthcheck import CheckResult
from celery_monitor.core.model import Changes, Delivery
from celery_monitor.settings import BrokerSettings, Settings, StoreSettings, WebSettings, load
from tests.adapters.channels.email.mail_server import MailServer, serving
from tests.adapters.channels.email.test_recipients import Talk
from tests.servers.pagerduty import PagerDutyServer
from tests.servers.ports import free_port
from tests.servers.scripted import misbehaving

NOW = 1_795_402_000.0
KEY = "R0123456789abcdefghijklmnopqrstu"


# --- the command -----------------------------------------------------------------------------------------------------
def doctor(*options: str, **environ: str) -> tuple[int, list[str]]:
    """The exit code and the lines."""
    result = CliRunner().invoke(main, ["doctor", "--seconds", "1", *options], env=environ)
    return result.exit_code, result.output.splitlines()


def test_every_problem_of_the_configuration_is_a_line() -> None:
    """An invalid configuration fails with all of its problems, and nothing else is checked."""
    code, lines = doctor(CELERY_MONITOR_WEB__PORT="no", CELERY_MONITOR_STORE__URL="mysql://x")
    assert code == 2
    assert sorted(line.split()[:3] for line in lines) == [
        ["FAIL", "configuration", "CELERY_MONITOR_STORE__URL:"],
        ["FAIL", "configuration", "CELERY_MONITOR_WEB__PORT:"],
    ]


def test_without_a_broker_the_rest_is_looked_at(tmp_path: Path) -> None:
    """An unreachable broker fails without its password in the line; checks that do not need it follow."""
    code, lines = doctor(
        CELERY_MONITOR_BROKER__URL=f"amqp://shop:hunter22@127.0.0.1:{free_port()}//",
        CELERY_MONITOR_STORE__URL=f"sqlite:///{tmp_path}/store.db",
        CELERY_MONITOR_WEB__PORT=str(free_port()),
    )
    assert code == 1
    assert "hunter22" not in "".join(lines)
    assert "Connection refused: nothing is listening there" in lines[1]
    assert "host and port in broker.url" in lines[1]
    states = {line[6:20].strip(): line.split()[0] for line in lines}
    waiting = {"exchange", "queue", "workers", "options", "events", "task events", "task-sent", "clocks"}
    assert {subject for subject, state in states.items() if state == "skip"} == waiting
    assert {line[21:] for line in lines if line.startswith("skip")} == {"not checked: the broker is not reachable"}
    rest = [states[subject] for subject in ("configuration", "broker", "store", "pagerduty", "email", "web")]
    assert rest == ["ok", "FAIL", "ok", "off", "off", "ok"]
    assert list(tmp_path.iterdir()) == []


def test_of_several_urls_one_that_can_be_reached_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like the daemon, it tries the next one; the unreachable one is a warning without its password."""
    monkeypatch.setattr(fleet, "_ANSWER_WITHIN", 0.1)  # there is no worker
    code, lines = doctor(
        CELERY_MONITOR_BROKER__URL=f"amqp://shop:hunter22@127.0.0.1:{free_port()}//;memory://",
        CELERY_MONITOR_STORE__URL=f"sqlite:///{tmp_path}/store.db",
        CELERY_MONITOR_WEB__PORT=str(free_port()),
    )
    assert "hunter22" not in "".join(lines)
    refused, connected = (line for line in lines if line[6:].startswith("broker "))
    assert re.match("warn .* Connection refused: .*; the next URL is used instead", refused)
    assert re.match("ok .* memory://.*: connected", connected)
    assert "not checked: the broker is not reachable" not in "".join(lines)
    assert code == 1  # no worker


def test_options_stand_in_for_the_daemon_s_configuration(tmp_path: Path) -> None:
    """--broker, --store and --port override the configuration, as for run."""
    ports = [free_port(), free_port()]
    broker, store_url = f"redis://127.0.0.1:{ports[0]}/0", f"sqlite:///{tmp_path}/mine.db"
    _, lines = doctor("--broker", broker, "--store", store_url, "--port", str(ports[1]))
    findings = {line[6:20].strip(): line[21:] for line in lines}
    assert findings["broker"].startswith(f"{broker}: ")
    assert findings["store"].startswith(f"{tmp_path}/mine.db ")
    assert findings["web"].startswith(f"port {ports[1]} ")


def test_a_finding_cannot_control_the_terminal() -> None:
    """A worker's name or a server's answer stays one printable line."""
    line = str(Finding(State.WARN, "workers", "celery@\x1b[2J\nbox\u202e"))
    assert "\n" not in line
    assert "\x1b[2J" not in line
    assert "\u202e" not in line


# --- what workers tell -----------------------------------------------------------------------------------------------
def seen(*events: Mapping[str, Any]) -> fleet.ObservedEvents:
    """The events of the stream, one per message, read at NOW."""
    found = fleet.ObservedEvents()
    for event in events:
        found.receive(Delivery(msgspec.json.encode({"timestamp": NOW, "hostname": "celery@a"} | dict(event))), NOW)
    return found


HEARTBEAT = {"type": "worker-heartbeat"}
STARTED = {"type": "task-started", "uuid": "u"}
SENT = {"type": "task-sent", "uuid": "u", "hostname": "gen1@web"}


@pytest.mark.parametrize(
    ("events", "conf", "asked", "state", "text"),
    [
        ([HEARTBEAT, STARTED], {}, False, State.OK, "every worker sends them"),
        ([HEARTBEAT], {"celery@a": {"worker_send_task_events": True}}, False, State.OK, "every worker sends them"),
        ([HEARTBEAT], {"celery@a": {}}, True, State.OK, "the monitor enables them on every worker .* celery@a"),
        ([HEARTBEAT], {}, True, State.WARN, "not seen from celery@a, and no worker answers .* start workers with -E"),
        ([HEARTBEAT], {}, False, State.WARN, "not seen from celery@a, .* -E, .* turn broker.enable_events on"),
        ([STARTED, HEARTBEAT | {"hostname": "celery@b"}], {}, False, State.WARN, "not seen from celery@b, "),
    ],
)
def test_task_events(
    events: list[dict[str, Any]], conf: dict[str, Any], *, asked: bool, state: State, text: str
) -> None:
    """They are confirmed by an event or the worker's configuration, enabled by enable_events, or have to be enabled."""
    stream = seen(*events)
    finding = fleet._task_events(sorted(stream.ahead), stream, conf, events_enabled=asked)
    assert finding.state is state
    assert re.search(text, finding.text)


@pytest.mark.parametrize(
    ("events", "conf", "state"),
    [
        ([SENT], {}, State.OK),
        ([STARTED], {"celery@a": {"task_send_sent_event": True}}, State.OK),
        ([STARTED], {"celery@a": {"task_send_sent_event": True}, "celery@b": {}}, State.WARN),
        ([STARTED], {}, State.WARN),
    ],
)
def test_task_sent(events: list[dict[str, Any]], conf: dict[str, Any], state: State) -> None:
    """Seen, or enabled in every worker's configuration; otherwise the line explains its use."""
    assert fleet._task_sent(seen(*events), conf).state is state


def test_clients_are_no_workers() -> None:
    """Clients that send tasks do not count as workers."""
    assert set(seen(SENT, HEARTBEAT).ahead) == {"celery@a"}


@pytest.mark.parametrize(
    ("stamps", "state", "text"),
    [
        ([NOW - 1.0, NOW - 0.25], State.OK, "by at most 0.25 s"),
        ([NOW + 30.0], State.WARN, "celery@a 30.0 s ahead: synchronize"),
        ([NOW - 90.0, NOW - 60.0], State.WARN, "celery@a 60.0 s behind"),
    ],
)
def test_clocks(stamps: list[float], state: State, text: str) -> None:
    """A worker's clock is checked with its most recent event, so that a slow message is not a wrong clock."""
    finding = fleet._clocks(seen(*(HEARTBEAT | {"timestamp": stamp} for stamp in stamps)))
    assert (finding.state, text in finding.text) == (state, True)


@pytest.mark.parametrize(
    ("workers", "events", "state"),
    [(["celery@a"], [], State.OK), ([], [HEARTBEAT], State.WARN), ([], [SENT], State.FAIL)],
)
def test_workers(workers: list[str], events: list[dict[str, Any]], state: State) -> None:
    """Workers that answer are fine; if they only send events, remote control is off; no workers is a failure."""
    assert fleet._workers(workers, seen(*events), {}, []).state is state


@pytest.mark.parametrize(
    ("workers", "events", "discarded", "others", "text"),
    [
        ([], [HEARTBEAT], {}, [], "celery@a send events: check that their accept_content .* control_exchange"),
        (
            ["celery@b"],
            [HEARTBEAT],
            {},
            [],
            "1 answered; these send events but do not answer: celery@a: .*accept_content",
        ),
        ([], [], {"content_type": 3}, [], "3 replies are not JSON: set task_serializer"),
        ([], [], {"late": 3}, [], "none answered: is a worker running"),
        (
            [],
            [],
            {},
            ["global_keyprefix 'shop:'"],
            "has keys of a fleet with global_keyprefix 'shop:': is it running. Set",
        ),
        ([], [HEARTBEAT], {}, ["control_exchange 'shop'"], "has keys of a fleet with control_exchange 'shop'"),
    ],
)
def test_workers_that_do_not_answer(
    workers: list[str], events: list[dict[str, Any]], discarded: dict[str, int], others: list[str], text: str
) -> None:
    """They are named with the settings of Celery that may be the reason."""
    finding = fleet._workers(workers, seen(*events), discarded, others)
    assert finding.state is not State.OK
    assert re.search(text, finding.text)


_REDIS: dict[str, Any] = {"url": "redis://127.0.0.1:1/0"}


@pytest.mark.parametrize(
    ("ours", "theirs", "state", "text"),
    [
        ({}, {}, State.OK, "settings match the monitor's"),
        ({}, {"broker_transport_options": {"sentinel_kwargs": {"password": "pw"}}}, State.OK, ""),
        ({}, {"broker_transport_options": {"sep": ":"}}, State.NOTE, "sep is ':' on celery@a, but '"),
        ({"transport_options": {"sep": ":"}}, {"BROKER_TRANSPORT_OPTIONS": {"sep": ":"}}, State.OK, ""),
        ({"transport_options": {"sep": ":"}}, {}, State.NOTE, "but ':' here"),
        ({}, {"broker_transport_options": {"priority_steps": [0, 1]}}, State.NOTE, r"priority_steps is \[0, 1\]"),
        ({"transport_options": {"priority_steps": (0, 1)}}, {"broker_transport_options": {"priority_steps": [0, 1]}},
         State.OK, ""),
        ({}, {"broker_transport_options": {"queue_order_strategy": "priority"}}, State.NOTE, "does not affect"),
        ({}, {"broker_transport_options": {"fanout_prefix": False}}, State.WARN, "fanout_prefix is False"),
        ({}, {"broker_transport_options": {"fanout_patterns": False}}, State.WARN, "fanout_patterns is False"),
        ({}, {"broker_transport_options": {"global_keyprefix": "********"}}, State.OK, ""),
        ({}, {"event_exchange": "shop"}, State.FAIL, "set broker.exchange"),
        ({"exchange": "shop"}, {"CELERY_EVENT_EXCHANGE": "shop"}, State.OK, ""),
        ({}, {"control_exchange": "shop"}, State.WARN, "set broker.control_exchange"),
        ({}, {"event_serializer": "pickle"}, State.FAIL, "event_serializer is 'pickle'"),
        ({}, {"event_serializer": ["json"]}, State.FAIL, ""),
        ({}, {"event_serializer": "msgpack"}, State.OK, ""),
        ({}, {"accept_content": ["pickle"]}, State.WARN, "logs an error for each request"),
        ({}, {"accept_content": ["pickle", "application/json"]}, State.OK, ""),
        ({}, {"broker_transport_options": ["x"], "accept_content": 5, "sep": {}}, State.WARN, "accept_content is 5"),
        ({}, [], State.OK, ""),
        ({}, None, State.OK, ""),
        ({}, {"broker_transport_options": {"sep": "x" * 10_000}}, State.NOTE, "sep is 'x{59} on"),
    ],
)  # fmt: skip
def test_agreement(ours: dict[str, Any], theirs: object, state: State, text: str) -> None:
    """Each difference between the workers' and the monitor's settings has a line with a remedy and without secrets."""
    settings = BrokerSettings.model_validate(_REDIS | ours)
    [finding] = agreement({"celery@a": theirs}, settings, redis=True)
    assert finding.state is state
    assert re.search(text, finding.text)
    assert "pw" not in finding.text


def test_agreement_on_rabbitmq() -> None:
    """Options for Redis do not apply; workers that differ from each other are listed separately."""
    confs = {
        "celery@a": {"broker_transport_options": {"sep": ":"}},
        "celery@b": {"event_exchange": "x"},
        "celery@c": {},
    }
    [finding] = agreement(confs, BrokerSettings(), redis=False)
    assert "event_exchange is 'x' on celery@b, but 'celeryev' here" in finding.text


def test_stream() -> None:
    """No event fails, unreadable ones warn, a lost stream gives the reason."""
    assert fleet._stream(seen(), 5, None).state is State.FAIL
    assert fleet._stream(seen(HEARTBEAT), 5, None).text == "1 came in 5 s, from 1 worker"
    assert fleet._stream(seen(HEARTBEAT), 5, "it broke off").text == "it broke off"
    pickled = seen(HEARTBEAT)
    pickled.receive(Delivery(b"\x80", "application/x-python-serialize"), NOW)
    finding = fleet._stream(pickled, 5, None)
    assert finding.state is State.WARN
    assert "event_serializer must be json" in finding.text


# --- the store -------------------------------------------------------------------------------------------------------
def store(path: Path) -> Finding:
    """The checks of the store at this path."""
    return services.store(Settings(store=StoreSettings(url=f"sqlite:///{path}")))


def test_store_that_is_not_there_yet(tmp_path: Path) -> None:
    """A writable directory is enough, and nothing is created in it; a missing one fails."""
    assert store(tmp_path / "new.db").state is State.OK
    assert list(tmp_path.iterdir()) == []
    finding = store(tmp_path / "no" / "new.db")
    assert finding.state is State.FAIL
    assert f"the directory {tmp_path}/no does not exist" in finding.text


def test_store_beside_its_daemon(tmp_path: Path) -> None:
    """A store that a daemon has open is read, and the daemon continues to write."""
    daemon = open_store(f"sqlite:///{tmp_path}/store.db", retention=86_400.0, fingerprint_window=10)
    with ExitStack() as cleanup:
        cleanup.callback(daemon.stop)
        sequence = daemon.start().sequence
        daemon.commit(Changes(NOW, sequence + 1, counters={"alive_at": NOW}))
        finding = store(tmp_path / "store.db")
        assert finding.state is State.OK
        assert re.search(r"MiB, writable, last written [\d,]+ s ago$", finding.text)
        daemon.commit(Changes(NOW + 1, sequence + 2, counters={"alive_at": NOW + 1}))


def test_bounds_of_memory(tmp_path: Path) -> None:
    """A limit exceeded within a day is a warning that names the setting; earlier ones do not count."""
    settings = Settings(store=StoreSettings(url=f"sqlite:///{tmp_path}/store.db"))
    assert services.limits(settings).state is State.OK
    daemon = open_store(settings.store.url_source(), retention=86_400.0, fingerprint_window=10)
    with ExitStack() as cleanup:
        cleanup.callback(daemon.stop)
        sequence = daemon.start().sequence
        now = SystemClock().now()
        before = {"alive_at": now, "limit.workers": 3.0}
        daemon.commit(Changes(now - 2 * 86_400, sequence + 1, counters=before))
        assert services.limits(settings).state is State.OK
        daemon.commit(Changes(now, sequence + 2, counters={**before, "limit.series": 1200.0, "evicted": 2.0}))
        finding = services.limits(settings)
    assert finding.state is State.WARN
    assert "series 1,200 times (metrics.max_series), tasks 2 times (tracking.max_tasks)" in finding.text
    assert "workers" not in finding.text


def test_store_that_lost_something_or_nears_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was rolled back within a day is a warning, and so is one near its limit."""
    daemon = open_store(f"sqlite:///{tmp_path}/store.db", retention=86_400.0, fingerprint_window=10)
    with ExitStack() as cleanup:
        cleanup.callback(daemon.stop)
        now, sequence = SystemClock().now(), daemon.start().sequence
        daemon.commit(Changes(now - 2 * 86_400, sequence + 1, counters={"store_rolled_back": 1.0}))
        assert store(tmp_path / "store.db").state is State.OK
        monkeypatch.setattr(services, "_NEARLY", 0.0)
        assert "store.max_bytes" in store(tmp_path / "store.db").text
        daemon.commit(Changes(now, sequence + 2, counters={"store_rolled_back": 2.0}))
        lost = store(tmp_path / "store.db")
        assert lost.state is State.WARN
        assert "older than the last commit" in lost.text


def test_store_that_is_damaged_or_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not a database fails, and so does one without write permission."""
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database" * 100)
    finding = store(path)
    assert finding.state is State.FAIL
    assert "damaged or not a database" in finding.text
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert f"user {os.getuid()} has no write permission for {path}" in store(path).text


def test_a_read_only_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like a container's root: changing the owner does not help there."""
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_flag=os.ST_RDONLY))
    finding = store(tmp_path / "store.db")
    assert finding.state is State.FAIL
    assert f"{tmp_path} is on a read-only file system: mount a writable volume there" in finding.text


def test_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nearly full disk is reported before it is full."""
    monkeypatch.setattr(services, "_MIN_FREE_SPACE", 1 << 62)
    finding = store(tmp_path / "store.db")
    assert finding.state is State.WARN
    assert "MiB are free" in finding.text


# --- the receivers ---------------------------------------------------------------------------------------------------
@pytest.fixture
def pagerduty_server() -> Iterator[PagerDutyServer]:
    """A simulated PagerDuty."""
    with PagerDutyServer() as server:
        yield server


def channel(name: str, settings: Mapping[str, object]) -> Finding:
    """The check of the channel with this name."""
    return next(services.channel(one) for one in configured(load(None, settings, {})) if one.name == name)


def pagerduty(
    url: str, rules: list[dict[str, Any]] | None = None, key: str | None = KEY, timeout: str = "60s"
) -> Finding:
    """The check of the API at this address."""
    section = {"pagerduty.routing_key": key, "pagerduty.url": url, "pagerduty.timeout": timeout}
    return channel("pagerduty", section | {"alerts.rules": rules or []})


def test_pagerduty_is_reached_without_an_event(pagerduty_server: PagerDutyServer) -> None:
    """An API that answers is fine, and gets no event; a key only in a rule pages only for that rule."""
    assert pagerduty(pagerduty_server.url).state is State.OK
    only_rule = pagerduty(pagerduty_server.url, [{"name": "billing", "routing_key": KEY}], key=None)
    assert only_rule.state is State.WARN
    assert pagerduty(pagerduty_server.url, key=None).state is State.OFF
    assert pagerduty_server.alerts == {}
    assert not any(request.taken for request in pagerduty_server.received)


def test_pagerduty_cannot_be_reached() -> None:
    """A closed port, a gateway's error and a missing answer fail, with a remedy and without the key."""
    closed = pagerduty(f"http://127.0.0.1:{free_port()}")
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        hanging = pagerduty(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout="200ms")
    for finding in (closed, hanging):
        assert finding.state is State.FAIL
        assert "set HTTPS_PROXY or pagerduty.url" in finding.text
        assert KEY not in finding.text
    assert "refused" in closed.text
    assert "timed out" in hanging.text


def email(server: MailServer) -> Finding:
    """The check of this mail server."""
    settings = {"host": "127.0.0.1", "port": server.port, "security": "none", "from": "a@example.com", "to": ["b@c.de"]}
    return channel("email", {f"email.{name}": value for name, value in settings.items()})


def test_mail_addresses_beyond_ascii() -> None:
    """An address that requires SMTPUTF8 is checked with the server before the daily mail is sent."""
    ann, juergen = "ann@shop.example", "Jürgen <jürgen@faß.example>"
    states = {}
    for extensions in ("HELP", "SMTPUTF8"):
        with misbehaving(Talk({}, extensions).speak) as port:
            for sender, to in [(ann, [ann, "m@bücher.example"]), (ann, [ann, juergen]), (juergen, [ann])]:
                given = {"host": "127.0.0.1", "port": port, "security": "none", "from": sender, "to": to}
                finding = channel("email", {f"email.{name}": value for name, value in given.items()})
                states[extensions, sender, to[-1]] = finding.state
                named = "email.from needs" if sender == juergen else "email.to[1] needs"
                assert finding.state is State.OK or f"has no SMTPUTF8, which {named}" in finding.text
    assert [key for key, state in states.items() if state is not State.OK] == [
        ("HELP", ann, juergen),
        ("HELP", juergen, ann),
    ]


def test_mail_server_is_reached_without_a_mail() -> None:
    """A server that answers is fine and gets no mail; an unreachable one fails."""
    server = MailServer()
    with serving(server):
        assert email(server).state is State.OK
        assert server.mails == []
    finding = email(server)
    assert finding.state is State.FAIL
    assert "nothing is listening there" in finding.text
    assert "email.host and email.port" in finding.text
    assert "Errno" not in finding.text
    assert channel("email", {}).state is State.OFF


# --- the port --------------------------------------------------------------------------------------------------------
def web(port: int) -> services.Port:
    """The check of a port of the loopback interface."""
    return services.web(WebSettings(host="127.0.0.1", port=port))


def test_port() -> None:
    """A free port is fine; one used by another program is not."""
    free = web(free_port())
    assert (free.finding.state, free.daemon) == (State.OK, False)
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        other.settimeout(0)
        port = other.getsockname()[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("celery_monitor.cli.healthcheck._TIMEOUT", 0.2)
            taken = web(port)
    assert (taken.finding.state, taken.daemon) == (State.FAIL, False)
    assert "is in use: no response from" in taken.finding.text
    assert f"ss -ltnp 'sport = :{port}'" in taken.finding.text
    assert services.web(WebSettings(host="192.0.2.1")).finding.state is State.FAIL


@pytest.mark.parametrize(
    ("answer", "state", "daemon", "text"),
    [
        (CheckResult(alive=True, ours=True, text="ok: threads: ok"), State.OK, True, "a monitor is running on port"),
        (
            CheckResult(alive=False, ours=True, text="failing: threads: x"),
            State.FAIL,
            True,
            "is unhealthy: failing: thr",
        ),
        (
            CheckResult(alive=False, ours=False, text="not a celery-monitor"),
            State.FAIL,
            False,
            "is in use: not a celery",
        ),
    ],
)
def test_who_has_the_port(
    monkeypatch: pytest.MonkeyPatch, answer: CheckResult, state: State, text: str, *, daemon: bool
) -> None:
    """A healthy monitor is fine; an unhealthy one and another program are distinguished."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        monkeypatch.setattr(services, "ask", lambda _url: answer)
        port = web(other.getsockname()[1])
    assert (port.finding.state, port.daemon) == (state, daemon)
    assert text in port.finding.text


def test_a_store_that_is_not_the_running_monitor_s(tmp_path: Path) -> None:
    """While a monitor runs, a store that is missing or was not written for minutes is a warning."""
    url = f"sqlite:///{tmp_path}/store.db"
    missing = services.store(Settings(store=StoreSettings(url=url)), in_use=True)
    assert missing.state is State.WARN
    assert "does not exist, but a monitor is running on web.port: it uses another store" in missing.text
    daemon = open_store(url, retention=86_400.0, fingerprint_window=10)
    with ExitStack() as cleanup:
        cleanup.callback(daemon.stop)
        sequence = daemon.start().sequence
        for age, state in [(600.0, State.WARN), (5.0, State.OK)]:
            now = SystemClock().now() - age
            sequence += 1
            daemon.commit(Changes(now, sequence, counters={"alive_at": now}))
            assert services.store(Settings(store=StoreSettings(url=url)), in_use=True).state is state
