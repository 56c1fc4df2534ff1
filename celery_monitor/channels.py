"""The list of channel types. A new one is a package below ``adapters/channels`` and a line here, nothing else.

Packages are imported when they are asked for: what sends is slow to import, and most commands send nothing.
"""

from importlib import import_module
from types import ModuleType
from typing import Final

TYPES: Final = (
    "pagerduty",
    "email",
    "webhook",
    "slack",
    "alertmanager",
    "apprise",
)
"""Names of packages of ``celery_monitor.adapters.channels``, in the order in which channels are shown."""


def package(channel_type: str) -> ModuleType:
    """The package of a type: ``configured(settings)`` gives the channels of this type.

    ``ENTRY`` is the model of entries of ``channels`` of this type, None where only a section defines one. It may have
    ``problems(settings)`` and ``warnings(settings)``: what is wrong, or hardly meant, in settings that are valid by
    themselves.
    """
    return import_module(f"celery_monitor.adapters.channels.{channel_type}")
