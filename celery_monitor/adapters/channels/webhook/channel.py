"""The channels of type webhook, all of which are entries of ``channels``."""

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from celery_monitor.adapters.channels import Channel, Check, CheckState, Context, Told
from celery_monitor.adapters.channels.webhook.render import TEST, body
from celery_monitor.adapters.channels.webhook.settings import WebhookEntry
from celery_monitor.errors import ConfigError, DeliveryError, Problem
from celery_monitor.ports import Clock, Sender
from celery_monitor.settings import Settings

if TYPE_CHECKING:
    from celery_monitor.adapters.channels.webhook.send import Webhook


def configured(settings: Settings) -> list[Channel]:
    """One for each entry."""
    return [_channel(Hook(entry)) for entry in settings.channels if isinstance(entry, WebhookEntry)]


def _channel(hook: "Hook") -> Channel:
    entry = hook.entry
    return Channel(
        name=entry.name,
        title=f"Webhook: {entry.name}",
        routes=frozenset({""}),
        summary=f"on, to {hook.host}",
        off="no secret: nothing is sent",
        needs=Problem("channels", f"{entry.name} needs a secret"),
        timeout=entry.timeout,
        rate_limit=entry.rate_limit,
        sender=hook.sender,
        test=hook.test,
        check=hook.check,
        secrets=(entry.secret_source(),),
    )


@dataclass(frozen=True, slots=True)
class Hook:
    """A receiver."""

    entry: WebhookEntry

    @property
    def host(self) -> str:
        """Of the receiver; the rest of its URL may hold a secret."""
        return urlsplit(self.entry.url).netloc

    def sender(self, context: Context) -> Sender:
        """See Channel."""
        return self._webhook(context)

    def test(self, fleet: str, clock: Clock, rule: str | None) -> Told:
        """Send an event of type test. See Test."""
        if rule is not None:
            raise ConfigError([Problem("--rule", "no rule has a webhook of its own: name a channel in its to")])
        event_id = f"msg_{secrets.token_hex(16)}"
        note = f"Sent by `celery-monitor notify test {self.entry.name}`: nothing failed."
        answer = self._webhook(Context.for_test(clock)).post(
            event_id, body(TEST, clock.now(), {"fleet": fleet, "summary": note})
        )
        return Told(f"{self.host} answered {answer.status} to the test event {event_id}")

    def check(self) -> Check:
        """The server answers. Whether it takes events, only one tells."""
        from celery_monitor.adapters.http.request import reach  # noqa: PLC0415 - as above

        try:
            status = reach(self.entry.url, self.entry.timeout, self.entry.name)
        except DeliveryError as exc:
            return Check(CheckState.FAIL, f"{exc}: {exc.remedy or 'check its url'}")
        told = f"{self.host} answers ({status} to HEAD): `celery-monitor notify test {self.entry.name}` sends an event"
        return Check(CheckState.OK, told)

    def _webhook(self, context: Context) -> "Webhook":
        from celery_monitor.adapters.channels.webhook.send import Webhook  # noqa: PLC0415 - requests is slow to import

        entry = self.entry
        return Webhook(
            channel=entry.name,
            url=entry.url,
            secret=entry.secret_source(),
            incident=context.incident,
            clock=context.clock,
            timeout=entry.timeout,
            external_url=context.external_url,
        )
