"""Who is signed in, and what that person may do."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from starlette.types import Scope

EVERYBODY: Final = "*"
"""As a group: whoever can sign in."""
MAX_NAME: Final = 255
_KEY: Final = "celery_monitor.person"


class Role(StrEnum):
    """What a person may do."""

    VIEWER = "viewer"
    """Read."""
    OPERATOR = "operator"
    """Also change what can be changed."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who is signed in."""

    name: str
    role: Role
    session: bool = False
    """By a cookie of this site, so that signing out here means something."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Which groups have which role."""

    viewers: Collection[str]
    operators: Collection[str]

    def for_groups(self, groups: Iterable[str]) -> Role | None:
        """The role of somebody in these groups; None for somebody who may see nothing."""
        all_of_them = {EVERYBODY, *groups}
        if not all_of_them.isdisjoint(self.operators):
            return Role.OPERATOR
        return None if all_of_them.isdisjoint(self.viewers) else Role.VIEWER


def sign(scope: Scope, person: Person) -> None:
    """Note who makes a request."""
    scope[_KEY] = person


def person_of(scope: Scope) -> Person | None:
    """Who makes a request; None where nobody has to sign in."""
    person = scope.get(_KEY)
    return person if isinstance(person, Person) else None


def may_change(person: Person | None) -> bool:
    """Whether somebody may change what can be changed here. Nobody may where nobody has to sign in."""
    return person is not None and person.role is Role.OPERATOR
