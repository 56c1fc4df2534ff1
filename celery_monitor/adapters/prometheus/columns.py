"""Renders many samples at once: their labels and values are written into one list, which is joined."""

from collections.abc import Sequence

import msgspec
from prometheus_client.utils import floatToGoString

from celery_monitor.adapters.prometheus.families import Family, Kind


def head(prefix: str, family: Family, *, openmetrics: bool) -> bytes:
    """The comment lines before a family's samples."""
    name = prefix + (family.name if openmetrics else family.sample)
    kind = family.kind if openmetrics else {Kind.INFO: "gauge", Kind.UNKNOWN: "untyped"}.get(family.kind, family.kind)
    unit = f"# UNIT {name} {family.unit}\n" if openmetrics and family.unit else ""
    return f"# HELP {name} {family.help}\n# TYPE {name} {kind}\n{unit}".encode()


def lines(
    sample: bytes, label_sets: Sequence[bytes], values: Sequence[float], ends: Sequence[bytes] | None = None
) -> bytes:
    """One line per label set: labels, value, and the end of the line."""
    pieces = [sample + b"{", b"", b"} ", b"", b"\n"] * len(label_sets)
    pieces[1::5] = label_sets
    pieces[3::5] = numbers(values)
    if ends is not None:
        pieces[4::5] = ends
    return b"".join(pieces)


def numbers(values: Sequence[float]) -> list[bytes]:
    """The formatted values. One call of msgspec for all takes a third of the time of Python's own formatting."""
    return msgspec.json.encode(values)[1:-1].split(b",")


def sums(values: Sequence[float]) -> list[bytes]:
    """Like ``numbers``, but with infinity, which JSON does not support."""
    texts = numbers(values)
    return texts if b"null" not in texts else [floatToGoString(value).encode() for value in values]  # type: ignore[no-untyped-call]
