"""Sends outbox rows as one message per incident, which is kept up to date, and replies in its thread.

Slack's API has no idempotency key. So each message carries an ID in its metadata, and the sender records a claim in the
row before it posts the message. A claim that is found after a timeout or a crash means that the message may have been
posted: the sender first searches the channel for it. Without the scope for that, it posts the message again.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import structlog

from celery_monitor.adapters.channels.slack.api import TEMPORARY, UNCHANGEABLE, SlackError, call, refusal, result
from celery_monitor.adapters.channels.slack.render import message, reply
from celery_monitor.adapters.http.faults import origin
from celery_monitor.adapters.http.sender import HttpSender
from celery_monitor.core.headline import line
from celery_monitor.core.model import Incident, MessageKind, OutboxItem
from celery_monitor.errors import DeliveryError, RejectedError, RetryableError, StoreUnavailableError
from celery_monitor.ports import Clock, Sent
from celery_monitor.settings import SecretSource

EVENT_TYPE: Final = "celery_monitor_incident"
_LOOK_BACK: Final = 3_600.0
"""The search for a message starts this many seconds before its row was created, because Slack's clock may differ."""
_PAGE: Final = 200
_MAX_PAGES: Final = 5
_ELSEWHERE: Final = frozenset({"channel_not_found", "is_archived", "not_in_channel"})
"""The channel of an earlier message is not the configured one, and the bot can no longer change messages there."""
_RECEIPT: Final = re.compile(r"([A-Z0-9]+):([0-9]+\.[0-9]+)")
_PLAIN: Final = {"parse": "none", "link_names": False, "unfurl_links": False, "unfurl_media": False}

_log = structlog.get_logger()


class SlackBot(HttpSender):
    """Sender of a channel with a bot."""

    missing: str = "no bot token is configured"
    hidden: str = "[token]"

    def __init__(
        self,
        *,
        channel: str,
        api_url: str,
        token: SecretSource,
        to: str,
        incident: Callable[[str], Incident | None],
        note: Callable[[OutboxItem, str], None],
        clock: Clock,
        timeout: float,
        external_url: str | None = None,
        replicated: bool = False,
    ) -> None:
        """``to``: the ID of the channel in Slack. ``note`` stores a text as the row's ``progress``.

        ``replicated``: as in Context.
        """
        super().__init__(channel=channel, incident=incident, clock=clock, timeout=timeout, external_url=external_url)
        self.receiver = f"Slack ({origin(api_url)})"
        self._api_url = api_url.rstrip("/")
        self._token = token
        self._to = to
        self._note = note
        self._replicated = replicated
        self._claims: dict[int, str] = {}
        """Row → its claim, should the store not have taken it."""

    def rate_limit_key(self, item: OutboxItem) -> str | None:
        """One key, because there is one channel; None without a token."""
        del item
        return None if self._token.get() is None else self._to

    def send(self, item: OutboxItem) -> Sent:
        """Like ``Sender.send``. Sends a few HTTP requests, each with the given ``timeout``."""
        incident, kind = self.incident_of(item), item.kind
        posted = _RECEIPT.fullmatch(item.receipt or "")  # a channel that had another type has other receipts
        if kind is MessageKind.RESOLVED and posted is None:
            return Sent(0)  # no message was sent when it opened
        content = message(incident, kind, self.external_url)
        if posted is None:
            receipt = self._open(item, content)
        else:
            receipt = self._change(item, incident, content, *posted.groups())
        self._claims.pop(item.id, None)
        return Sent(0 if kind is MessageKind.RESOLVED else incident.count, receipt)

    def call(self, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Like ``post``, but raises a DeliveryError instead of a SlackError."""
        try:
            return self.post(method, body)
        except SlackError as exc:
            raise self._refusal(exc, method) from None

    def post(self, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Call a method. Raises SlackError, RetryableError, RejectedError or InterruptedSendError."""
        token = self._token.get()
        if token is None:
            raise RejectedError(self.missing)
        request = partial(
            call,
            url=f"{self._api_url}/{method}",
            token=token,
            form=method.startswith("conversations."),
            body=body,
            timeout=self.timeout,
            channel=self.channel,
        )
        return result(self.run(request, token), self.clock.now())

    def secrets(self) -> Iterable[str]:
        """See HttpSender."""
        token = self._token.get()
        return () if token is None else (token,)

    def _open(self, item: OutboxItem, content: Mapping[str, Any]) -> str:
        """Post the message unless it was posted before, and return the receipt."""
        identity = _message_id(item)
        ts = self._find(item, identity, "conversations.history", {})
        if ts is None:
            ts = self._post_once(item, identity, {**content, **_PLAIN})
        return f"{self._to}:{ts}"

    def _change(self, item: OutboxItem, incident: Incident, content: Mapping[str, Any], channel: str, ts: str) -> str:
        """Update the message, reply in its thread and return the receipt. A deleted message is posted again."""
        body = {**content, "channel": channel, "ts": ts, "parse": "none", "link_names": False}
        try:
            self.post("chat.update", body)
        except SlackError as exc:
            if exc.error not in (UNCHANGEABLE if channel == self._to else UNCHANGEABLE | _ELSEWHERE):
                raise self._refusal(exc, "the update of a message") from None
            if item.kind is MessageKind.RESOLVED:
                return item.receipt or ""
            return self._open(item, content)
        thread = {"ts": ts, "channel": channel}
        if self._find(item, item.event_id, "conversations.replies", thread) is None:
            payload = {"text": reply(incident, item.kind), "thread_ts": ts, **_PLAIN}
            # A reopened incident is new to those who have read that it was resolved.
            self._post_once(
                item, item.event_id, {**payload, "reply_broadcast": item.kind is MessageKind.OPENED}, channel
            )
        return item.receipt or ""

    def _post_once(self, item: OutboxItem, identity: str, content: Mapping[str, Any], to: str | None = None) -> str:
        """Claim a message, post it and return its ``ts``."""
        self._claim(item, identity)
        metadata = {"event_type": EVENT_TYPE, "event_payload": {"id": identity}}
        try:
            posted = self.post("chat.postMessage", {**content, "channel": to or self._to, "metadata": metadata})
        except SlackError as exc:
            raise self._refusal(exc, "a message") from None
        return str(posted.get("ts", ""))

    def _claim(self, item: OutboxItem, identity: str) -> None:
        self._claims[item.id] = identity
        if item.id < 0:
            return  # sent from memory, because the store is unavailable
        try:
            self._note(item, identity)
        except StoreUnavailableError as exc:
            if self._replicated:
                raise RetryableError(f"not sent, because another replica might send it too: {exc}") from exc
            _log.warning("Cannot store that a message is sent; kept in memory", key=item.key, error=str(exc))

    def _find(self, item: OutboxItem, identity: str, method: str, query: Mapping[str, Any]) -> str | None:
        """The ``ts`` of a message that an earlier attempt may have posted; None if it certainly did not."""
        if self._claims.get(item.id, item.progress) != identity:
            return None
        oldest = f"{item.created_at - _LOOK_BACK:.6f}"
        parameters: dict[str, Any] = {
            "channel": self._to, "oldest": oldest, "limit": _PAGE, "include_all_metadata": "true", **query,
        }  # fmt: skip
        try:
            for _ in range(_MAX_PAGES):
                page = self.post(method, parameters)
                if (ts := _with_id(page.get("messages"), identity)) is not None:
                    return ts
                cursor = (page.get("response_metadata") or {}).get("next_cursor")
                if not cursor:
                    break
                parameters["cursor"] = cursor
        except SlackError as exc:
            if exc.error in TEMPORARY:
                # The message may be there, and another attempt can look for it.
                raise self._refusal(exc, "the search for a message that may have been posted") from None
            _log.warning(
                "Cannot look for a message that may have been posted; posting it again",
                channel=self.channel,
                key=item.key,
                error=line(exc.error),
            )
        return None

    def _refusal(self, exc: SlackError, action: str) -> DeliveryError:
        return refusal(exc.error, action, self.channel, answered=self.without_secrets(line(exc.error)))


def _message_id(item: OutboxItem) -> str:
    """The ID of the row's message. It stays the same if the row is updated before it is delivered."""
    parts = f"{item.channel}/{item.key}/{item.id}/{item.created_at!r}"
    return hashlib.blake2b(parts.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _with_id(messages: object, identity: str) -> str | None:
    for posted in messages if isinstance(messages, list) else ():
        metadata = posted.get("metadata") if isinstance(posted, dict) else None
        payload = metadata.get("event_payload") if isinstance(metadata, dict) else None
        if isinstance(payload, dict) and payload.get("id") == identity:
            return str(posted.get("ts", ""))
    return None
