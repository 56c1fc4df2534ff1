"""Many fleets in one PostgreSQL database, each in its own schema."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Template

import psycopg
import pytest

from celery_monitor.adapters.store import SqlStore, migrate, open_store
from celery_monitor.adapters.store.dialects.postgresql_schema import WRITERS_LOCK
from celery_monitor.errors import StoreUnusableError
from celery_monitor.ports import OtherFleet
from celery_monitor.settings import Settings
from tests.adapters.store.committer import FINGERPRINT_WINDOW, disagreements, flush
from tests.conftest import Start
from tests.servers import PgBouncer, PostgreSQL

Opened = Callable[..., SqlStore]
ELSEWHERE = """
CREATE SCHEMA $NAME; GRANT USAGE ON SCHEMA $NAME TO PUBLIC; CREATE TABLE $NAME.celery_monitor_version ();
CREATE TABLE $NAME.meta ($COLUMNS); INSERT INTO $NAME.meta VALUES ($TEXTS); GRANT SELECT ON $NAME.meta TO PUBLIC;
"""


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Creates stores of a fleet, not started, and stops them after the test."""
    stores: list[SqlStore] = []

    def make(url: str, fleet: str, *, schema: str | None = None, page: str | None = None) -> SqlStore:
        given = {"fleet": fleet, "store": {"url": url, "schema": schema}, "web": {"external_url": page}}
        settings = Settings.model_validate(given)
        where = settings.schema_of_store
        stores.append(
            open_store(url, schema=where, directory=tmp_path, retention=1e9, fingerprint_window=FINGERPRINT_WINDOW)
        )
        return stores[-1]

    yield make
    for store in stores:
        store.stop()


def tables(server: PostgreSQL, url: str) -> set[str]:
    """The schemas that have a table of ours."""
    query = "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename = 'meta'"
    return {row[0] for row in server.query(query, database=url.rpartition("/")[2])}


def test_two_fleets(postgresql: PostgreSQL, opened: Opened, start: Start, tmp_path: Path) -> None:
    """Both lead at once, independently and without waiting for each other; also through a pooler."""
    url = postgresql.new_database()
    pooler = start(PgBouncer(postgresql, tmp_path / "pgbouncer"))
    shop = opened(pooler.url(url.rpartition("/")[2]), "shop")
    mail = opened(url, "mail")
    assert (shop.start().sequence, mail.start().sequence) == (0, 0)
    assert tables(postgresql, url) == {"celery_monitor_shop", "celery_monitor_mail"}
    for sequence in range(1, 9):
        shop.commit(flush(sequence))
    with mail._database.write():
        shop.commit(flush(9))
    mail.commit(flush(1))
    assert (len(shop.reader.failure("u9")), len(mail.reader.failure("u9"))) == (1, 0)
    assert shop.applying.begin is not mail.applying.begin
    assert shop._database.applying != mail._database.applying
    assert "schema celery_monitor_shop" in shop.about
    shop.prune(0.0)
    mail.prune(0.0)
    shop.stop()
    mail.stop()
    assert (disagreements(shop), disagreements(mail)) == ([], [])
    again = opened(url, "anything", schema="celery_monitor_shop")
    assert again.start().sequence == 9


def test_tables_of_an_older_version(postgresql: PostgreSQL, opened: Opened) -> None:
    """One fleet uses them where they are; the next one gets a schema. A configured schema is always used."""
    url = postgresql.new_database()
    old = open_store(url, retention=1.0, fingerprint_window=1)
    with old._database.write() as connection:
        migrate.upgrade(connection)
    old.stop()
    shop = opened(url, "shop")
    shop.start()
    shop.commit(flush(1))
    assert tables(postgresql, url) == {"public"}
    assert f"pg_advisory_xact_lock({WRITERS_LOCK})" in shop._database._dialect.begin(read_only=False, lock_wait=None)
    mail = opened(url, "mail")
    assert mail.start().sequence == 0
    assert tables(postgresql, url) == {"public", "celery_monitor_mail"}
    shop.stop()
    shop = opened(url, "shop")
    assert shop.start().sequence == 1
    named = opened(url, "shop", schema="own")
    assert named.start().sequence == 0


def test_moving_the_tables_of_an_older_version(postgresql: PostgreSQL, opened: Opened) -> None:
    """As documented: the daemon continues in its fleet's schema, and row numbers continue."""
    url = postgresql.new_database()
    old = open_store(url, retention=1.0, fingerprint_window=1)
    with old._database.write() as connection:
        migrate.upgrade(connection)
    old.stop()
    shop = opened(url, "shop")
    shop.start()
    for sequence in range(1, 5):
        shop.commit(flush(sequence))
    shop.stop()
    text = (Path(__file__).resolve().parents[3] / "docs" / "postgresql.md").read_text()
    (statements,) = re.findall(r"```sql\n(BEGIN;.*?COMMIT;)\n```", text, re.DOTALL)
    with psycopg.connect(url, autocommit=True) as connection_of_its_own:
        connection_of_its_own.execute(statements)
    assert tables(postgresql, url) == {"celery_monitor_shop"}
    shop = opened(url, "shop")
    shop.start()
    shop.commit(flush(5))
    shop.stop()
    assert disagreements(shop) == []


def test_a_user_who_may_create_no_schema(postgresql: PostgreSQL, opened: Opened) -> None:
    """The error says what to request; after that, it works."""
    url = postgresql.new_database(owner="postgres")
    name = url.rpartition("/")[2]
    store = opened(url, "shop")
    remedy = r'may not create the schema celery_monitor_shop.*: CREATE SCHEMA "celery_monitor_shop" AUTHORIZATION "mon'
    for use in (store.start, store.attach):
        with pytest.raises(StoreUnusableError, match=remedy):
            use()
    postgresql.execute('CREATE SCHEMA "celery_monitor_shop"', database=name)
    with pytest.raises(
        StoreUnusableError, match=r"may not create tables in schema celery_monitor_shop|permission denied"
    ):
        store.start()
    postgresql.execute('ALTER SCHEMA "celery_monitor_shop" OWNER TO monitor', database=name)
    assert store.start().sequence == 0


def test_a_search_path_in_the_url(postgresql: PostgreSQL, opened: Opened) -> None:
    """The tables are created there."""
    url = postgresql.new_database()
    postgresql.execute("CREATE SCHEMA mine AUTHORIZATION monitor", database=url.rpartition("/")[2])
    assert opened(f"{url}?options=-csearch_path%3Dmine", "shop").start().sequence == 0
    assert tables(postgresql, url) == {"mine"}


def test_a_standby_of_an_older_version_s_tables(postgresql: PostgreSQL, opened: Opened) -> None:
    """The leader is unknown there; nothing raises."""
    url = postgresql.new_database()
    postgresql.execute(
        "CREATE TABLE meta (id bigint, writer text)", "CREATE TABLE celery_monitor_version (version_num text)",
        database=url.rpartition("/")[2],
    )  # fmt: skip
    postgresql.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO monitor", database=url.rpartition("/")[2])
    store = opened(url, "shop")
    assert (store.lease().holder, store.lease().expires_in, store.position()) == ("", 0.0, None)


def test_the_other_fleets(postgresql: PostgreSQL, opened: Opened) -> None:
    """Those with a page that this user may read. Nothing of their owner is executed."""
    url = postgresql.new_database()
    database = url.rpartition("/")[2]
    shop, mail = (
        opened(url, "shop", page="https://shop.example.com"),
        opened(url, "mail", page="https://mail.example.com"),
    )
    shop.start()
    assert shop.other_fleets() == []
    mail.start()
    opened(url, "hidden").start()
    policy = "ALTER TABLE {}.meta ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON {}.meta USING (1 / 0 = 1)"
    for schema, columns, more in (
        ("inaccessible", "fleet text, external_url text", "REVOKE ALL ON {}.meta FROM PUBLIC"),
        ("typed", "fleet varchar, external_url text", ""),
        ("old", "fleet text", ""),
        ("policed", "fleet text, external_url text", policy),
        ('"odd ""name"', "fleet text, external_url text", ""),
    ):
        values = "'odd', 'javascript:alert(1)'" if "external_url" in columns else "'old'"
        made = Template(ELSEWHERE).substitute(NAME=schema, COLUMNS=columns, TEXTS=values)
        postgresql.execute(made + more.replace("{}", schema), database=database)
    assert shop.other_fleets() == [
        OtherFleet("mail", "https://mail.example.com"), OtherFleet("odd", "javascript:alert(1)"),
    ]  # fmt: skip
    assert mail.other_fleets()[1] == OtherFleet("shop", "https://shop.example.com")
