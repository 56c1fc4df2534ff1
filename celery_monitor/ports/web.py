"""What the web server gets from the daemon."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class OtherFleet:
    """A fleet that another monitor counts in the same database. ``url``: its web page."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Scrape:
    """The response to a scrape, in parts that can be sent to several clients concurrently."""

    body: Iterable[bytes]
    headers: Sequence[tuple[str, str]]
    length: int
    """Total bytes of the body."""


class Metrics(Protocol):
    """The current metrics. Safe from several threads; never waits for the broker or the store."""

    def choose(self, accept: str, accept_encoding: str) -> Hashable:
        """The argument for ``render``, by two headers of the request. Equal values mean equal responses."""

    def render(self, chosen: Hashable) -> Scrape:
        """Render the current metrics."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The answer to a probe. ``checks``: name → what is wrong, or None. Contains no secrets."""

    checks: Mapping[str, str | None]
    notes: Mapping[str, str] = field(default_factory=dict)
    """Problems that somebody should look at although the monitor works. Contains no secrets."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What the monitor uses, such as the store and its version. Contains no secrets."""

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return all(problem is None for problem in self.checks.values())
