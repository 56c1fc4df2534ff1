"""``celery-monitor doctor`` about a PostgreSQL server."""

import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from celery_monitor.adapters.store import ServerReport, open_store
from celery_monitor.cli.doctor import database, services
from celery_monitor.cli.doctor.finding import Finding, State
from celery_monitor.core.model import Changes
from celery_monitor.ports import LeaseState
from celery_monitor.settings import Settings, StoreSettings
from celery_monitor.settings.secret import SecretUrl
from tests.conftest import Start
from tests.servers import PgBouncer, PostgreSQL

NOW = 1_795_402_000.0
WELL = ServerReport(
    clock_offset=0.2,
    pooled=False,
    synchronous_commit="on",
    synchronous_standbys="",
    standbys=0,
    fsync=True,
    inaccessible=(),
)


@pytest.mark.parametrize(
    ("changed", "state", "text"),
    [
        ({}, State.OK, "on its disk before messages are acknowledged"),
        ({"fsync": False}, State.WARN, "fsync is off: a crash of its machine loses"),
        ({"fsync": False, "synchronous_commit": "off"}, State.WARN, "ALTER SYSTEM SET fsync = on"),
        ({"synchronous_commit": "off"}, State.WARN, "SET synchronous_commit = on"),
        ({"standbys": 2}, State.NOTE, "Set synchronous_standby_names"),
        ({"standbys": 2, "synchronous_standbys": "*"}, State.OK, "commits wait for a standby"),
        ({"synchronous_commit": "local", "synchronous_standbys": "*"}, State.WARN, "is local"),
    ],
)
def test_durability(changed: dict[str, object], state: State, text: str) -> None:
    """What a crash or a failover of the server may lose, and how to prevent it."""
    found = database._durability(replace(WELL, **changed))  # type: ignore[arg-type]
    assert found.state is state
    assert text in found.text


def test_clocks() -> None:
    """A relevant difference is reported with its direction."""
    assert database._clock(replace(WELL, clock_offset=-4.0)).state is State.OK
    assert "90 s ahead of" in database._clock(replace(WELL, clock_offset=90.0)).text
    assert "90 s behind" in database._clock(replace(WELL, clock_offset=-90.0)).text


def test_the_leader() -> None:
    """The leader and the end of its lease, or the last leader."""
    assert "pod-1 leads (term 7); its lease expires in 3.2 s" in database._leader(LeaseState("pod-1", 7, 3.2)).text
    assert "no replica leads, pod-1 led last" in database._leader(LeaseState("pod-1", 7, -1.0)).text
    assert "no replica leads: the next" in database._leader(LeaseState("", 0, 0.0)).text


def test_on_a_server(postgresql: PostgreSQL, start: Start, tmp_path: Path) -> None:
    """Directly and through a pooler; tables of another user; a pooler in an unsupported mode; a file."""
    url = postgresql.new_database()
    name = url.rpartition("/")[2]
    pooler = start(PgBouncer(postgresql, tmp_path / "pgbouncer"))
    settings, pooled = (Settings(store=StoreSettings(url=SecretUrl(at))) for at in (url, pooler.url(name)))
    assert [found.state for found in database.findings(settings)] == [State.OK, State.OK, State.WARN, State.OK]
    elsewhere = Settings(store=StoreSettings(url=SecretUrl(url), directory=tmp_path / "missing"))
    (*_, last) = database.findings(elsewhere)
    assert last.state is State.WARN
    assert f"{tmp_path}/missing does not exist: create it, or set a different store.directory" in last.text
    daemon = open_store(url, schema=settings.schema_of_store, directory=tmp_path, retention=1.0, fingerprint_window=1)
    daemon.start("pod-1")
    texts = [found.text for found in database.findings(settings)]
    assert "without a pooler" in texts[0]
    assert "pod-1 leads (term 1)" in texts[3]
    assert "through a pooler" in next(database.findings(pooled)).text
    daemon.stop()
    postgresql.execute("ALTER TABLE celery_monitor_celery.outbox OWNER TO postgres", database=name)
    inaccessible = next(database.findings(settings))
    assert inaccessible.state is State.FAIL
    assert "does not own outbox" in inaccessible.text
    pooler.stop()
    pooler.mode = "statement"
    pooler.start()
    assert "set pool_mode = transaction" in services.store(pooled).text
    assert list(database.findings(Settings(store=StoreSettings(url=SecretUrl(f"sqlite:///{tmp_path}/x.db"))))) == []


def test_the_store_there(postgresql: PostgreSQL, postgresql_url: str, tmp_path: Path) -> None:
    """Its location, version, usability, and last write, without the password."""

    def found(url: str, *, in_use: bool = False) -> Finding:
        return services.store(Settings(store=StoreSettings(url=SecretUrl(url))), in_use=in_use)

    new = found(postgresql.new_database())
    assert new.state is State.OK
    assert re.search(
        r"PostgreSQL \d+\.\d+, test\d+ on 127.0.0.1:\d+(, schema \w+)? answers; it has no tables", new.text
    )
    assert found(postgresql.new_database(), in_use=True).state is State.WARN
    daemon = open_store(postgresql_url, directory=tmp_path, retention=86_400.0, fingerprint_window=10)
    with ExitStack() as cleanup:
        cleanup.callback(daemon.stop)
        sequence = daemon.start().sequence
        daemon.commit(Changes(NOW, sequence + 1, counters={"alive_at": NOW}))
        beside = found(postgresql_url)
        assert beside.state is State.OK
        assert re.search(r"^PostgreSQL .* answers, last written [\d,]+ s ago$", beside.text)
        assert found(postgresql_url, in_use=True).state is State.WARN
        daemon.commit(Changes(NOW + 1, sequence + 2, counters={"alive_at": NOW + 1}))
    wrong = found(postgresql.url("postgres", "guarded:s3cret"))
    assert wrong.state is State.FAIL
    assert "password authentication failed" in wrong.text
    assert "s3cret" not in wrong.text
