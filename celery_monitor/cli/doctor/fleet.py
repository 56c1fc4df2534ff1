"""Checks of the broker, the workers and the event stream."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from celery_monitor.adapters.broker.diagnostics import BrokerDiagnostics
from celery_monitor.adapters.broker.listener import Listener
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.cli.doctor.config_mismatch import agreement
from celery_monitor.cli.doctor.finding import Finding, fail, name_list, note, ok, skip, warn
from celery_monitor.core.decode import Discarded, events_of
from celery_monitor.core.model import Delivery
from celery_monitor.errors import SourceLostError
from celery_monitor.ports import Clock
from celery_monitor.settings import BrokerSettings, redact_url
from celery_monitor.settings.broker import unverified
from celery_monitor.settings.lint import UNVERIFIED

_ANSWER_WITHIN: Final = 2.0
_POLL: Final = 0.25
_ON_BROKER: Final = ("exchange", "queue")
_OF_WORKERS: Final = ("workers", "options", "events", "task events", "task-sent", "clocks")
_DEAF: Final = (
    "check that their accept_content includes json (otherwise they log an error for each request), that their "
    "control_exchange matches broker.control_exchange, and that worker_enable_remote_control is on"
)
_ALIKE: Final = "the same control_exchange (then compare fanout_prefix and fanout_patterns)"
_SKEW: Final = 2.0
"""Difference between clocks, in seconds, that network delay cannot explain."""


@dataclass(slots=True)
class ObservedEvents:
    """The events that were received."""

    events: int = 0
    types: Counter[str] = field(default_factory=Counter)
    task_senders: set[str] = field(default_factory=set)
    """Workers that sent task events."""
    ahead: dict[str, float] = field(default_factory=dict)
    """Worker → minimum seconds by which its clock is ahead of this one; negative if it is behind or events are slow."""

    def receive(self, delivery: Delivery, now: float) -> None:
        """Count the events of a message."""
        for event in events_of(delivery):
            if isinstance(event, Discarded):
                self.types[f"discarded: {event.reason}"] += 1
            elif event.type.startswith(("task-", "worker-")):
                self.events += 1
                self.types[event.type] += 1
                if event.type == "task-sent":
                    continue  # from a client, whose hostname contains its process ID
                if event.type.startswith("task-"):
                    self.task_senders.add(event.hostname)
                ahead = event.timestamp - now
                self.ahead[event.hostname] = max(ahead, self.ahead.get(event.hostname, ahead))


def findings(settings: BrokerSettings, seconds: float) -> Iterator[Finding]:
    """Run all checks; without a broker, the others are skipped. ``seconds``: how long to watch events.

    Of several URLs, the first reachable one is checked, as the daemon also tries the next one.
    """
    unreachable: list[str] = []
    for address in settings.each_address():
        url = redact_url(address.url.get_secret_value())
        with closing(BrokerDiagnostics(address)) as diagnostics:
            started_at = time.monotonic()
            try:
                diagnostics.connect()
            except SourceLostError as exc:
                unreachable.append(f"{url}: {exc}")
                continue
            for problem in unreachable:
                yield warn("broker", f"{problem}; the next URL is used instead")
            yield ok("broker", f"{url}: connected in {(time.monotonic() - started_at) * 1000:.0f} ms")
            yield from _of_broker(diagnostics, address, seconds)
            return
    for problem in unreachable:
        yield fail("broker", problem)
    for subject in (*(_ON_BROKER if BrokerDiagnostics(settings).has_queues else ()), *_OF_WORKERS):
        yield skip(subject, "not checked: the broker is not reachable")


def _of_broker(diagnostics: BrokerDiagnostics, settings: BrokerSettings, seconds: float) -> Iterator[Finding]:
    """The checks that need a connection; ``diagnostics`` is connected."""
    if unverified(settings.url_source().get() or "", settings.use_ssl):
        yield warn("tls", UNVERIFIED)
    if diagnostics.has_queues:
        yield _exchange(diagnostics, settings.exchange)
        yield _queue(diagnostics, settings)
    else:
        yield note("queue", "not used with this transport: the monitor misses events that are sent while it is down")
        yield from eviction(diagnostics)
    yield from _conversation(diagnostics, settings, seconds)


def eviction(diagnostics: BrokerDiagnostics) -> Iterator[Finding]:
    """A warning if Redis may delete queued tasks."""
    try:
        policy = diagnostics.evicts()
    except SourceLostError as exc:
        yield warn("memory", str(exc))
        return
    if policy is not None:
        yield warn(
            "memory",
            f"when Redis reaches maxmemory, it deletes keys of any kind (maxmemory-policy {policy}), also queues with "
            "the tasks that wait in them: set maxmemory-policy noeviction",
        )


def _exchange(diagnostics: BrokerDiagnostics, name: str) -> Finding:
    try:
        if diagnostics.exchange_exists():
            return ok("exchange", f"{name} exists")
    except SourceLostError as exc:
        return fail("exchange", str(exc))
    return warn(
        "exchange",
        f"{name} does not exist yet: the first worker or the monitor creates it; if workers are running, compare "
        "broker.exchange "
        "with Celery's event_exchange, and the virtual host in broker.url with theirs",
    )


def _queue(diagnostics: BrokerDiagnostics, settings: BrokerSettings) -> Finding:
    name = settings.queue.name
    try:
        state = diagnostics.queue()
    except SourceLostError as exc:
        return fail("queue", str(exc))
    if state is None:
        return ok(
            "queue",
            f"{name} does not exist yet: the monitor creates it on its first start and misses no events from then on",
        )
    if not state.consumers:
        return warn("queue", f"{name} holds {state.messages:,} messages and has no consumer: start the monitor")
    return ok(
        "queue", f"{name} is declared as configured, a monitor is consuming it, {state.messages:,} messages are ready"
    )


def _conversation(diagnostics: BrokerDiagnostics, settings: BrokerSettings, seconds: float) -> Iterator[Finding]:
    """Check the workers' answers and the events that they send meanwhile."""
    clock, seen, problem = SystemClock(), ObservedEvents(), None
    replies: Mapping[str, Mapping[str, Any]] = {}
    with closing(Listener(settings)) as listener:
        deadline = clock.monotonic() + seconds
        try:
            listener.connect()
        except SourceLostError as exc:
            problem = f"{exc}"
        try:
            replies = diagnostics.ask(_ANSWER_WITHIN)
        except SourceLostError as exc:
            yield fail("workers", str(exc))
        if problem is None:
            problem = _watch(listener, seen, deadline, clock)
    conf = {host: reply for host, reply in replies.get("conf", {}).items() if isinstance(reply, dict)}
    workers = sorted(replies.get("ping", {}))
    if replies:
        yield _workers(workers, seen, diagnostics.discarded, [] if workers else _others(diagnostics, settings))
    if conf:
        yield from agreement(conf, settings, redis=diagnostics.is_redis)
    yield _stream(seen, seconds, problem)
    if seen.events or workers:
        yield _task_events(sorted({*workers, *seen.ahead}), seen, conf, events_enabled=settings.enable_events)
        yield _task_sent(seen, conf)
    if seen.ahead:
        yield _clocks(seen)


def _watch(listener: Listener, seen: ObservedEvents, deadline: float, clock: Clock) -> str | None:
    """Collect events in ``seen``. Returns the error, if any."""
    try:
        while (remaining := deadline - clock.monotonic()) > 0:
            for delivery in listener.poll(min(remaining, _POLL)):
                seen.receive(delivery, clock.now())
    except SourceLostError as exc:
        return str(exc)
    return None


def _others(diagnostics: BrokerDiagnostics, settings: BrokerSettings) -> list[str]:
    """Fleets on this broker whose settings differ from the monitor's."""
    ours = (str(settings.transport_options.get("global_keyprefix", "")), settings.control_exchange)
    try:
        fleets = diagnostics.fleets()
    except SourceLostError:
        return []
    names = [
        f"global_keyprefix {prefix!r} and control_exchange {name!r}"
        for prefix, name in fleets
        if (prefix, name) != ours
    ]
    return names or [_ALIKE for fleet in fleets if fleet == ours]


def _workers(workers: list[str], seen: ObservedEvents, discarded: Mapping[str, int], others: list[str]) -> Finding:
    silent = sorted(seen.ahead.keys() - set(workers))
    if discarded.get("content_type"):
        return warn(
            "workers",
            f"{len(workers)} answered, but {discarded['content_type']} replies are not JSON: set task_serializer = "
            "'json' in the workers",
        )
    if workers and silent:
        return warn(
            "workers", f"{len(workers)} answered; these send events but do not answer: {name_list(silent)}: {_DEAF}"
        )
    if workers:
        return ok("workers", f"{len(workers)} answered: {name_list(workers)}")
    if silent:
        return warn(
            "workers",
            f"none answered, but {name_list(silent)} send events: {_DEAF}. Until this is fixed, queues that are not "
            "listed in metrics.queues and the names of tasks that started before the monitor are unknown, and "
            "workers must be started with -E"
            + (f". This database has keys of a fleet with {name_list(others)}" if others not in ([], [_ALIKE]) else ""),
        )
    if others:
        return fail(
            "workers",
            f"none answered, but this database has keys of a fleet with {name_list(others)}: is it running? Set "
            "broker.control_exchange and broker.transport_options to that fleet's values",
        )
    return fail("workers", "none answered: is a worker running on this broker, virtual host and database?")


def _stream(seen: ObservedEvents, seconds: float, problem: str | None) -> Finding:
    if problem is not None:
        return fail("events", problem)
    strange = {kind: number for kind, number in seen.types.items() if kind.startswith("discarded: ")}
    if strange:
        return warn(
            "events",
            f"{sum(strange.values())} cannot be read ({name_list(sorted(strange))}): event_serializer must be json",
        )
    if seen.events:
        senders = len(seen.ahead)
        return ok("events", f"{seen.events:,} came in {seconds:g} s, from {senders} worker{'s' * (senders != 1)}")
    return fail(
        "events",
        f"none received in {seconds:g} s: compare broker.exchange with Celery's event_exchange; workers started "
        "with --without-heartbeat send none while they are idle",
    )


def _task_events(
    workers: list[str], seen: ObservedEvents, conf: Mapping[str, Mapping[str, Any]], *, events_enabled: bool
) -> Finding:
    proven = seen.task_senders | {host for host, values in conf.items() if values.get("worker_send_task_events")}
    unproven = [host for host in workers if host not in proven]
    if not unproven:
        return ok("task events", "every worker sends them")
    if events_enabled and not conf:
        return warn(
            "task events",
            f"not seen from {name_list(unproven)}, and no worker answers when the monitor asks for them: start workers "
            "with -E, or set worker_send_task_events = True",
        )
    if events_enabled:
        return ok(
            "task events", f"the monitor enables them on every worker (none seen from {name_list(unproven)} just now)"
        )
    return warn(
        "task events",
        f"not seen from {name_list(unproven)}, and broker.enable_events is off: start workers with -E, set "
        "worker_send_task_events = True, or turn broker.enable_events on",
    )


def _task_sent(seen: ObservedEvents, conf: Mapping[str, Mapping[str, Any]]) -> Finding:
    if seen.types["task-sent"]:
        return ok("task-sent", "clients send it: queue names and queue wait times are known")
    if conf and all(values.get("task_send_sent_event") for values in conf.values()):
        return ok("task-sent", "task_send_sent_event is on in the workers' configuration")
    return warn(
        "task-sent",
        "not seen: without it, queue wait times are unknown, and so are the queues of workers that consume several; "
        "set task_send_sent_event = True where tasks are sent (ignore this if no tasks were sent just now)",
    )


def _clocks(seen: ObservedEvents) -> Finding:
    wrong = {host: ahead for host, ahead in seen.ahead.items() if abs(ahead) > _SKEW}
    if not wrong:
        largest = max(abs(ahead) for ahead in seen.ahead.values())
        return ok("clocks", f"the workers' clocks differ from this one by at most {largest:.2f} s")
    offsets = [f"{host} {abs(by):.1f} s {'ahead' if by > 0 else 'behind'}" for host, by in sorted(wrong.items())]
    return warn(
        "clocks",
        f"{name_list(offsets)}: synchronize them with NTP; failures are counted in the hour of the worker's clock",
    )
