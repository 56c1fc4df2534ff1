"""Where notifications go: one package for each type of channel, unaware of the others.

Nothing outside of a channel's package names it, but for the list in ``celery_monitor/channels.py``. The rest of the
program gets each configured channel as a `Channel`. To add a type, write a package whose ``configured(settings)``
gives its channels, and whatever they need; it must be quick to import, so what sends is imported when it is used.
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
from celery_monitor.errors import ConfigError, Problem
from celery_monitor.ports import ChannelInfo, Clock, Sender
from celery_monitor.settings import ChannelSettings, SecretSource, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a sender may need of the running monitor."""

    clock: Clock
    incident: Callable[[str], Incident | None]
    """An incident by its key, as committed. May raise StoreUnavailableError."""
    summary: Callable[[dt.date, float], Summary]
    """A date's summary as of a time. May raise StoreUnavailableError."""
    note: Callable[[OutboxItem, str], None]
    """Keep a text of the sender with the row, to be found in its ``progress``. May raise StoreUnavailableError.

    It raises LeaseLostError once another process sends in the place of this one: nothing may be sent after that. A
    sender whose receiver does not recognise a repetition keeps with the row what it is about to send, before it does.
    """
    external_url: str | None
    """The base of links to the page; None for no links."""
    takes_turns: bool = False
    """Another process may take over at any time: what could not be kept with the row must not be sent."""

    @classmethod
    def for_test(cls, clock: Clock) -> "Context":
        """For a message that tells of no incident."""
        return cls(clock=clock, incident=_nothing, summary=_no_summary, note=_nowhere, external_url=None)


@dataclass(frozen=True, slots=True)
class TestResult:
    """What came of a test message, or of a report that is sent again."""

    text: str
    """What the receiver answered, for a terminal."""
    problem: str | None = None
    """Why it did not reach everybody; None when it did."""


class CheckState(enum.Enum):
    """How a channel stands, for `celery-monitor doctor`."""

    OK = "ok"
    OFF = "off"
    """Not configured."""
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What a look at the receiver found. ``text``: and, where it is not well, what to do."""

    state: CheckState
    text: str


class Test(Protocol):
    """Sends one marked test message."""

    def __call__(self, fleet: str, clock: Clock, rule: str | None) -> TestResult:
        """Send it now. ``rule``: by the receiver that this rule of alerts.rules has of its own.

        Raises ConfigError when there is nobody to send to, and DeliveryError when nobody got it.
        """


@dataclass(frozen=True, slots=True)
class DailyReport:
    """The daily report of the channel that carries it: when it is due, and what it looks like."""

    schedule: str
    """A cron expression, in ``timezone``."""
    timezone: str
    html: Callable[[Summary, str | None], str]
    """A whole document; the base of links to the page, None for no links."""
    text: Callable[[Summary, str | None], str]
    part: Callable[[Summary, str, int], str]
    """A part of an HTML document with its own styles; links begin with the given way to the root.

    The number is that of the page, from 1, of a day with long lists.
    """
    send_again: Callable[[Summary, str | None], TestResult]
    """Send a report that a person asks for. Raises DeliveryError when nobody got it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A configured channel: all that the rest of the program knows of it."""

    name: str
    title: str
    """As the page shows it."""
    routes: frozenset[str]
    """What it can send: "" is everything, a rule's name the incidents of that rule. Empty: it is switched off."""
    summary: str
    """Whether it is on, and whom it tells, in words."""
    off: str
    """What is missing when it is off, and what that means."""
    needs: Problem
    """What is to be set when it is off."""
    timeout: float
    """Seconds that one attempt takes at most."""
    sender: Callable[[Context], Sender]
    test: Test
    check: Callable[[], Check]
    secrets: Sequence[SecretSource] = ()
    rate_limit: int | None = None
    """Requests a minute to one account; None for no limit."""
    idempotent: bool = True
    """The receiver recognises what it has had, so a restart may send it again."""
    repeat: float | None = None
    """Seconds between two repetitions of what is open; its sender is a RepeatingSender. None: nothing is repeated."""
    report: DailyReport | None = None
    """It carries the daily report and no incidents; None: it carries incidents."""

    @property
    def configured(self) -> bool:
        """Whether there is somebody to tell."""
        return bool(self.routes)

    @property
    def info(self) -> ChannelInfo:
        """What is shown of it."""
        return ChannelInfo(
            name=self.name,
            title=self.title,
            configured=self.configured,
            off=self.off,
            incidents=self.report is None,
        )

    def require(self) -> None:
        """Raise ConfigError where it is switched off: a command that is to send by it can do nothing then."""
        if not self.configured:
            raise ConfigError([self.needs])

    def sends(self, route: str) -> bool:
        """Whether it can send the incidents of a route."""
        return "" in self.routes or route in self.routes


Entry = TypeVar("Entry", bound=ChannelSettings)


class Receiver(Protocol):
    """Whom an entry of ``channels`` tells."""

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
    """The channel of an entry of ``channels``, which is always on: its settings require a receiver.

    ``to``: whom it tells, without a secret. Everything else as in Channel.
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
    """Raise ConfigError for ``--rule`` where no rule can have a receiver of its own. ``receiver``: what it would be."""
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
    """The incident's page; None without a base, and for a key that no link can hold."""
    return f"{base.rstrip('/')}/incidents/{quote(key, safe='')}" if base and text(key) == key else None


def _nothing(_key: str) -> None:
    return None


def _no_summary(date: dt.date, _at: float) -> Summary:
    raise LookupError(date)


def _nowhere(_item: OutboxItem, _text: str) -> None:
    pass


def configured(settings: Settings) -> list[Channel]:
    """The channels of the settings, those that are switched off included."""
    return [channel for name in TYPES for channel in package(name).configured(settings)]


def of_incidents(channels: Iterable[Channel]) -> list[Channel]:
    """Those that carry incidents. The first is the one of rules that name none."""
    return [channel for channel in channels if channel.report is None]


def of_report(channels: Iterable[Channel]) -> tuple[Channel, DailyReport]:
    """The one that carries the daily report."""
    return next((channel, channel.report) for channel in channels if channel.report is not None)
