"""What the queries of every subject have in common."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement

from celery_monitor.adapters.store.engine import Database


class StoreQueries:
    """StoreQueries of a database. Each public method is one read transaction."""

    def __init__(self, database: Database) -> None:
        """Does no I/O."""
        self._database = database

    def _one_of(self, column: ColumnElement[str], values: Sequence[str]) -> ColumnElement[bool]:
        return column.in_([self._database.text(value) for value in values])
