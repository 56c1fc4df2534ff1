"""Fixtures that start real servers, for all tests.

``rabbitmq_url``, ``redis_url`` and ``broker_url`` (both, one after the other) give a test an empty broker
of its own on a server that all tests of the process use one after the other: do not kill or pause that one. A test
that does takes ``breakable_rabbitmq`` or ``breakable_broker``, which is well again after the test. Where that is not
enough, ``start`` starts a server of the test's own and stops it after the test::

    def test_kill(start: Start, tmp_path: Path) -> None:
        broker = start(RabbitMQ(tmp_path / "rabbitmq"))
"""

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import hypothesis
import pytest

from tests import outcomes, properties
from tests.servers import PostgreSQL, RabbitMQ, Redis
from tests.servers.certificate import Certificate, make_certificate
from tests.servers.postgresql import template
from tests.servers.process import ServerProcess

_Server = TypeVar("_Server", bound=ServerProcess)
_servers: pytest.StashKey[list[ServerProcess]] = pytest.StashKey()


# Where CI is set hypothesis has a profile of its own: the same examples in each run, and no measures of time either.
properties.register()
if hypothesis.settings.get_current_profile_name() == "default":
    hypothesis.settings.load_profile("timeless")


def pytest_configure(config: pytest.Config) -> None:
    """A campaign sets its profile before the first test is read."""
    if config.option.markexpr == "campaign":
        hypothesis.settings.load_profile(properties.CAMPAIGN)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every test with hypothesis is also a campaign, with many more examples."""
    if config.option.markexpr == "campaign":
        for item in items:
            if isinstance(item, pytest.Function) and hypothesis.is_hypothesis_test(item.obj):
                item.add_marker(pytest.mark.campaign)


def pytest_collection_finish() -> None:
    """All that the imports and the collection made stays: each look for garbage would go through it again.

    It was 7 % of the processor time of the unit tests. Later ones are as rare as in the daemon (``cli/run.py``).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


class Start(Protocol):
    """The type of the ``start`` fixture."""

    def __call__(self, server: _Server) -> _Server:
        """Start the server, wait until it serves, and return it; stop it after the test."""


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts servers for one test; stops them after it, last in first out, and shows their logs if it fails."""
    started: list[ServerProcess] = []
    request.node.stash[_servers] = started

    def start_one(server: _Server) -> _Server:
        started.append(server)
        server.start()
        return server

    yield start_one
    for server in reversed(started):
        server.discard()


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[RabbitMQ]:
    """The session's RabbitMQ. It also speaks TLS: a server of its own for that would take seconds to boot."""
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq"), certificate=certificate) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """The session's Redis."""
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def empty_cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a PostgreSQL without databases, shared by all test processes."""
    base = tmp_path_factory.getbasetemp()
    return template((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "postgresql")


@pytest.fixture(scope="session")
def postgresql(empty_cluster: Path) -> Iterator[PostgreSQL]:
    """The session's PostgreSQL."""
    server = PostgreSQL(empty_cluster)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def migrated(postgresql: PostgreSQL) -> str:
    """The name of a database with the store's tables."""
    # Imported here, as below: the process that only hands out the tests would wait for it, and the others for that one.
    from celery_monitor.adapters.store import migrate, open_store

    url = postgresql.new_database()
    store = open_store(url, retention=1.0, fingerprint_window=1)
    with store._database.write() as connection:
        migrate.migrate(connection, "head")
    store.stop()
    return url.rpartition("/")[2]


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL, migrated: str) -> str:
    """The URL of a database with empty tables of the store. Tests use the same one in turn."""
    from celery_monitor.adapters.store.schema import metadata

    tables = ", ".join(f'"{name}"' for name in metadata.tables)
    postgresql.execute("SET lock_timeout = '30s'", f"TRUNCATE {tables} RESTART IDENTITY", database=migrated)
    return postgresql.url(migrated)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store: the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for localhost and 127.0.0.1."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def rabbitmq_url(rabbitmq: RabbitMQ) -> Iterator[str]:
    """The URL of a fresh vhost."""
    url = rabbitmq.new_vhost()
    yield url
    rabbitmq.delete_vhost(url)


@pytest.fixture
def breakable_rabbitmq(rabbitmq: RabbitMQ) -> Iterator[RabbitMQ]:
    """The process's RabbitMQ, with a fresh vhost as its default, for a test that kills, freezes or restarts it.

    Its boot takes as much of the processor as four daemons: no test needs one of its own for that.
    """
    url = rabbitmq.new_vhost()
    rabbitmq.eval("mnesia:dump_log()")  # else a kill in the next seconds might take the vhost with it
    rabbitmq.vhost = url.rpartition("/")[2]
    yield rabbitmq
    rabbitmq.vhost = "/"
    if rabbitmq.running:
        rabbitmq.resume()
    else:
        rabbitmq.start()
    rabbitmq.delete_vhost(url)


@pytest.fixture(params=["rabbitmq", "redis"])
def breakable_broker(request: pytest.FixtureRequest, start: Start, tmp_path: Path) -> RabbitMQ | Redis:
    """An empty broker that the test may kill, freeze and restart: once RabbitMQ, once Redis."""
    if request.param == "redis":
        return start(Redis(tmp_path / "redis"))
    server: RabbitMQ = request.getfixturevalue("breakable_rabbitmq")
    return server


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The URL of a fresh database."""
    return redis_server.new_database()


@pytest.fixture(params=["rabbitmq", "redis"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty broker: the test runs once on RabbitMQ and once on Redis."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start the record of a campaign."""
    outcomes.begin(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the ends of the servers' logs to the report of a failed test, and record a campaign's outcome."""
    report = yield
    outcomes.report(item, report)
    if report.failed:
        shared = (value for value in getattr(item, "funcargs", {}).values() if isinstance(value, ServerProcess))
        for server in {*item.stash.get(_servers, []), *shared}:
            report.sections.append((f"log of {server.name}", server.log_tail()))
    return report
