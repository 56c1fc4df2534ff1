"""The kinds of columns that the tables are made of."""

from typing import Final

from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, Table, Text

from celery_monitor.core.model import COUNTS

metadata: Final = MetaData()

RowId: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts rows up by itself only for INTEGER."""

TextType: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""PostgreSQL sorts by the database's language otherwise; the pages of a list are the same on both."""


def text_column(name: str, *, key: bool = False) -> Column[str]:
    """A text, sorted by code point on every database."""
    return Column(name, TextType, primary_key=key, nullable=False)


def number_column(name: str, *, key: bool = False) -> Column[int]:
    """A 64-bit integer."""
    return Column(name, BigInteger, primary_key=key, nullable=False, autoincrement=False)


def real_column(name: str) -> Column[float]:
    """A number with a fraction, such as a time in Unix seconds."""
    return Column(name, Double, nullable=False)


def count_columns() -> list[Column[int]]:
    """One column for each of COUNTS."""
    return [number_column(name) for name in COUNTS]


def bodies_by_name(table: str) -> Table:
    """A table of values that are read and written whole. ``body``: JSON of the value."""
    columns = text_column("name", key=True), text_column("body")
    return Table(table, metadata, *columns, sqlite_with_rowid=False)
