"""Checks of a PostgreSQL server: privileges, clock, durability, and the leader."""

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.store import ServerReport, SqlStore, open_store
from celery_monitor.adapters.store.dialects.sqlite_refusal import not_writable
from celery_monitor.cli.doctor.finding import Finding, fail, name_list, note, ok, warn
from celery_monitor.errors import StoreUnavailableError, StoreUnusableError
from celery_monitor.ports import LeaseState
from celery_monitor.settings import Settings

_MAX_OFFSET: Final = 5.0
"""Largest difference between the clocks, in seconds, without a warning."""
_SUBJECT: Final = "database"


def findings(settings: Settings) -> Iterator[Finding]:
    """Check the server. Yields nothing for SQLite or a server that does not answer, which the store's check reports."""
    section = settings.store
    store = open_store(
        section.url_source(),
        password=section.password_source(),
        schema=settings.schema_of_store,
        directory=section.directory,
        retention=section.retention,
        fingerprint_window=0,
    )
    with closing(_Opened(store)) as opened:
        try:
            report, lease = opened.read_report()
        except (StoreUnusableError, StoreUnavailableError):
            return
        if report is not None:
            yield _privileges(report)
            yield _clock(report)
            yield _durability(report)
            yield _leader(lease)
            problem = not_writable((section.directory / "file").absolute(), "store.directory")
            if problem is not None:
                yield warn(_SUBJECT, f"{problem}. Its files record which message a killed process was applying")


class _Opened:
    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.close = store.stop

    def read_report(self) -> tuple[ServerReport | None, LeaseState]:
        report = self._store.server(SystemClock().now)
        return report, self._store.lease() if report is not None else LeaseState("", 0, 0.0)


def _privileges(report: ServerReport) -> Finding:
    way = "through a pooler, which works in transaction mode" if report.pooled else "without a pooler"
    if not report.inaccessible:
        return ok(_SUBJECT, f"the user can read, write and alter every table; connected {way}")
    return fail(
        _SUBJECT,
        f"the user does not own {name_list([*report.inaccessible])}, or may not read and write there: as a superuser "
        "of that database, ALTER TABLE … OWNER TO the user of store.url",
    )


def _clock(report: ServerReport) -> Finding:
    offset = report.clock_offset
    if abs(offset) <= _MAX_OFFSET:
        return ok(_SUBJECT, f"its clock and this machine's differ by {abs(offset):.1f} s")
    return warn(
        _SUBJECT,
        f"its clock is {abs(offset):,.0f} s {'ahead of' if offset > 0 else 'behind'} this machine's: synchronize "
        "both with NTP. The server's clock decides which replica leads; incidents and counts by time use this "
        "machine's clock",
    )


def _durability(report: ServerReport) -> Finding:
    if not report.fsync:
        return warn(
            _SUBJECT,
            "fsync is off: a crash of its machine loses counts that were acknowledged to the broker, and may damage "
            "the whole database. As a superuser: ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf(). If its "
            "postgresql.conf or its command line sets it, change it there, and restart the server",
        )
    if report.synchronous_commit == "off":
        return warn(
            _SUBJECT,
            "synchronous_commit is off: a crash of the server loses counts that were acknowledged to the broker. Set "
            "it to on, for this database at least: ALTER DATABASE … SET synchronous_commit = on",
        )
    names = report.synchronous_standbys
    if names and report.synchronous_commit == "local":
        return warn(_SUBJECT, "synchronous_commit is local: a failover can lose the newest counts. Set it to on")
    if names:
        return ok(_SUBJECT, f"commits wait for a standby (synchronous_standby_names: {names})")
    if report.standbys:
        return note(
            _SUBJECT,
            "it has standbys, but no commit waits for them: a failover can lose the newest counts, which were "
            "acknowledged to the broker. Set synchronous_standby_names to prevent it",
        )
    return ok(_SUBJECT, "commits are on its disk before messages are acknowledged to the broker; it has no standby")


def _leader(lease: LeaseState) -> Finding:
    if lease.expires_in > 0:
        until = f"its lease expires in {lease.expires_in:.1f} s unless it is renewed"
        return ok(_SUBJECT, f"{lease.holder or 'a celery-monitor'} leads (term {lease.term}); {until}")
    last = f", {lease.holder} led last" if lease.holder else ""
    return ok(_SUBJECT, f"no replica leads{last}: the next celery-monitor that starts will")
