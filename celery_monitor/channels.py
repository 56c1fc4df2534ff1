"""The list of channel types. A new one is a package below ``adapters/channels`` and a line here, nothing else.

Packages are imported on demand: senders are slow to import, and most commands send nothing.
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
    """Import the package of a type. Its ``configured(settings)`` returns the channels of this type.

    Its ``ENTRY`` is the model of ``channels`` entries of this type, None if only a section defines such a channel. It
    may have ``problems(settings)`` and ``warnings(settings)``, which return errors and likely mistakes in settings that
    are valid by themselves.
    """
    return import_module(f"celery_monitor.adapters.channels.{channel_type}")
