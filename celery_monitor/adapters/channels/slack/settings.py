"""An entry of ``channels`` of type slack."""

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from celery_monitor.settings.channels import ChannelSettings
from celery_monitor.settings.secret import Secret, SecretFile, SecretSource, checked_by, file_checked_by, split_url
from celery_monitor.settings.section import FieldError, HttpUrl
from celery_monitor.settings.units import duration

_SECRETS: Final = ("webhook_url", "webhook_url_file", "bot_token", "bot_token_file")


def _check_webhook(url: str) -> None:
    """Check the URL. Any host is valid, because GovSlack has its own. Errors do not quote the URL, which is secret."""
    parts = split_url(url)
    if not re.fullmatch(r"https?://[\x21-\x7e]+", url) or not parts.hostname or not parts.path.strip("/"):
        raise ValueError(
            "must be the whole URL of an incoming webhook, like https://hooks.slack.com/services/T…/B…/… (Slack: your "
            "app, Incoming Webhooks)"
        )


def _check_token(token: str) -> None:
    if not re.fullmatch(r"xox[a-z]-[\x21-\x7e]+|xoxe\.xox[a-z]-[\x21-\x7e]+", token):
        raise ValueError("must be a bot token, which begins with xoxb- (Slack: your app, OAuth & Permissions)")


def _channel(value: str) -> str:
    if not re.fullmatch("[CGD][A-Z0-9]{7,}", value):
        raise ValueError(
            "must be the ID of a channel, like C0123456789 (Slack: channel details, at the bottom), not its name: "
            "messages are updated by the ID"
        )
    return value


class SlackEntry(ChannelSettings):
    """A Slack channel: by ``bot_token`` and ``channel``, or by ``webhook_url``."""

    type: Literal["slack"]
    """Messages in a Slack channel."""
    webhook_url: Annotated[Secret, checked_by(_check_webhook)] | None = None
    """The URL of an incoming webhook. It posts a message when an incident opens, and one when it resolves."""
    webhook_url_file: Annotated[SecretFile, file_checked_by(_check_webhook)] | None = None
    """A file that contains the URL, instead of ``webhook_url``. It is reloaded when it changes."""
    bot_token: Annotated[Secret, checked_by(_check_token)] | None = None
    """The token of a bot with the scope ``chat:write``. It posts one message for each incident, keeps it up to date,
    and posts changes in its thread. With ``channels:history`` (``groups:history`` in a private channel) it finds a
    message whose outcome was unknown instead of posting it again.
    """
    bot_token_file: Annotated[SecretFile, file_checked_by(_check_token)] | None = None
    """A file that contains the token, instead of ``bot_token``. It is reloaded when it changes."""
    channel: Annotated[str, AfterValidator(_channel)] | None = Field(default=None, validate_default=True)
    """With ``bot_token``: the ID of the channel, like ``C0123456789``. Invite the bot to it."""
    api_url: HttpUrl = "https://slack.com/api"
    """The base URL of Slack's Web API, for GovSlack, a proxy or a test server."""
    timeout: Annotated[float, duration("100ms", "5m")] = 10.0
    """The timeout of a request. After a timeout, the request is retried later."""
    rate_limit: int = Field(default=30, ge=1)
    """Maximum number of incidents, updates and resolutions per minute. Slack accepts about one message per second and
    channel."""

    @field_validator("channel")
    @classmethod
    def _complete(cls, value: str | None, info: ValidationInfo) -> str | None:
        names = [name for name in _SECRETS if info.data.get(name) is not None]
        if not all(name in info.data for name in _SECRETS):
            return value  # One of the fields has its own error.
        if not names:
            raise FieldError("webhook_url", "is required, here or by webhook_url_file; or set bot_token and channel")
        if len(names) > 1:
            raise FieldError(names[-1], f"set either {' or '.join(names)}, not both")
        if names[0].startswith("webhook") and value is not None:
            raise ValueError("an incoming webhook has a channel of its own; remove channel, or use bot_token")
        if names[0].startswith("bot") and value is None:
            raise ValueError("is required with bot_token: the ID of a channel, like C0123456789")
        return value

    def webhook_source(self) -> SecretSource:
        """The source of the webhook's URL; None with a bot."""
        return SecretSource(self.webhook_url, self.webhook_url_file)

    def token_source(self) -> SecretSource:
        """The source of the bot's token; None with a webhook."""
        return SecretSource(self.bot_token, self.bot_token_file)
