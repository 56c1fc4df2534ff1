"""The channels of type slack. All are entries of ``channels``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from celery_monitor.adapters.channels import Channel, Check, CheckState, Context, TestResult, entries, no_rule, of_entry
from celery_monitor.adapters.channels.slack.render import test_message
from celery_monitor.adapters.channels.slack.settings import SlackEntry
from celery_monitor.errors import DeliveryError
from celery_monitor.ports import Clock, Sender
from celery_monitor.settings import SecretSource, Settings

if TYPE_CHECKING:
    from celery_monitor.adapters.channels.slack.bot import SlackBot
    from celery_monitor.adapters.channels.slack.webhook import SlackWebhook

_REQUESTS: Final = 8
"""Maximum number of requests for one row. Searching for a message takes several."""


def configured(settings: Settings) -> list[Channel]:
    """One channel for each entry."""
    return [
        of_entry(
            slack.entry,
            slack,
            title="Slack",
            to=slack.location,
            timeout=slack.timeout,
            rate_limit=slack.entry.rate_limit,
            secrets=(slack.secret,),
        )
        for slack in map(Slack, entries(settings, SlackEntry))
    ]


class _NoClock:
    """The clock for checking the receiver, which never waits."""

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0


@dataclass(frozen=True, slots=True)
class Slack:
    """A channel in Slack."""

    entry: SlackEntry

    @property
    def has_bot(self) -> bool:
        """Whether messages are sent by a bot and not through a webhook."""
        return self.entry.channel is not None

    @property
    def secret(self) -> SecretSource:
        """The source of the token, or of the webhook's URL."""
        return self.entry.token_source() if self.has_bot else self.entry.webhook_source()

    @property
    def location(self) -> str:
        """Where messages are posted, without secrets."""
        return f"channel {self.entry.channel}, by a bot" if self.has_bot else "an incoming webhook"

    @property
    def timeout(self) -> float:
        """Maximum duration of one attempt for a row, in seconds."""
        return self.entry.timeout * (_REQUESTS if self.has_bot else 1)

    def sender(self, context: Context) -> Sender:
        """See Channel."""
        return self._bot(context) if self.has_bot else self._webhook(context)

    def test(self, fleet: str, clock: Clock, rule: str | None) -> TestResult:
        """Post a test message. See Test."""
        no_rule(rule, "a Slack channel")
        content, context = test_message(fleet, self.entry.name), Context.for_test(clock)
        if not self.has_bot:
            self._webhook(context).post(content)
            return TestResult("Slack accepted the test message of the incoming webhook")
        posted = self._bot(context).call("chat.postMessage", {**content, "channel": self.entry.channel})
        return TestResult(f"Slack accepted the test message as {posted.get('ts')} in channel {posted.get('channel')}")

    def check(self) -> Check:
        """Check that the bot's token is valid and can read the channel, or that the webhook's server answers."""
        try:
            return self._check_bot() if self.has_bot else self._check_webhook()
        except DeliveryError as exc:
            return Check(CheckState.FAIL, f"{exc}: {exc.remedy or 'check the settings of this channel'}")

    def _check_bot(self) -> Check:
        from celery_monitor.adapters.channels.slack.api import SlackError  # noqa: PLC0415 - requests is slow to import

        bot, name = self._bot(Context.for_test(_NoClock())), self.entry.name
        bot_identity = bot.call("auth.test", {})
        message = f"Slack accepts the token of the bot {bot_identity.get('user')} in {bot_identity.get('team')}"
        try:
            bot.post("conversations.history", {"channel": self.entry.channel, "limit": 1})
        except SlackError as exc:
            if exc.error != "missing_scope":
                return Check(
                    CheckState.FAIL,
                    f"{message}, but it cannot use channel {self.entry.channel} ({exc.error}): check the ID, and "
                    "invite the bot to the channel",
                )
            return Check(
                CheckState.WARN,
                f"{message}; without the scope channels:history (groups:history) a message whose outcome is unknown is "
                f"posted twice: `celery-monitor notify test {name}` posts one",
            )
        return Check(CheckState.OK, f"{message}, and it can use the channel: `celery-monitor notify test {name}` posts")

    def _check_webhook(self) -> Check:
        from celery_monitor.adapters.http.request import reach  # noqa: PLC0415 - requests is slow to import

        parts, name = urlsplit(self.secret.get() or ""), self.entry.name
        reach(f"{parts.scheme}://{parts.netloc}/", self.entry.timeout, name)
        return Check(CheckState.OK, f"{parts.netloc} answers: `celery-monitor notify test {name}` posts a message")

    def _bot(self, context: Context) -> "SlackBot":
        from celery_monitor.adapters.channels.slack.bot import SlackBot  # noqa: PLC0415 - requests is slow to import

        entry = self.entry
        return SlackBot(
            channel=entry.name,
            api_url=entry.api_url,
            token=self.secret,
            to=entry.channel or "",
            incident=context.incident,
            note=context.note,
            clock=context.clock,
            timeout=entry.timeout,
            external_url=context.external_url,
            replicated=context.replicated,
        )

    def _webhook(self, context: Context) -> "SlackWebhook":
        from celery_monitor.adapters.channels.slack.webhook import SlackWebhook  # noqa: PLC0415 - as above

        return SlackWebhook(
            channel=self.entry.name,
            url=self.secret,
            incident=context.incident,
            clock=context.clock,
            timeout=self.entry.timeout,
            external_url=context.external_url,
        )
