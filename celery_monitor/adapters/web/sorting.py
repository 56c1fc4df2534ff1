"""Sorting a list by a column, as the address says it: ``failed`` or ``-failed``, the other way round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

MAX_DIGITS: Final = 6
"""Of the number of a page."""


def _unsorted(_: object) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class SortColumn:
    """A column that a list can be sorted by."""

    name: str
    title: str
    key: Callable[[Any], Any] = _unsorted
    """Of a row, ascending; not used where the store sorts."""
    down: bool = True
    """Whether the largest is shown first unless the other way is asked for."""
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """By what a list is sorted."""

    column: SortColumn
    down: bool

    def heads(self, columns: Sequence[SortColumn]) -> list[dict[str, Any]]:
        """Of each column: its title, whether it is sorted by, and by what its link sorts."""
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
    """What a parameter asks for. What is no column is the first one."""
    name = sort.removeprefix("-")
    column = next((sort_column for sort_column in columns if sort_column.name == name), None)
    if column is None:
        return Order(columns[0], columns[0].down)
    return Order(column, column.down != sort.startswith("-"))


def page_number(text: str) -> int:
    """Of a page, from 1. What is no number is the first one."""
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else 1


def numbered(text: str, rows: int, size: int) -> tuple[int, int]:
    """The number of the page and how many there are. What is no number is the first one."""
    pages = max(1, -(-rows // size))
    return min(page_number(text), pages), pages
