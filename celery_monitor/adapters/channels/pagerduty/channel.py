"""The channel of the section ``pagerduty``, with the routing keys of individual rules."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from celery_monitor.adapters.channels import Channel, Check, CheckState, Context, TestResult, entries
from celery_monitor.adapters.channels.pagerduty.settings import PagerDutyEntry
from celery_monitor.errors import ConfigError, DeliveryError, Problem
from celery_monitor.ports import Clock, Sender
from celery_monitor.settings import PagerDutySettings, SecretSource, Settings

NAME: Final = "pagerduty"
ENDPOINTS: Final = {"us": "https://events.pagerduty.com", "eu": "https://events.eu.pagerduty.com"}


def configured(settings: Settings) -> list[Channel]:
    """The channel of the section, which is off without a routing key, and those of ``channels``."""
    section, rules = settings.pagerduty, settings.alerts.rules
    sources = {"": section.routing_key_source()} | {rule.name: rule.routing_key_source() for rule in rules}
    keys = {route: source for route, source in sources.items() if source.get() is not None}
    return [
        _channel(Service(NAME, section, keys)),
        *(
            _channel(Service(entry.name, entry, {"": entry.routing_key_source()}))
            for entry in entries(settings, PagerDutyEntry)
        ),
    ]


def _channel(service: "Service") -> Channel:
    number, own = len(service.keys), service.name != NAME
    return Channel(
        name=service.name,
        title=f"PagerDuty: {service.name}" if own else "PagerDuty",
        routes=frozenset(service.keys),
        summary=f"on, {number} routing key{'s' * (number > 1)}" if number else "off: no routing key is set",
        off="no pagerduty.routing_key: incidents are stored, and nobody is paged",
        needs=Problem("pagerduty.routing_key", "is not set"),
        timeout=service.settings.timeout,
        rate_limit=service.settings.rate_limit,
        sender=service.sender,
        test=service.test,
        check=service.check,
        secrets=tuple(service.keys.values()),
    )


def endpoint(region: str, url: str | None = None) -> str:
    """The base URL of the Events API: ``url`` (a proxy or a test server) if set, otherwise that of the region."""
    return url.rstrip("/") if url else ENDPOINTS[region]


@dataclass(frozen=True, slots=True)
class Service:
    """The API and its routing keys. ``keys``: route → routing key; "" is the default route."""

    name: str
    """The channel's name."""
    settings: PagerDutySettings | PagerDutyEntry
    keys: Mapping[str, SecretSource]

    @property
    def url(self) -> str:
        """The base URL of the API."""
        return endpoint(self.settings.region, self.settings.url)

    def sender(self, context: Context) -> Sender:
        """See Channel."""
        from celery_monitor.adapters.channels.pagerduty.send import PagerDuty  # noqa: PLC0415 - requests is slow

        return PagerDuty(
            channel=self.name,
            url=self.url,
            keys=self.keys,
            incident=context.incident,
            clock=context.clock,
            timeout=self.settings.timeout,
            external_url=context.external_url,
        )

    def test(self, fleet: str, clock: Clock, rule: str | None) -> TestResult:
        """Open a test incident of severity info and resolve it immediately. See Test."""
        from celery_monitor.adapters.channels.pagerduty.send import send_test  # noqa: PLC0415 - as above

        source = self.keys.get(rule or "")
        key = source.get() if source is not None else None
        if key is None:
            rules = ", ".join(name for name in self.keys if name) or "none"
            if rule is not None:
                message = f"no rule {rule!r} has a routing key of its own (rules with one: {rules})"
                raise ConfigError([Problem("--rule", message)])
            message = f"is not set (rules with a key of their own: {rules})"
            raise ConfigError([Problem("pagerduty.routing_key", message)])
        return TestResult(send_test(url=self.url, key=key, fleet=fleet, clock=clock, timeout=self.settings.timeout))

    def check(self) -> Check:
        """Check that the API answers. The form of the keys was checked before; only a real event tests the keys."""
        from celery_monitor.adapters.channels.pagerduty.reachability import check_reachable  # noqa: PLC0415 - as above

        if not self.keys:
            return Check(CheckState.OFF, "no routing key is set: incidents are logged and stored, but not sent")
        try:
            check_reachable(self.url, self.settings.timeout)
        except DeliveryError as exc:
            return Check(CheckState.FAIL, f"{exc}: {exc.remedy or 'check pagerduty.url'}")
        number = f"{len(self.keys)} routing key{'s' * (len(self.keys) > 1)}"
        text = f"{urlsplit(self.url).hostname} answers; {number}: `celery-monitor notify test {self.name}` tries one"
        if "" not in self.keys:
            message = f"{text}; without pagerduty.routing_key only rules with their own key page"
            return Check(CheckState.WARN, message)
        return Check(CheckState.OK, text)
