"""Types of columns."""

from typing import Final

from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, Table, Text

from celery_monitor.core.model import COUNTS

metadata: Final = MetaData()

RowId: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite generates ascending IDs only for columns of the type INTEGER."""

TextType: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""With collation C, PostgreSQL sorts like SQLite, so that pages of a list are the same on both."""


def text_column(name: str, *, key: bool = False) -> Column[str]:
    """A text that every database sorts by code point."""
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
    """A table of named values, each stored as JSON in the column ``body``."""
    columns = text_column("name", key=True), text_column("body")
    return Table(table, metadata, *columns, sqlite_with_rowid=False)
