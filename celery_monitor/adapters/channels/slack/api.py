"""One request to Slack's Web API or an incoming webhook, and the meaning of the answer.

Sources: https://docs.slack.dev/apis/web-api/ and https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from requests import Session

from celery_monitor.adapters.http.exchange import Answer, Exchange, retry_after
from celery_monitor.adapters.http.request import Request, ask, post
from celery_monitor.errors import DeliveryError, RejectedError, RetryableError

MAX_ANSWER: Final = 1 << 20
"""Maximum size of an answer, in bytes: it repeats the message, and a page of the history contains many."""
OK: Final = 200
THROTTLED: Final = 429
_JSON: Final = "application/json; charset=utf-8"

TEMPORARY: Final = frozenset({
    "accesslimited", "fatal_error", "internal_error", "message_limit_exceeded", "ratelimited", "rate_limited",
    "request_timeout", "rollup_error", "service_unavailable", "team_added_to_org", "update_failed",
})  # fmt: skip
"""Temporary errors."""
_ABOUT_THE_MESSAGE: Final = frozenset({
    "attachment_payload_limit_exceeded", "invalid_attachments", "invalid_blocks", "invalid_blocks_format",
    "invalid_metadata_format", "invalid_metadata_schema", "invalid_payload", "markdown_text_conflict",
    "metadata_must_be_sent_from_app", "metadata_too_large", "msg_blocks_too_long", "msg_too_long", "no_text",
    "too_many_attachments",
})  # fmt: skip
"""Errors that this message causes at every attempt. All others concern the token, the channel or the app, and somebody
has to repair them."""
UNCHANGEABLE: Final = frozenset({"cant_update_message", "edit_window_closed", "message_not_found", "thread_not_found"})
"""The message to be changed no longer exists or cannot be changed."""


class SlackError(Exception):
    """Slack rejected a call and gave a reason."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


def call(
    exchange: Exchange, *, url: str, token: str, form: bool, body: Mapping[str, Any], timeout: float, channel: str
) -> Answer:
    """Call a method of the Web API at ``url``. ``form``: as a form, not as JSON. Raises NoAnswerError."""
    headers = {"authorization": f"Bearer {token}"}
    request: Request = partial(_post_form, url=url, body=body, headers=headers)
    if not form:
        request = post(url, json.dumps(body).encode(), {**headers, "content-type": _JSON})
    return ask(exchange, request, url=url, timeout=timeout, channel=channel, silent=(), limit=MAX_ANSWER)


def result(answer: Answer, now: float) -> dict[str, Any]:
    """The answer of a method.

    Raises:
        SlackError: Slack rejected the call.
        RetryableError: The method did not answer; try again.
    """
    if answer.status == THROTTLED or answer.status >= 500:  # noqa: PLR2004 - RFC 9110, 15.6
        raise RetryableError(f"Slack responded with {answer.status}", retry_after(answer.retry_after, now))
    try:
        body = json.loads(answer.text)
    except ValueError:
        body = None
    if answer.status != OK or not isinstance(body, dict) or "ok" not in body:
        problem = f"the server responded with {answer.status} and not as Slack's API does"
        raise RetryableError(problem, remedy="check api_url, and the proxy in between", needs_repair=True)
    if body["ok"] is not True:
        raise SlackError(str(body.get("error", "no error given")))
    return body


def refusal(error: str, action: str, channel: str, *, answered: str = "") -> DeliveryError:
    """The error for the outbox. ``action`` is what was attempted; ``channel`` is the name in the settings."""
    message = f"Slack refused {action}: {answered or error}"
    if error in TEMPORARY:
        return RetryableError(message)
    if error in _ABOUT_THE_MESSAGE:
        return RejectedError(message)
    remedy = _REMEDIES.get(error, f"check the settings of channel {channel} and the app in Slack")
    return RetryableError(f"{message}: {remedy}", remedy=remedy, needs_repair=True)


_TOKEN: Final = "set a valid bot_token (Slack: your app, OAuth & Permissions; a token file is reloaded when it changes)"  # noqa: S105
_WEBHOOK: Final = "set webhook_url to a webhook that exists (Slack: your app, Incoming Webhooks)"
_REMEDIES: Final = {
    "account_inactive": _TOKEN,
    "channel_is_archived": "unarchive the channel, or make a webhook for another one",
    "channel_not_found": "check the ID in channel, and invite the bot to it if it is private",
    "invalid_auth": _TOKEN,
    "invalid_token": _WEBHOOK,
    "is_archived": "unarchive the channel, or set channel to another one",
    "missing_scope": "give the app the scope chat:write, and install it again",
    "no_service": _WEBHOOK,
    "no_team": _WEBHOOK,
    "not_authed": _TOKEN,
    "not_in_channel": "invite the bot to the channel: /invite @bot",
    "token_expired": _TOKEN,
    "token_revoked": _TOKEN,
}


def _post_form(
    session: Session, timeout: tuple[float, float], *, url: str, body: Mapping[str, Any], headers: Mapping[str, str]
) -> None:
    session.post(
        url,
        data=dict(body),
        headers={**headers, "user-agent": "celery-monitor"},
        timeout=timeout,
        allow_redirects=False,
        stream=True,
    )
