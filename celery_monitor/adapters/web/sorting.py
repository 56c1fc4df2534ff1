"""Sorting of lists by a column in the address: ``failed``, or ``-failed`` for the reverse order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

MAX_DIGITS: Final = 6
"""Maximum digits of a page number."""


def _unsorted(_: object) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class SortColumn:
    """A column by which a list can be sorted."""

    name: str
    title: str
    key: Callable[[Any], Any] = _unsorted
    """Sort key of a row; not used if the store sorts."""
    down: bool = True
    """Whether the default order is descending."""
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """The column and direction by which a list is sorted."""

    column: SortColumn
    down: bool

    def heads(self, columns: Sequence[SortColumn]) -> list[dict[str, Any]]:
        """For each column: its title, whether the list is sorted by it, and the sort parameter of its link."""
        return [
            {
                "title": sort_column.title,
                "numeric": sort_column.numeric,
                "sort": f"-{sort_column.name}"
                if sort_column is self.column and self.down == sort_column.down
                else sort_column.name,
                "sorted": ("descending" if self.down else "ascending") if sort_column is self.column else "",
            }
            for sort_column in columns
        ]


def order(sort: str, columns: Sequence[SortColumn]) -> Order:
    """The order that a parameter selects; by the first column if the parameter is invalid."""
    name = sort.removeprefix("-")
    column = next((sort_column for sort_column in columns if sort_column.name == name), None)
    if column is None:
        return Order(columns[0], columns[0].down)
    return Order(column, column.down != sort.startswith("-"))


def page_number(text: str) -> int:
    """The page number, from 1; 1 if the parameter is invalid."""
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else 1


def numbered(text: str, rows: int, size: int) -> tuple[int, int]:
    """The page number and the number of pages. An invalid parameter selects the first page."""
    pages = max(1, -(-rows // size))
    return min(page_number(text), pages), pages
