"""What the tests of two replicas share: a pair of daemons on one PostgreSQL, and what can happen to them.

Each replica reaches the database through pgbouncer, and database and broker through proxies of its own, which can
swallow its packets. A fault is a generator: it does something, yields a condition that must become true, and so on
until both replicas run again. So the faults of several pairs run side by side in one thread, which starts all
processes: the kernel ends a process with the thread that started it.
"""

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.adapters.channels.email.mail_server import MailServer, serving
from tests.e2e.daemon import Daemon
from tests.e2e.paging import KEY
from tests.servers import TcpProxy, wait_until
from tests.servers.pagerduty import PagerDutyServer

TAKE_OVER = 90.0
"""Seconds in which another replica leads, on however busy a machine; bench/takeover.py has what it takes."""
_LAST_LINES = 30
"""Of the log of a replica that has ended by itself, printed."""
_ANSWER = 5.0
"""Seconds in which a replica that is not frozen answers."""

Fault = Generator[Callable[[], bool], None, None]


class Replica(Daemon):
    """A daemon on a shared database, with a proxy in front of the database and one in front of the broker."""

    def __init__(
        self, directory: Path, broker_url: str, store_url: str, settings: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """The URLs are those of the servers; the proxies run until ``close``."""
        self.to_broker, broker = _through_proxy(broker_url)
        self.to_database, database = _through_proxy(store_url)
        wanted: dict[str, dict[str, Any]] = {"store": {"url": database, "directory": str(directory), "replicas": 2}}
        for section, fields in settings.items():
            wanted.setdefault(section, {}).update(fields)
        super().__init__(directory, broker, wanted)

    def close(self) -> None:
        """Stop it and its proxies."""
        self.kill()
        self.to_broker.stop()
        self.to_database.stop()

    @property
    def proxies(self) -> dict[str, list[TcpProxy]]:
        """The proxies by the name of the fault."""
        return {
            "broker": [self.to_broker],
            "database": [self.to_database],
            "both": [self.to_broker, self.to_database],
        }

    def leads(self) -> bool | None:
        """Whether it leads; None if it does not answer."""
        try:
            status, body = self.get("/metrics", timeout=_ANSWER)
        except OSError:
            return None
        samples = [one for family in text_string_to_metric_families(body) for one in family.samples]
        found = {one.name: one.value for one in samples if one.name == "celery_monitor_leader"}
        return bool(found["celery_monitor_leader"]) if status == 200 else None

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz", timeout=_ANSWER)[0] == 200
        except OSError:
            return False


def _through_proxy(url: str) -> tuple[TcpProxy, str]:
    """A started proxy for the server of a URL, and the URL through it."""
    head, _, rest = url.rpartition(":")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    proxy = TcpProxy(int(digits))
    proxy.start()
    return proxy, f"{head}:{proxy.port}{rest.removeprefix(digits)}"


@dataclass
class Pair:
    """Two replicas on a broker, with their own receivers."""

    name: str
    broker_url: str
    replicas: list[Replica]
    pagerduty: PagerDutyServer
    mail: MailServer
    done: list[str] = field(default_factory=list)
    """The faults so far."""

    def start(self) -> None:
        """Start both; the first one leads."""
        for one in self.replicas:
            one.start()
            one.until_ready()
        self.until_complete()  # a standby is ready, too, but only a leader has declared its queue

    def close(self) -> None:
        """Stop both."""
        for one in self.replicas:
            one.close()

    def leader(self) -> Replica | None:
        """The leader, if one leads and the other one is ready to take over."""
        roles = [(one.leads(), one) for one in self.replicas]
        leading = [one for role, one in roles if role]
        complete = sorted(str(role) for role, _ in roles) == ["False", "True"]
        return leading[0] if complete and all(one.is_ready() for one in self.replicas) else None

    def _complete(self) -> Replica | None:
        for one in self.replicas:
            again(self, one)
        return self.leader()

    def until_complete(self) -> tuple[Replica, Replica]:
        """Wait until one leads and the other one is a ready standby; return them in this order."""
        try:
            leader = wait_until(self._complete, TAKE_OVER, every=0.1)
        except TimeoutError:
            raise AssertionError(f"{self.name} after {self.done}: {self.state()}") from None
        assert leader is not None
        (standby,) = (one for one in self.replicas if one is not leader)
        return leader, standby

    def state(self) -> list[str]:
        """A description for messages."""
        return [_state(one) for one in self.replicas]


def _state(one: Replica) -> str:
    if not one.running:
        return f"{one.directory.name} has ended: {one.log_tail()}"
    with suppress(OSError):
        return f"{one.directory.name} leads: {one.leads()}, {one.get('/readyz', timeout=_ANSWER)}"
    return f"{one.directory.name} does not answer"


def again(pair: Pair, one: Replica) -> None:
    """Start it where it has ended by itself, as an orchestrator would; counted with the faults. Returns at once.

    Its log is kept, because that of a test that passes is not.
    """
    if one.running:
        return
    pair.done.append(f"ended_with_{one.stop()}")
    log_copy = Path(tempfile.mkdtemp(prefix="celery-monitor-ended-")) / f"{pair.name}-{one.directory.name}.log"
    shutil.copy(one.log, log_copy)
    last = "\n".join(one.log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
    print(f"{one.directory.name} of {pair.name} {pair.done[-1]} after {pair.done[:-1]}; {log_copy}:\n{last}")  # noqa: T201 - see report
    one.launch()


def kill_leader(pair: Pair, _seconds: float) -> Fault:
    """SIGKILL to the leader, which restarts as a standby."""
    leader, standby = pair.until_complete()
    leader.kill()
    yield lambda: standby.leads() is True
    leader.launch()


def kill_standby(pair: Pair, _seconds: float) -> Fault:
    """SIGKILL to the standby, which does not affect the leader."""
    leader, standby = pair.until_complete()
    standby.kill()
    yield lambda: leader.leads() is True
    standby.launch()


def roll(pair: Pair, _seconds: float) -> Fault:
    """SIGTERM to the leader, which hands over, and then to the other one: a rolling update."""
    for _ in range(2):
        leader, standby = pair.until_complete()
        leader.signal(signal.SIGTERM)
        yield lambda: not leader.running  # noqa: B023 - it is asked before the next round
        leader.stop()
        leader.launch()
        yield lambda: standby.leads() is True  # noqa: B023


def freeze_leader(pair: Pair, seconds: float) -> Fault:
    """SIGSTOP to the leader until another one has taken over, and SIGCONT: its late writes must have no effect."""
    leader, standby = pair.until_complete()
    until = time.monotonic() + seconds
    leader.pause()
    yield lambda: standby.leads() is True and time.monotonic() >= until
    leader.resume()
    yield lambda: not leader.running or leader.leads() is False
    again(pair, leader)


def swallow(what: str) -> Callable[[Pair, float], Fault]:
    """The network drops the leader's packets to its database, its broker, or both, without closing connections."""

    def fault(pair: Pair, seconds: float) -> Fault:
        leader, standby = pair.until_complete()
        until = time.monotonic() + seconds
        for proxy in leader.proxies[what]:
            proxy.stall()
        if what == "broker":  # who leads is the database's to say
            yield lambda: time.monotonic() >= until
        else:
            yield lambda: standby.leads() is True and time.monotonic() >= until
        for proxy in leader.proxies[what]:
            proxy.cut()
            proxy.resume()
        yield lambda: not leader.running or leader.leads() is not None
        again(pair, leader)

    fault.__name__ = f"swallow_{what}"
    return fault


FAULTS: Sequence[Callable[[Pair, float], Fault]] = (
    kill_leader, kill_standby, roll, freeze_leader, swallow("database"), swallow("broker"), swallow("both"),
)  # fmt: skip


def side_by_side(pairs: Sequence[Pair], faults: Sequence[Callable[[Pair, float], Fault]], seconds: float) -> None:
    """Apply one fault to each pair at the same time; return when each pair is complete again."""
    running: dict[int, tuple[Fault, Callable[[], bool]]] = {}
    for number, (pair, fault) in enumerate(zip(pairs, faults, strict=True)):
        pair.done.append(fault.__name__)
        going = fault(pair, seconds)
        running[number] = (going, next(going))
    until = time.monotonic() + seconds + TAKE_OVER
    while running:
        for number, (going, condition) in list(running.items()):
            if condition():
                following = next(going, None)
                running.pop(number)
                if following is not None:
                    running[number] = (going, following)
        if time.monotonic() > until:
            late = [(pairs[number].name, pairs[number].done) for number in running]
            states = [pairs[number].state() for number in running]
            raise AssertionError(f"not over after {TAKE_OVER:.0f} s: {late}; {states}")
        time.sleep(0.05)
    for pair in pairs:
        pair.until_complete()


@contextmanager
def pair(
    broker_url: str, store_url: str, directory: Path, *, queue: str = "classic", report_in: float = 12 * 3600.0
) -> Iterator[Pair]:
    """Two replicas with their own receivers; the first one leads. ``report_in``: seconds until a report is due."""
    with ExitStack() as stack:
        pagerduty = stack.enter_context(PagerDutyServer(keys={KEY}))
        mail = stack.enter_context(serving(MailServer()))
        wanted = _settings(pagerduty, mail, time.gmtime(time.time() + report_in), queue)
        replicas = [Replica(directory / f"replica-{letter}", broker_url, store_url, wanted) for letter in "ab"]
        both = Pair(directory.name, broker_url, replicas, pagerduty, mail)
        stack.callback(both.close)
        both.start()
        yield both


def _settings(
    pagerduty: PagerDutyServer, mail: MailServer, due: time.struct_time, queue: str
) -> dict[str, dict[str, Any]]:
    return {
        "broker": {"heartbeat": "5s", "probe_interval": "2s", "queue": {"type": queue}},
        "pagerduty": {"url": pagerduty.url, "routing_key": KEY, "timeout": "30s"},
        "email": {
            "host": "127.0.0.1",
            "port": mail.port,
            "security": "none",
            "from": "monitor@shop.example",
            "to": ["ann@shop.example"],
            "schedule": f"{due.tm_min} {due.tm_hour} * * *",
        },
    }
