"""Durations and sizes as people write them: ``500ms``, ``30s``, ``15m``, ``24h``, ``30d``; ``256MiB``.

In the program a duration is a ``float`` in seconds and a size an ``int`` in bytes. A number without a unit is refused,
except 0, because ``heartbeat: 10`` could mean seconds or milliseconds.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

SECOND: Final = 1.0
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
MIB: Final = 1024**2

_DURATION_UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZE_UNITS: Final = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
# Limits the digits, so that no configured number overflows in later calculations (timedelta, AMQP).
_DIGITS: Final = "[0-9]{1,16}"


@dataclass(frozen=True, slots=True)
class Quantity:
    """Parses, checks and renders one kind of quantity. Used as a pydantic annotation."""

    kind: str
    units: dict[str, int] = field(hash=False)
    """Unit → its size in base units, ascending."""
    per_value: int
    """Base units per unit of the parsed value: 1000 (ms in a second) or 1 (byte)."""
    hint: str
    at_least: int
    """In base units, like ``at_most``."""
    at_most: int

    def parse(self, value: object) -> float:
        """The quantity in seconds or bytes.

        Raises:
            ValueError: Says what would be valid, without the value itself.
        """
        amount = self._amount(value)
        if not self.at_least <= amount <= self.at_most:
            raise ValueError(f"must be from {self._text(self.at_least)} to {self._text(self.at_most)}")
        return amount / self.per_value if self.per_value > 1 else amount

    def render(self, value: float) -> str:
        """The inverse of `parse`, in the largest unit without a fraction."""
        return self._text(round(value * self.per_value))

    def _amount(self, value: object) -> int:
        if value == "0" or (value == 0 and not isinstance(value, bool)):
            return 0
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f"has no unit; write {self.hint}")  # noqa: TRY004 - pydantic collects ValueError
        match = re.fullmatch(f"({_DIGITS})({'|'.join(self.units)})", value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"is not a {self.kind}; write one number and its unit: {self.hint}")
        return int(match[1]) * self.units[match[2]]

    def _text(self, amount: int) -> str:
        smallest, *larger = self.units.items()
        unit, size = next(
            (item for item in reversed(larger) if amount and amount % item[1] == 0),
            larger[0] if not amount and self.per_value > 1 else smallest,
        )
        return f"{amount // size}{unit}"

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        return core_schema.no_info_plain_validator_function(
            self.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(self.render, when_used="json"),
        )

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        number = f"{_DIGITS}({'|'.join(self.units)})"
        # JSON Schema cannot check the range of a string, so it is in the comment.
        comment = {"$comment": f"from {self._text(self.at_least)} to {self._text(self.at_most)}"}
        if self.at_least > 0:
            return {"type": "string", "pattern": f"^{number}$", **comment}
        return {"type": ["string", "integer"], "pattern": f"^(0|{number})$", "minimum": 0, "maximum": 0, **comment}


def duration(at_least: str = "0", at_most: str = "36500d") -> Quantity:
    """The annotation of a `float` field in seconds, with bounds such as ``1s``."""
    return _bounded("duration", _DURATION_UNITS, 1000, "500ms, 30s, 15m, 24h or 30d", at_least, at_most)


def size(at_least: str = "0", at_most: str = "1024TiB") -> Quantity:
    """The annotation of an `int` field in bytes, with bounds such as ``64KiB``."""
    return _bounded("size", _SIZE_UNITS, 1, "64KiB, 256MiB or 1GiB", at_least, at_most)


def _bounded(  # noqa: PLR0917 - private, called twice above
    kind: str, units: dict[str, int], per_value: int, hint: str, at_least: str, at_most: str
) -> Quantity:
    free = Quantity(kind, units, per_value, hint, 0, 10**18)
    low, high = (round(free.parse(bound) * per_value) for bound in (at_least, at_most))
    return Quantity(kind, units, per_value, hint, low, high)


Duration = Annotated[float, duration()]
Size = Annotated[int, size()]
