"""Compares the workers' broker settings with the monitor's ``broker.*``."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery_monitor.adapters.broker.configuration import settings_of
from celery_monitor.cli.doctor.finding import Finding, State, name_list, ok
from celery_monitor.settings import BrokerSettings

_CENSORED: Final = "********"
"""Celery's replacement for values that may be secrets: those of all settings with KEY in the name."""
_MAX_LENGTH: Final = 60


@dataclass(frozen=True, slots=True)
class _Setting:
    """A Celery setting."""

    default: Any
    state: State
    """The severity of a difference."""
    remedy: str
    option: bool = False
    """Whether it is one of ``broker_transport_options``."""


_LEARNED: Final = (
    "the monitor learns this from the workers; set it in broker.transport_options too, in case none responds"
)
_SAME_FANOUT: Final = "events or requests may not arrive: set it in broker.transport_options too"
_SETTINGS: Final = {
    "event_exchange": _Setting("celeryev", State.FAIL, "set broker.exchange to the workers' event_exchange"),
    "control_exchange": _Setting("celery", State.WARN, "set broker.control_exchange to the workers' control_exchange"),
    "event_serializer": _Setting(
        "json", State.FAIL, "such events cannot be counted: set event_serializer = 'json' in the workers"
    ),
    "accept_content": _Setting(
        ["json"], State.WARN, "a worker that does not accept json logs an error for each request of the monitor"
    ),
    "sep": _Setting("\x06\x16", State.NOTE, _LEARNED, option=True),
    "priority_steps": _Setting([0, 3, 6, 9], State.NOTE, _LEARNED, option=True),
    "queue_order_strategy": _Setting("round_robin", State.NOTE, "this does not affect the monitor", option=True),
    "global_keyprefix": _Setting("", State.WARN, _SAME_FANOUT, option=True),
    "fanout_prefix": _Setting(True, State.WARN, _SAME_FANOUT, option=True),
    "fanout_patterns": _Setting(True, State.WARN, _SAME_FANOUT, option=True),
}


def agreement(confs: Mapping[str, Any], settings: BrokerSettings, *, redis: bool) -> Iterator[Finding]:
    """A finding for each setting that differs, or one that all match. ``confs``: hostname → ``inspect conf``."""
    ours = {"event_exchange": settings.exchange, "control_exchange": settings.control_exchange}
    theirs = {host: settings_of(conf) for host, conf in sorted(confs.items())}
    agreed = True
    for name, setting in _SETTINGS.items():
        if setting.option and not redis:
            continue
        mine = (
            settings.transport_options.get(name, setting.default) if setting.option else ours.get(name, setting.default)
        )
        for value, hosts in _different(name, setting, mine, theirs).items():
            agreed = False
            here = "" if name in _JUDGED else f", but {_shown(mine)} here"
            yield Finding(setting.state, "options", f"{name} is {value} on {name_list(hosts)}{here}: {setting.remedy}")
    if agreed:
        yield ok("options", "the workers' broker settings match the monitor's")


def _different(
    name: str, setting: _Setting, mine: object, theirs: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Displayed value → hostnames that use it."""
    values_by_setting: dict[str, list[str]] = {}
    for host, values in theirs.items():
        value = values.get(name, setting.default)
        same = _JUDGED[name](value) if name in _JUDGED else _plain(value) in (_plain(mine), _CENSORED)
        if not same:
            values_by_setting.setdefault(_shown(value), []).append(host)
    return values_by_setting


def _plain(value: object) -> object:
    """The value as JSON transmits it: a tuple becomes a list."""
    return list(value) if isinstance(value, list | tuple) else value


def _accepts_json(value: object) -> bool:
    return isinstance(value, list) and any(content_type in {"json", "application/json"} for content_type in value)


def _shown(value: object) -> str:
    return repr(value)[:_MAX_LENGTH]


_JUDGED: Final[dict[str, Callable[[object], bool]]] = {
    "accept_content": _accepts_json,
    "event_serializer": lambda value: value in ("json", "msgpack"),
}
"""Settings without a counterpart in the monitor: whether it can work with a value."""
