"""The channels of type webhook. All are entries of ``channels``."""

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from celery_monitor.adapters.channels import Channel, Check, CheckState, Context, TestResult, entries, no_rule, of_entry
from celery_monitor.adapters.channels.webhook.render import TEST, body
from celery_monitor.adapters.channels.webhook.settings import WebhookEntry
from celery_monitor.errors import DeliveryError
from celery_monitor.ports import Clock, Sender
from celery_monitor.settings import SecretSource, Settings

if TYPE_CHECKING:
    from celery_monitor.adapters.channels.webhook.send import Webhook


def configured(settings: Settings) -> list[Channel]:
    """One channel for each entry."""
    return [
        of_entry(
            hook.entry,
            hook,
            title="Webhook",
            to=hook.host,
            timeout=hook.entry.timeout,
            rate_limit=hook.entry.rate_limit,
            secrets=(hook.entry.secret_source(), hook.url_source),
        )
        for hook in (Hook(entry, entry.url_source()) for entry in entries(settings, WebhookEntry))
    ]


@dataclass(frozen=True, slots=True)
class Hook:
    """A receiver."""

    entry: WebhookEntry
    url_source: SecretSource

    @property
    def host(self) -> str:
        """The receiver's host and port. The rest of its URL may contain a secret."""
        return urlsplit(self.url).netloc

    @property
    def url(self) -> str:
        """The receiver's complete URL at present."""
        return self.url_source.get() or ""

    def sender(self, context: Context) -> Sender:
        """See Channel."""
        return self._webhook(context)

    def test(self, fleet: str, clock: Clock, rule: str | None) -> TestResult:
        """Send an event of type test. See Test."""
        no_rule(rule, "a webhook")
        event_id = f"msg_{secrets.token_hex(16)}"
        note = f"Sent by `celery-monitor notify test {self.entry.name}`: nothing failed."
        answer = self._webhook(Context.for_test(clock)).post(
            event_id, body(TEST, clock.now(), {"fleet": fleet, "summary": note})
        )
        return TestResult(f"{self.host} answered {answer.status} to the test event {event_id}")

    def check(self) -> Check:
        """Check that the server answers. Only a real event shows whether the server accepts events."""
        from celery_monitor.adapters.http.request import reach  # noqa: PLC0415 - as above

        try:
            status = reach(self.url, self.entry.timeout, self.entry.name)
        except DeliveryError as exc:
            return Check(CheckState.FAIL, f"{exc}: {exc.remedy or 'check its url'}")
        message = (
            f"{self.host} answers ({status} to HEAD): `celery-monitor notify test {self.entry.name}` sends an event"
        )
        return Check(CheckState.OK, message)

    def _webhook(self, context: Context) -> "Webhook":
        from celery_monitor.adapters.channels.webhook.send import Webhook  # noqa: PLC0415 - requests is slow to import

        entry = self.entry
        return Webhook(
            channel=entry.name,
            url=self.url_source,
            secret=entry.secret_source(),
            incident=context.incident,
            clock=context.clock,
            timeout=entry.timeout,
            external_url=context.external_url,
        )
