"""What the web server is given to show."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class OtherFleet:
    """A fleet that another monitor counts, in the same database. ``url``: of its page."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Scrape:
    """An answer to a scrape, in portions that can be sent one after the other, to several clients at once."""

    body: Iterable[bytes]
    headers: Sequence[tuple[str, str]]
    length: int
    """Bytes of the body."""


class Metrics(Protocol):
    """The metrics of now. Safe from several threads; waits neither for the broker nor for the store."""

    def choose(self, accept: str, accept_encoding: str) -> Hashable:
        """What ``render`` is to be asked for, by the two headers of a request; equal for equal answers."""

    def render(self, chosen: Hashable) -> Scrape:
        """The metrics of this moment."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What a probe is told: check → what is wrong with it, None when it is well. Without secrets."""

    checks: Mapping[str, str | None]
    notes: Mapping[str, str] = field(default_factory=dict)
    """What a person should look at, though the monitor does its work. Without secrets."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What the monitor works with: which store, of which version. Without secrets."""

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return all(problem is None for problem in self.checks.values())
