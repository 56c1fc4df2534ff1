"""The signed-in person and their role."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from starlette.types import Scope

EVERYBODY: Final = "*"
"""The group of everybody who can sign in."""
MAX_NAME: Final = 255
_KEY: Final = "celery_monitor.person"


class Role(StrEnum):
    """The permissions of a person."""

    VIEWER = "viewer"
    """May read."""
    OPERATOR = "operator"
    """May also add and end silences."""


@dataclass(frozen=True, slots=True)
class Person:
    """A signed-in person."""

    name: str
    role: Role
    session: bool = False
    """Whether they are signed in by a session cookie, so that they can sign out here."""


@dataclass(frozen=True, slots=True)
class Roles:
    """The groups of each role."""

    viewers: Collection[str]
    operators: Collection[str]

    def for_groups(self, groups: Iterable[str]) -> Role | None:
        """The role of a member of these groups; None without access."""
        all_of_them = {EVERYBODY, *groups}
        if not all_of_them.isdisjoint(self.operators):
            return Role.OPERATOR
        return None if all_of_them.isdisjoint(self.viewers) else Role.VIEWER


def sign(scope: Scope, person: Person) -> None:
    """Store the person in the request's scope."""
    scope[_KEY] = person


def person_of(scope: Scope) -> Person | None:
    """The person who makes a request; None if no sign-in is required."""
    person = scope.get(_KEY)
    return person if isinstance(person, Person) else None


def may_change(person: Person | None) -> bool:
    """Whether the person may make changes. Without configured sign-in, nobody may."""
    return person is not None and person.role is Role.OPERATOR
