"""PostgreSQL: encodes columns of values as arrays in the binary wire format.

psycopg can encode arrays, too, but value by value in Python, which would take half of the CPU time of a flush. Here, a
column is packed at once. The format is that of ``array_send`` in PostgreSQL's src/backend/utils/adt/arrayfuncs.c.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from operator import index
from typing import Any, Final

_HEADER: Final = struct.Struct(">iiIii")
"""Number of dimensions, whether there are NULLs, OID of the elements' type, number of elements, first index."""
_LENGTH: Final = struct.Struct(">i").pack
_NULL: Final = _LENGTH(-1)


class Array(bytes):
    """The encoded values of a column. Each subclass is for one type."""

    element: int
    """OID of the elements' type, as in pg_type.dat."""
    oid: int
    """OID of the array's type."""

    @classmethod
    def from_values(cls, values: Iterable[Any]) -> "Array":
        """Encode values. Raises ValueError, TypeError, OverflowError or UnicodeEncodeError if one cannot be stored."""
        items = list(values)
        if None in items:
            non_null = [value for value in items if value is not None]
            packed = iter(cls._packed(non_null))
            parts = [_NULL if value is None else next(packed) for value in items]
            return cls(_HEADER.pack(1, 1, cls.element, len(items), 1) + b"".join(parts))
        return cls(_HEADER.pack(1, 0, cls.element, len(items), 1) + cls._joined(items))

    @classmethod
    def _packed(cls, values: Sequence[Any]) -> list[bytes]:
        """Each value, prefixed with its length."""
        return [cls._joined([value]) for value in values]

    @classmethod
    def _joined(cls, values: Sequence[Any]) -> bytes:
        raise NotImplementedError


class _Fixed(Array):
    """Elements of a fixed size."""

    code: str
    size: int
    exactly: Callable[[Any], Any]
    kind: type[Any]

    @classmethod
    def _joined(cls, values: Sequence[Any]) -> bytes:
        if {*map(type, values)} != {cls.kind}:
            values = [cls.exactly(value) for value in values]
        pairs = chain.from_iterable(zip(repeat(cls.size), values))
        try:
            return struct.pack(f">{f'i{cls.code}' * len(values)}", *pairs)
        except struct.error as exc:
            raise OverflowError("a number beyond 64 bits") from exc


class Bigints(_Fixed):
    """An array of int."""

    element, oid, code, size, kind = 20, 1016, "q", 8, int
    exactly = staticmethod(index)


class Doubles(_Fixed):
    """An array of float. Rejects NaN."""

    element, oid, code, size, kind = 701, 1022, "d", 8, float
    exactly = staticmethod(float)

    @classmethod
    def _joined(cls, values: Sequence[Any]) -> bytes:
        if any(value != value for value in values):  # noqa: PLR0124  # NaN
            raise ValueError("not a number")
        return super()._joined(values)


class Booleans(_Fixed):
    """An array of bool."""

    element, oid, code, size, kind = 16, 1000, "?", 1, bool
    exactly = staticmethod(bool)


class Texts(Array):
    """An array of str."""

    element, oid = 25, 1009

    @classmethod
    def _joined(cls, values: Sequence[Any]) -> bytes:
        encoded = [str.encode(value) for value in values]
        return b"".join([part for item in encoded for part in (_LENGTH(len(item)), item)])


class Blobs(Array):
    """An array of bytes."""

    element, oid = 17, 1001

    @classmethod
    def _joined(cls, values: Sequence[Any]) -> bytes:
        return b"".join([part for item in values for part in (_LENGTH(len(item)), item)])
