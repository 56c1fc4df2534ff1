"""The channels of type apprise. All are entries of ``channels``."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from celery_monitor.adapters.channels import Channel, Check, CheckState, Context, TestResult, entries, no_rule, of_entry
from celery_monitor.adapters.channels.apprise.settings import AppriseEntry
from celery_monitor.errors import DeliveryError, Problem
from celery_monitor.ports import Clock, Sender
from celery_monitor.settings import Settings

if TYPE_CHECKING:
    from celery_monitor.adapters.channels.apprise.send import Apprise


def configured(settings: Settings) -> list[Channel]:
    """One channel for each entry."""
    services = [AppriseService(entry) for entry in entries(settings, AppriseEntry)]
    return [
        of_entry(
            apprise_channel.entry,
            apprise_channel,
            title="Apprise",
            to=apprise_channel.scheme,
            timeout=apprise_channel.entry.timeout,
            rate_limit=apprise_channel.entry.rate_limit,
            secrets=(apprise_channel.entry.url_source(),),
        )
        for apprise_channel in services
    ]


def problems(settings: Settings) -> Iterator[Problem]:
    """A problem if Apprise, an optional dependency, is not installed."""
    for number, entry in enumerate(settings.channels):
        if isinstance(entry, AppriseEntry) and find_spec("apprise") is None:
            message = "Apprise is not installed: pip install 'celery-monitor[apprise]' (the container image has it)"
            yield Problem(f"channels[{number}].type", message)


@dataclass(frozen=True, slots=True)
class AppriseService:
    """A service of Apprise."""

    entry: AppriseEntry

    @property
    def scheme(self) -> str:
        """The scheme of the URL, which names the service. The rest of the URL is secret."""
        return (self.entry.url_source().get() or "").partition("://")[0].lower()

    def sender(self, context: Context) -> Sender:
        """See Channel."""
        return self._apprise(context)

    def test(self, fleet: str, clock: Clock, rule: str | None) -> TestResult:
        """Send a test message. See Test."""
        no_rule(rule, "a service")
        message = f"Sent by `celery-monitor notify test {self.entry.name}`: nothing failed."
        title = f"[{fleet}] Test from celery-monitor"
        self._apprise(Context.for_test(clock)).post({"title": title, "body": message, "kind": "info"})
        return TestResult(f"Apprise has sent the test message by {self.scheme}")

    def check(self) -> Check:
        """Check that Apprise accepts the URL. Only a real message shows whether the service accepts messages."""
        from celery_monitor.adapters.channels.apprise.send import Apprise  # noqa: PLC0415 - quick to import otherwise

        entry = self.entry
        service = Apprise(channel=entry.name, url=entry.url_source(), timeout=entry.timeout, incident=lambda _: None)
        try:
            service.post({})
        except DeliveryError as exc:
            return Check(CheckState.FAIL, f"{exc}: {exc.remedy}" if exc.remedy else str(exc))
        message = f"Apprise supports its {self.scheme} URL: `celery-monitor notify test {entry.name}` sends a message"
        return Check(CheckState.OK, message)

    def _apprise(self, context: Context) -> "Apprise":
        from celery_monitor.adapters.channels.apprise.send import Apprise  # noqa: PLC0415 - as above

        return Apprise(
            channel=self.entry.name,
            url=self.entry.url_source(),
            timeout=self.entry.timeout,
            incident=context.incident,
            external_url=context.external_url,
        )
