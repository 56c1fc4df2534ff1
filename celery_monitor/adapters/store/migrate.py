"""Migrations by Alembic, without its configuration file and its command line.

The version is kept in a table of our own name, so that a database of another program that uses Alembic is not taken
for ours.
"""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, inspect

from celery_monitor.errors import StoreUnusableError

VERSION_TABLE: Final = "celery_monitor_version"
_SCRIPTS: Final = Path(__file__).parent / "migrations"


def check(connection: Connection, where: str) -> bool:
    """Whether the database is at this program's revision; False for one that is older or empty.

    Raises StoreUnusableError when it belongs to another program or to a newer version of this one. Changes nothing.
    """
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE not in tables:
        if tables:
            raise StoreUnusableError(
                f"The store {where} holds the tables of another program ({', '.join(sorted(tables)[:3])}): "
                "set a different store.url"
            )
        return False
    found = revision(connection)
    scripts = ScriptDirectory.from_config(_config(None))
    try:
        known = found is None or scripts.get_revision(found) is not None
    except CommandError:
        known = False
    if not known:
        raise StoreUnusableError(
            f"The store {where} was written by a newer version of celery-monitor (revision {found}): "
            "install that version or a newer one, or set a different store.url"
        )
    return found == scripts.get_current_head()


def revision(connection: Connection) -> str | None:
    """The revision that the database is at; None for an empty one."""
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def upgrade(connection: Connection) -> None:
    """Bring the database to this program's revision, inside of the transaction that ``connection`` is in."""
    command.upgrade(_config(connection), "head")


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["version_table"] = VERSION_TABLE
    return config
