"""Rows that may not be what this program has written: SQLite takes any value in any column, and files get damaged."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Annotated, Any, Final, TypeVar

import msgspec
import structlog

from celery_monitor.core.model import COUNTS, Stage

T = TypeVar("T")

_Stage = Annotated[int, msgspec.Meta(ge=0, le=int(max(Stage)))]
RowId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_CHUNK_SIZE: Final = 2_000

SERIES: Final = tuple[(str, str, str, *[int] * len(COUNTS), str, str, float, str, float, int)]  # type: ignore[misc]
TRACKED: Final = tuple[
    str, str | None, str | None, _Stage, float, float, int, str | None, str | None,
    float, float, float, int, str | None, str | None, float,
]  # fmt: skip
ENDED: Final = tuple[str, str | None, str | None, str, _Stage, float]
UNNAMED: Final = tuple[int, float, str, float | None]
COUNTER: Final = tuple[str, float]
FINGERPRINTS: Final = tuple[int, bytes]

FINGERPRINT: Final = 8
"""Bytes."""

_log = structlog.get_logger()


def required_row(row: Sequence[Any], kind: Any) -> Any:  # noqa: ANN401 - msgspec knows the types of the parts
    """A row whose parts have these types. Raises for any other: without it nothing may be built on the store."""
    return msgspec.convert(tuple(row), kind)


def _one(row: tuple[Any, ...], kind: Any, build: Callable[..., T]) -> list[T]:  # noqa: ANN401
    try:
        return [build(*msgspec.convert(row, kind))]
    except Exception:  # noqa: BLE001 - the boundary: whatever is wrong with a row costs that row
        return []


def valid_rows(table: str, rows: Iterable[Sequence[Any]], kind: Any, build: Callable[..., T]) -> list[T]:  # noqa: ANN401
    """What ``build`` makes of the rows; one that it cannot use is left out, and said."""
    values: list[T] = []
    remaining, left_out = iter(rows), 0
    while chunk := [tuple(row) for row in islice(remaining, _CHUNK_SIZE)]:
        try:
            values += [build(*row) for row in msgspec.convert(chunk, list[kind])]
        except Exception:  # noqa: BLE001 - the boundary: it is looked at row by row
            valid = [value for row in chunk for value in _one(row, kind, build)]
            left_out += len(chunk) - len(valid)
            values += valid
    if left_out:
        _log.error("Skipped unreadable rows of the store", table=table, rows=left_out)
    return values
