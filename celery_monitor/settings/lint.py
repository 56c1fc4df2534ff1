"""Warnings about settings that are valid but probably not intended."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import combinations
from typing import Final

from celery_monitor.errors import Problem
from celery_monitor.settings.alerts import RuleSettings
from celery_monitor.settings.broker import BrokerSettings, tls_options, unverified
from celery_monitor.settings.channels import of_channels
from celery_monitor.settings.model import Settings
from celery_monitor.settings.schedules import ScheduleSettings
from celery_monitor.settings.sign_in import warnings_of_sign_in
from celery_monitor.settings.store import StoreSettings
from celery_monitor.settings.units import duration

UNVERIFIED: Final = (
    "the broker's certificate is not verified: anyone on the network path can read the password and forge events; "
    "set the certificate authority (ca_certs, or ssl_ca_certs for Redis) instead of disabling verification"
)

SENTINELS_IN_CLEAR: Final = (
    "TLS is on for the Redis master only: the Sentinels are contacted in clear text, with their password; set ssl: "
    "true in broker.transport_options.sentinel_kwargs"
)

_OF_POSTGRESQL: Final = {"schema": "schema_", "password_file": "password_file", "lease_ttl": "lease_ttl"}
"""Settings of ``store`` and their fields."""
_DURATION: Final = duration()


def warnings_of(settings: Settings) -> list[Problem]:
    """All warnings, each with its field and what to do. The daemon runs despite them."""
    return [
        *_shadowed(settings.alerts.rules),
        *_unverified(settings.broker),
        *_sentinels_in_clear(settings.broker),
        *_unbounded(settings.store),
        *_of_postgresql(settings.store),
        *_temporary_store(settings.store),
        *_unused(settings),
        *_silent_for_too_long(settings),
        *_grace_beyond_every(settings.schedules),
        *warnings_of_sign_in(settings.web),
        *of_channels("warnings", settings),
    ]


def _shadowed(rules: Sequence[RuleSettings]) -> Iterator[Problem]:
    """Rules that never apply, each with the first rule that shadows it."""
    reported = set()
    for (index, earlier), (number, later) in combinations(enumerate(rules), 2):
        if number not in reported and earlier.on == later.on and _covers(earlier, later):
            reported.add(number)
            yield Problem(
                f"alerts.rules[{number}]",
                f"{later.name} is never used: {earlier.name} (alerts.rules[{index}]) matches everything that it "
                "matches, and the first match wins; put the more specific rule first",
            )


def _covers(earlier: RuleSettings, later: RuleSettings) -> bool:
    """Whether the earlier rule certainly matches everything that the later one matches."""
    return (
        _all_of(earlier.match, later.match)
        and _all_of(earlier.queues, later.queues)
        and _all_of(earlier.exceptions, later.exceptions)
        and all(any(_within(glob, other) for other in later.exclude) for glob in earlier.exclude)
    )


def _all_of(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    if not wide or "*" in wide:
        return True
    return bool(narrow) and all(any(_within(glob, other) for other in wide) for glob in narrow)


def _within(glob: str, other: str) -> bool:
    """Whether ``other`` matches everything that ``glob`` matches. If both are patterns, only simple cases are found."""
    if glob == other:
        return True
    # A star in ``other`` matches the text of the pattern just as it matches the names that the pattern matches.
    return not set("?[") & set(other) and "[" not in glob and fnmatchcase(glob, other)


def _unverified(broker: BrokerSettings) -> Iterator[Problem]:
    if unverified(broker.url_source().get() or "", broker.use_ssl):
        yield Problem("broker.use_ssl", UNVERIFIED)


def _sentinels_in_clear(broker: BrokerSettings) -> Iterator[Problem]:
    """As in Celery, use_ssl applies to the master; connections to the Sentinels have their own options."""
    urls = (broker.url_source().get() or "").split(";")
    encrypted = any(tls_options(url, broker.use_ssl) is not None for url in urls)
    options = broker.transport_options.get("sentinel_kwargs")
    if urls[0].lower().startswith("sentinel:") and encrypted and not (isinstance(options, dict) and options.get("ssl")):
        yield Problem("broker.transport_options", SENTINELS_IN_CLEAR)


def _unbounded(store: StoreSettings) -> Iterator[Problem]:
    if store.file is None and "max_bytes" in store.model_fields_set:
        yield Problem(
            "store.max_bytes",
            "has no effect with PostgreSQL, whose size the monitor does not limit: monitor the server's disk, "
            "and shorten store.retention if the store is too large",
        )


def _temporary_store(store: StoreSettings) -> Iterator[Problem]:
    if store.file is not None and store.file.name == ":memory:":
        yield Problem(
            "store.url",
            "the store is a temporary file: counts, incidents and notifications are lost when the daemon ends; set it "
            "to the path of a file",
        )


def _of_postgresql(store: StoreSettings) -> Iterator[Problem]:
    """Settings for PostgreSQL although the store is SQLite."""
    if store.file is not None:
        for name, field in _OF_POSTGRESQL.items():
            if field in store.model_fields_set:
                yield Problem(f"store.{name}", "has no effect with a SQLite store")


def _unused(settings: Settings) -> Iterator[Problem]:
    """Channels to which nothing is ever sent."""
    alerts = settings.alerts
    names = {
        name
        for to in (alerts.to, *(rule.to for rule in alerts.rules), *(schedule.to for schedule in settings.schedules))
        for name in to
    }
    for number, channel in enumerate(settings.channels):
        if channel.name not in names:
            message = f"nothing is sent to {channel.name}: name it in alerts.to, or in the to of a rule or schedule"
            yield Problem(f"channels[{number}]", message)


def _silent_for_too_long(settings: Settings) -> Iterator[Problem]:
    """A dropped worker is no longer judged, so a worker counts as gone shortly before it is dropped."""
    limit = 0.9 * settings.metrics.worker_purge
    for number, rule in enumerate(settings.alerts.rules):
        if rule.silent_for is not None and rule.silent_for > limit:
            yield Problem(
                f"alerts.rules[{number}].silent_for",
                f"is longer than workers are kept: {rule.name} applies after 90 % of metrics.worker_purge; raise "
                "metrics.worker_purge, or shorten this",
            )


def _grace_beyond_every(schedules: Sequence[ScheduleSettings]) -> Iterator[Problem]:
    """With cron this is an error; with every, a short interval may be combined with the default grace."""
    for number, item in enumerate(schedules):
        if item.every is not None and item.grace > item.every:
            yield Problem(
                f"schedules[{number}].grace",
                f"is longer than every: {item.title} has missed more than one start when its incident opens, "
                f"{_DURATION.render(item.every + item.grace)} after its last start; set a grace shorter than every",
            )
