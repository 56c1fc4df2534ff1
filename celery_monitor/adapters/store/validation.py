"""Validates rows, because SQLite accepts any value in any column, and files can be damaged."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Annotated, Any, Final, TypeVar

import msgspec
import structlog

from celery_monitor.core.model import COUNTS, Stage

T = TypeVar("T")

_Stage = Annotated[int, msgspec.Meta(ge=0, le=int(max(Stage)))]
_Saved = Annotated[int, msgspec.Meta(ge=1)]
RowId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_CHUNK_SIZE: Final = 2_000

SERIES: Final = tuple[(str, str, str, *[int] * len(COUNTS), str, str, float, str, float, int)]  # type: ignore[misc]
TRACKED: Final = tuple[
    _Saved, str, str | None, str | None, _Stage, float, float, int, str | None, str | None,
    float, float, float, int, str | None, str | None, float,
]  # fmt: skip
ENDED: Final = tuple[str, str | None, str | None, str, _Stage, float]
UNNAMED: Final = tuple[int, float, str, float | None]
COUNTER: Final = tuple[str, float]
FINGERPRINTS: Final = tuple[int, bytes]

FINGERPRINT: Final = 8
"""Bytes of a fingerprint."""

_log = structlog.get_logger()


def required_row(row: Sequence[Any], kind: Any) -> Any:  # noqa: ANN401 - msgspec checks the types
    """The row, if its values have these types. Otherwise raises, because the store is useless without this row."""
    return msgspec.convert(tuple(row), kind)


def _valid_row(row: tuple[Any, ...], kind: Any, build: Callable[[list[Any]], list[T]]) -> list[T]:  # noqa: ANN401
    try:
        return build([msgspec.convert(row, kind)])
    except Exception:  # noqa: BLE001 - skip the row, whatever is wrong with it
        return []


def valid_values(
    table: str,
    portions: Iterable[Sequence[tuple[Any, ...]]],
    kind: Any,  # noqa: ANN401
    build: Callable[[list[Any]], list[T]],
) -> list[T]:
    """Build a value from each row. Skips rows for which this fails, and logs their number."""
    values: list[T] = []
    left_out = 0
    for rows in portions:
        try:
            values += build(msgspec.convert(rows, list[kind]))
        except Exception:  # noqa: BLE001 - retry row by row, to skip only the invalid ones
            valid = [value for row in rows for value in _valid_row(row, kind, build)]
            left_out += len(rows) - len(valid)
            values += valid
    if left_out:
        _log.error("Skipped unreadable rows of the store", table=table, rows=left_out)
    return values


def valid_rows(table: str, rows: Iterable[Sequence[Any]], kind: Any, build: Callable[..., T]) -> list[T]:  # noqa: ANN401
    """As ``valid_values``, for rows of SQLAlchemy. ``build`` takes the values of a row."""
    remaining = iter(rows)
    chunks = iter(lambda: [tuple(row) for row in islice(remaining, _CHUNK_SIZE)], [])
    return valid_values(table, chunks, kind, lambda chunk: [build(*row) for row in chunk])
