"""Creates the tables in an empty database, and migrates an older one with Alembic.

Alembic is imported only for a migration, because with its templates it takes a tenth of the start and stays in memory.
It runs without its configuration file and command line. The version table has a name of its own, so the database of
another program that uses Alembic is not mistaken for a store.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, inspect, select

from celery_monitor.adapters.store.schema import metadata
from celery_monitor.errors import StoreUnusableError
from celery_monitor.settings.store import STORE_URL

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE: Final = "celery_monitor_version"
_SCRIPTS: Final = Path(__file__).parent / "migrations"
# As Alembic creates it.
_version: Final = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)


def revisions() -> list[str]:
    """All revisions, the oldest first. A revision is the beginning of its file's name."""
    return sorted(path.name[:4] for path in (_SCRIPTS / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"))


def check(connection: Connection, location: str, setting: str = STORE_URL) -> bool:
    """Whether the database is at this program's revision; False if it is older or empty. Changes nothing.

    ``location`` and ``setting``: the database's place, and the setting or option that contains its URL, for errors.
    Raises StoreUnusableError if it belongs to another program or to a newer version of this one.
    """
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE not in tables:
        if tables:
            raise StoreUnusableError(
                f"The store {location} holds the tables of another program ({', '.join(sorted(tables)[:3])}): "
                f"set a different {setting}"
            )
        return False
    current, known = revision(connection), revisions()
    if current is not None and current not in known:
        raise StoreUnusableError(
            f"The store {location} was written by a newer version of celery-monitor (revision {current}): "
            f"install that version or a newer one, or set a different {setting}"
        )
    return current == known[-1]


def revision(connection: Connection) -> str | None:
    """The revision of a database that has the version table; None if the table is empty."""
    current: str | None = connection.execute(select(_version.c.version_num)).scalar()
    return current


def upgrade(connection: Connection) -> None:
    """Create or migrate the tables, within the transaction of ``connection``."""
    if inspect(connection).get_table_names():
        migrate(connection, "head")
    else:
        create(connection)


def create(connection: Connection) -> None:
    """Create the tables in an empty database. A test compares them with the result of all migrations."""
    metadata.create_all(connection, checkfirst=False)
    _version.create(connection)
    connection.execute(_version.insert().values(version_num=revisions()[-1]))


def migrate(connection: Connection, to: str) -> None:
    """Apply the migrations from the database's revision, or from an empty database, up to ``to``."""
    from alembic import command  # noqa: PLC0415 - see above

    command.upgrade(_config(connection), to)


def _config(connection: Connection) -> "Config":
    from alembic.config import Config  # noqa: PLC0415 - see above

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["version_table"] = VERSION_TABLE
    return config
