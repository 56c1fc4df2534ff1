"""Notification channels: one package for each type of channel, independent of the others.

Only the list in ``celery_monitor/channels.py`` refers to a channel's package. The rest of the program gets each
configured channel as a `Channel`. To add a type, write a package whose ``configured(settings)`` returns its channels.
The package must be quick to import, so import the code that sends only when it is used.
"""

import datetime as dt
import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import quote

from celery_monitor.channels import TYPES, package
from celery_monitor.core.headline import text
from celery_monitor.core.model import Incident, OutboxItem
from celery_monitor.core.summary import Summary
from celery_monitor.core.text import path_part
from celery_monitor.errors import ConfigError, Problem
from celery_monitor.ports import ChannelInfo, Clock, Sender
from celery_monitor.settings import ChannelSettings, SecretSource, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the running monitor provides to a sender."""

    clock: Clock
    incident: Callable[[str], Incident | None]
    """Returns the committed state of an incident by its key. May raise StoreUnavailableError."""
    summary: Callable[[dt.date, float], Summary]
    """Returns the summary of a date as of a given time. May raise StoreUnavailableError."""
    note: Callable[[OutboxItem, str], None]
    """Stores a text of the sender in the row's ``progress``. May raise StoreUnavailableError.

    Raises LeaseLostError once another process has taken over sending: nothing may be sent after that. If the receiver
    does not recognise duplicates, the sender records what it is about to send before it sends it.
    """
    external_url: str | None
    """The base URL of links to the page; None for no links."""
    replicated: bool = False
    """Another process may take over at any time: a sender must not send what it could not record in the row."""

    @classmethod
    def for_test(cls, clock: Clock) -> "Context":
        """The context of a test message, which is about no incident."""
        return cls(clock=clock, incident=_nothing, summary=_no_summary, note=_nowhere, external_url=None)


@dataclass(frozen=True, slots=True)
class TestResult:
    """The result of a test message, or of sending a report again."""

    text: str
    """The receiver's answer, for a terminal."""
    problem: str | None = None
    """Why the message did not reach every recipient; None if it did."""


class CheckState(enum.Enum):
    """The state of a channel, for `celery-monitor doctor`."""

    OK = "ok"
    OFF = "off"
    """Not configured."""
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """The result of checking the receiver. ``text`` also says what to do about a problem."""

    state: CheckState
    text: str


class Test(Protocol):
    """Sends one marked test message."""

    def __call__(self, fleet: str, clock: Clock, rule: str | None) -> TestResult:
        """Send it now. ``rule``: to the receiver that is configured for this rule of ``alerts.rules``.

        Raises ConfigError if there is no receiver, and DeliveryError if no receiver got the message.
        """


@dataclass(frozen=True, slots=True)
class DailyReport:
    """The daily report of the channel that sends it: its schedule and its rendering."""

    schedule: str
    """A cron expression, in ``timezone``."""
    timezone: str
    html: Callable[[Summary, str | None], str]
    """Renders a whole HTML document. The string is the base URL of links to the page, None for no links."""
    text: Callable[[Summary, str | None], str]
    part: Callable[[Summary, str, int], str]
    """Renders a part of an HTML document, with its own styles. Links begin with the given path to the root.

    The number is the page number, from 1, for a day with long lists.
    """
    resend: Callable[[Summary, str | None], TestResult]
    """Sends a report on request. Raises DeliveryError if no recipient got it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A configured channel, as the rest of the program sees it."""

    name: str
    title: str
    """The title on the page."""
    routes: frozenset[str]
    """The routes that it can send: "" for all incidents, a rule's name for those of that rule. Empty if it is off."""
    summary: str
    """A description of whether it is on, and of its recipients."""
    off: str
    """If it is off: what is missing, and the consequence."""
    needs: Problem
    """If it is off: the setting that enables it."""
    timeout: float
    """Maximum duration of one attempt, in seconds."""
    sender: Callable[[Context], Sender]
    test: Test
    check: Callable[[], Check]
    secrets: Sequence[SecretSource] = ()
    rate_limit: int | None = None
    """Maximum number of requests per minute to one account; None for no limit."""
    idempotent: bool = True
    """The receiver recognises duplicates, so a message may be sent again after a restart."""
    repeat: float | None = None
    """Seconds between two repetitions of open incidents; the sender is a RepeatingSender. None: nothing is repeated."""
    report: DailyReport | None = None
    """Set if the channel sends the daily report and no incidents; None if it sends incidents."""

    @property
    def configured(self) -> bool:
        """Whether the channel has a receiver."""
        return bool(self.routes)

    @property
    def info(self) -> ChannelInfo:
        """What the page and the commands show of the channel."""
        return ChannelInfo(
            name=self.name,
            title=self.title,
            configured=self.configured,
            off=self.off,
            incidents=self.report is None,
        )

    def require(self) -> None:
        """Raise ConfigError if the channel is off, for a command that has to send through it."""
        if not self.configured:
            raise ConfigError([self.needs])

    def sends(self, route: str) -> bool:
        """Whether the channel can send the incidents of a route."""
        return "" in self.routes or route in self.routes


Entry = TypeVar("Entry", bound=ChannelSettings)


class Receiver(Protocol):
    """The receiver of an entry of ``channels``."""

    def sender(self, context: Context) -> Sender:
        """See Channel."""

    def test(self, fleet: str, clock: Clock, rule: str | None) -> TestResult:
        """See Test."""

    def check(self) -> Check:
        """See Channel."""


def entries(settings: Settings, kind: type[Entry]) -> list[Entry]:
    """The entries of ``channels`` of one type."""
    return [entry for entry in settings.channels if isinstance(entry, kind)]


def of_entry(
    entry: ChannelSettings,
    receiver: Receiver,
    *,
    title: str,
    to: str,
    timeout: float,
    rate_limit: int,
    secrets: Sequence[SecretSource],
    repeat: float | None = None,
    idempotent: bool = True,
) -> Channel:
    """The channel of an entry of ``channels``. It is always on, because its settings require a receiver.

    ``to``: the recipients, without secrets. All other arguments are as in Channel.
    """
    return Channel(
        name=entry.name,
        title=f"{title}: {entry.name}",
        routes=frozenset({""}),
        summary=f"on, to {to}",
        off="no receiver: nothing is sent",
        needs=Problem("channels", f"{entry.name} needs a receiver"),
        timeout=timeout,
        rate_limit=rate_limit,
        sender=receiver.sender,
        test=receiver.test,
        check=receiver.check,
        secrets=secrets,
        repeat=repeat,
        idempotent=idempotent,
    )


def no_rule(rule: str | None, receiver: str) -> None:
    """Raise ConfigError for ``--rule``, because rules cannot have their own ``receiver`` (the word for the error)."""
    if rule is not None:
        raise ConfigError(
            [
                Problem(
                    "--rule",
                    f"a rule cannot have {receiver} of its own: omit --rule, and list channels in the rule's to",
                )
            ]
        )


def page_of(base: str | None, key: str) -> str | None:
    """The URL of the incident's page; None without a base URL, or if the key cannot be part of a link."""
    return f"{base.rstrip('/')}/incidents/{quote(path_part(key), safe='')}" if base and text(key) == key else None


def _nothing(_key: str) -> None:
    return None


def _no_summary(date: dt.date, _at: float) -> Summary:
    raise LookupError(date)


def _nowhere(_item: OutboxItem, _text: str) -> None:
    pass


def configured(settings: Settings) -> list[Channel]:
    """All channels of the settings, including those that are off."""
    return [channel for name in TYPES for channel in package(name).configured(settings)]


def of_incidents(channels: Iterable[Channel]) -> list[Channel]:
    """The channels that send incidents. The first is used by rules that name no channel."""
    return [channel for channel in channels if channel.report is None]


def of_report(channels: Iterable[Channel]) -> tuple[Channel, DailyReport]:
    """The channel that sends the daily report."""
    return next((channel, channel.report) for channel in channels if channel.report is not None)
