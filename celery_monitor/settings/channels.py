"""The ``channels`` setting: the receivers of incidents, in addition to sections that define a channel themselves.

Each channel type's package provides the model of its entries; this module contains what they have in common.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from celery_monitor.channels import TYPES, package
from celery_monitor.errors import Problem
from celery_monitor.settings.section import Section

if TYPE_CHECKING:
    from celery_monitor.settings.model import Settings

_NAME: Final = "^[a-z0-9][a-z0-9_-]{0,62}$"


def _name(value: Any) -> Any:  # noqa: ANN401 - any input
    """Check the name, with a readable message."""
    if isinstance(value, str) and not re.fullmatch(_NAME, value):
        raise ValueError("must be 1 to 63 lower-case letters, digits, - or _, such as shop-slack")
    return value


ChannelName = Annotated[str, Field(pattern=_NAME), BeforeValidator(_name)]
DEFAULT: Final = TYPES[0]
"""The channel of rules that name none, which is configured by the section of this name."""


class ChannelSettings(Section):
    """One entry of ``channels``, of any type."""

    name: ChannelName
    """The name of the channel, which identifies it in rules, commands, metrics and on the page: lower-case letters,
    digits, ``-`` and ``_``."""


class _ByType:
    """The union of the models of all types, discriminated by ``type``. They are imported when the schema is built."""

    def __get_pydantic_core_schema__(self, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        choices = {name: handler.generate_schema(package(name).ENTRY) for name in entry_types()}
        return core_schema.tagged_union_schema(choices, "type")


def entry_types() -> list[str]:
    """The types that an entry can have."""
    return [name for name in TYPES if package(name).ENTRY is not None]


def _sections() -> list[str]:
    """Types that have a section in the settings, which defines a channel of the same name."""
    from celery_monitor.settings.model import Settings  # noqa: PLC0415 - it uses this module's types

    return [name for name in TYPES if name in Settings.model_fields]


def _unique(value: tuple[ChannelSettings, ...]) -> tuple[ChannelSettings, ...]:
    names = Counter(channel.name for channel in value)
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise ValueError(f"every channel needs its own name; this one is used more than once: {', '.join(twice)}")
    if reserved := [name for name in names if name in _sections()]:
        raise ValueError(
            f"{', '.join(reserved)} is the channel that the section of that name configures; choose another name"
        )
    return value


Channels = Annotated[tuple[Annotated[ChannelSettings, _ByType()], ...], AfterValidator(_unique)]


def of_channels(kind: Literal["problems", "warnings"], settings: "Settings") -> Iterator[Problem]:
    """The problems or warnings that the packages of all types find in otherwise valid settings."""
    for name in TYPES:
        find = getattr(package(name), kind, None)
        if find is not None:
            yield from find(settings)


def unknown_channels(settings: "Settings") -> Iterator[Problem]:
    """A problem for each name in a ``to`` that is not a channel for incidents."""
    known = [DEFAULT, *(channel.name for channel in settings.channels)]
    alerts = settings.alerts
    yield from _unknown("alerts.to", alerts.to, known)
    for number, rule in enumerate(alerts.rules):
        yield from _unknown(f"alerts.rules[{number}].to", rule.to, known, f"rule {rule.name}: ")
    for number, schedule in enumerate(settings.schedules):
        yield from _unknown(f"schedules[{number}].to", schedule.to, known, f"schedule {schedule.title}: ")


def _unknown(path: str, names: Sequence[str], known: list[str], where: str = "") -> Iterator[Problem]:
    """Report the place and not the name: like any value, an unknown name may be a secret in the wrong place."""
    for number, name in enumerate(names):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            kind = (
                "carries the daily report and no incidents" if name in _sections() else "is not the name of a channel"
            )
            yield Problem(f"{path}[{number}]", f"{where}{kind}; {hint}")
