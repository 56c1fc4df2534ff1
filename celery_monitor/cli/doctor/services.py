"""Checks of the store, the receivers and the port."""

import errno
import math
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from celery_monitor.adapters.channels import Channel, CheckState
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.store import open_store
from celery_monitor.adapters.store.dialects.sqlite_refusal import not_writable
from celery_monitor.adapters.web.listen import listen
from celery_monitor.cli.doctor.finding import Finding, fail, off, ok, warn
from celery_monitor.cli.healthcheck import ask
from celery_monitor.core import usage
from celery_monitor.core.model import CounterName
from celery_monitor.errors import StoreMissingError, StoreUnavailableError, StoreUnusableError
from celery_monitor.settings import Settings, WebSettings
from celery_monitor.settings.units import DAY

_MIN_FREE_SPACE: Final = 256 << 20
_NOT_WRITTEN: Final = 120.0
"""Seconds without a write after which a store is probably not that of the running monitor, which writes often."""
_MIB: Final = 1 << 20
_NEARLY: Final = 0.9
_OTHER_STORE: Final = (
    "but a monitor is running on web.port: it uses another store or cannot write this one; run doctor with its "
    "configuration, or with --store and --port"
)


def store(settings: Settings, *, in_use: bool = False) -> Finding:
    """Check the store. It is opened only for reading; write permissions are checked in the file system.

    ``in_use``: a monitor runs on the configured port, so its store should be this one.
    """
    path = settings.store.file
    return _on_a_server(settings, in_use=in_use) if path is None else _in_a_file(settings, path, in_use=in_use)


def _in_a_file(settings: Settings, path: Path, *, in_use: bool) -> Finding:
    if (problem := not_writable(path)) is not None:
        return fail("store", problem)
    free = shutil.disk_usage(path.parent).free
    if free < _MIN_FREE_SPACE:
        return warn("store", f"{path}: only {free // _MIB} MiB are free")
    if path.exists():
        return _opened(settings, path, in_use=in_use)
    if in_use:
        return warn("store", f"{path} does not exist, {_OTHER_STORE}")
    return ok("store", f"{path} does not exist yet: the monitor creates it; the directory is writable")


def _opened(settings: Settings, path: Path, *, in_use: bool) -> Finding:
    try:
        state = _state(settings)
    except (StoreUnusableError, StoreUnavailableError) as exc:
        return fail("store", str(exc))
    if (warning := _store_warning(str(path), state, in_use=in_use)) is not None:
        return warning
    size, limit = path.stat().st_size, settings.store.max_bytes
    if size > limit * _NEARLY:
        return warn(
            "store",
            f"{path}: {size / _MIB:,.1f} MiB of the {limit / _MIB:,.0f} MiB of store.max_bytes: samples "
            "of failures are dropped before the limit is reached; raise it, or shorten store.retention",
        )
    return ok("store", f"{path}: {size / _MIB:,.1f} MiB, writable, {state.ago}")


def _on_a_server(settings: Settings, *, in_use: bool) -> Finding:
    try:
        state = _state(settings)
    except StoreMissingError as exc:
        if in_use:
            return warn("store", f"{exc.about} has no tables of a monitor, {_OTHER_STORE}")
        return ok("store", f"{exc.about} answers; it has no tables of a monitor yet: the monitor creates them")
    except (StoreUnusableError, StoreUnavailableError) as exc:
        return fail("store", str(exc))
    return _store_warning(state.about, state, in_use=in_use) or ok("store", f"{state.about} answers, {state.ago}")


@dataclass(frozen=True, slots=True)
class _StoreState:
    """The state of a store that has its tables."""

    about: str
    age: float | None
    """Seconds since a monitor last wrote to it; None if never."""
    rolled_back: bool

    @property
    def ago(self) -> str:
        return "never written" if self.age is None else f"last written {self.age:,.0f} s ago"


def _state(settings: Settings) -> _StoreState:
    with closing(_Attached(settings)) as attached:
        written = attached.last_written()
        age = None if written is None else max(0.0, SystemClock().now() - written)
        return _StoreState(attached.about, age, attached.rolled_back())


def _store_warning(subject: str, state: _StoreState, *, in_use: bool) -> Finding | None:
    if in_use and (state.age is None or state.age > _NOT_WRITTEN):
        return warn("store", f"{subject} was {state.ago}, {_OTHER_STORE}")
    if state.rolled_back:
        return warn(
            "store",
            f"{subject} was older than the last commit at a start within the last 24 hours: counts and failures are "
            "missing, and the startup log says how many; check the disk, and see docs/runbook.md",
        )
    return None


class _Attached:
    """A store that is opened while its daemon may be running."""

    def __init__(self, settings: Settings) -> None:
        section = settings.store
        self._store = open_store(
            section.url_source(),
            password=section.password_source(),
            schema=settings.schema_of_store,
            directory=section.directory,
            retention=section.retention,
            fingerprint_window=0,
        )
        self._store.attach()
        self.about = self._store.about

    def last_written(self) -> float | None:
        """Unix time at which a daemon was last known to run."""
        return self._store.reader.counters(SystemClock().now()).get(CounterName.ALIVE_AT)

    def rolled_back(self) -> bool:
        """Whether a start in the last day found the store older than its last commit."""
        now, name = SystemClock().now(), CounterName.STORE_ROLLED_BACK
        counters = self._store.reader.counters
        return counters(now).get(name, 0.0) > counters(now - DAY).get(name, 0.0)

    def exceeded(self, seconds: float) -> dict[str, int]:
        """How often each memory limit was exceeded in that time, with a resolution of a quarter of an hour."""
        counters = self._store.reader.counters
        before = usage.restored(counters(SystemClock().now() - seconds))
        return +(usage.restored(counters(math.inf)) - before)

    def close(self) -> None:
        self._store.stop()


def limits(settings: Settings) -> Finding:
    """Check whether a memory limit of the daemon was exceeded in the last day."""
    try:
        with closing(_Attached(settings)) as attached:
            cut = attached.exceeded(DAY)
    except (StoreUnusableError, StoreUnavailableError):
        return ok("limits", "not checked: there is no store")
    if not cut:
        return ok("limits", "no memory limit was exceeded in the last 24 h")
    exceeded = ", ".join(
        f"{name} {number:,} times ({usage.SETTINGS[name] or 'not configurable'})" for name, number in cut.items()
    )
    return warn(
        "limits",
        f"exceeded in the last 24 h: {exceeded}; the excess is counted as other. Find what creates so many names, or "
        "raise the setting and the memory limit",
    )


def channel(channel_checked: Channel) -> Finding:
    """Check whether a channel's receiver is reachable, as far as possible without sending a message."""
    result = channel_checked.check()
    result_of = {CheckState.OK: ok, CheckState.OFF: off, CheckState.WARN: warn, CheckState.FAIL: fail}[result.state]
    return result_of(channel_checked.name, result.text)


@dataclass(frozen=True, slots=True)
class Port:
    """The finding about the port, and whether a monitor listens on it."""

    finding: Finding
    daemon: bool = False


def web(settings: WebSettings) -> Port:
    """Check that the port is free or used by a monitor."""
    address = f"port {settings.port} of {settings.host}"
    try:
        for listener in listen(settings.host, settings.port, backlog=1):
            listener.close()
    except (OSError, UnicodeError) as exc:
        if getattr(exc, "errno", None) != errno.EADDRINUSE:
            reason = getattr(exc, "strerror", None) or exc
            return Port(fail("web", f"cannot listen on {address}: {reason}; change web.host or web.port"))
    else:
        return Port(ok("web", f"{address} is free: no monitor is running here"))
    answer = ask(settings)
    if answer.alive:
        return Port(ok("web", f"a monitor is running on {address}"), daemon=True)
    if answer.ours:
        return Port(fail("web", f"the monitor on {address} is unhealthy: {answer.text}"), daemon=True)
    whose = f"`ss -ltnp 'sport = :{settings.port}'` shows the process; stop it, or set a different web.port"
    return Port(fail("web", f"{address} is in use: {answer.text}; {whose}"))
