"""Pictures over time as inline SVG: pure functions of numbers, each with its text for who cannot see it.

Colours come from the style sheet by classes, because the content security policy allows no styles in the document.
The pictures have no text: they are stretched to the width that there is, and text beside them keeps its size. A pointer
over a bar shows its title.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

_WIDTH: Final = 720
_HEIGHT: Final = 100
_LEAST: Final = 2.0
"""Height of the smallest bar that is not nothing."""
_SPARK_WIDTH: Final = 96
_SPARK_HEIGHT: Final = 20
_TRACES: Final = ("first", "second", "third")
"""Classes of the lines of a picture."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One span of time of a strip."""

    title: str
    """When, and how much, for the pointer."""
    runs: int
    failed: int
    marked: bool = False
    """Shown on another ground: the time that the page is about."""


@dataclass(frozen=True, slots=True)
class Point:
    """One span of time of a line; ``value`` is None where nothing was measured."""

    title: str
    value: float | None


def strip(bars: Sequence[Bar], told: str) -> Markup:
    """Executed runs by time, with the failed part of each below in red. ``told``: the picture in words."""
    if not bars:
        return Markup()
    step = _WIDTH / len(bars)
    peak = max(max(bar.runs, bar.failed) for bar in bars) or 1
    parts = [_ground(bars, step)]
    for number, bar in enumerate(bars):
        runs, failed = _tall(max(bar.runs, bar.failed), peak), _tall(bar.failed, peak)
        x, wide = number * step + step * 0.1, step * 0.8
        drawn = [_rectangle("run", x, wide, runs)] if runs > failed else []
        drawn += [_rectangle("fail", x, wide, failed)] if failed else []
        if drawn:
            parts.append(Markup("<g><title>{}</title>{}</g>").format(bar.title, Markup().join(drawn)))
    return _picture("chart", _WIDTH, _HEIGHT, told, parts)


def spark(bars: Sequence[tuple[int, int]], told: str) -> Markup:
    """The same for a row of a table: (runs, failed) each. Nothing when there are none."""
    peak = max((max(pair) for pair in bars), default=0)
    if not peak:
        return Markup()
    step = _SPARK_WIDTH / len(bars)
    drawn = []
    for kind, values in (("run", [max(pair) for pair in bars]), ("fail", [failed for _, failed in bars])):
        path = "".join(
            f"M{number * step:.0f} {_SPARK_HEIGHT}v-{max(1.5, value / peak * _SPARK_HEIGHT):.1f}h{step * 0.8:.1f}"
            f"V{_SPARK_HEIGHT}z"
            for number, value in enumerate(values)
            if value
        )
        if path:
            drawn.append(Markup('<path class="{}" d="{}"/>').format(kind, path))
    return _picture("chart spark", _SPARK_WIDTH, _SPARK_HEIGHT, told, drawn)


def line(points: Sequence[Point], told: str) -> Markup:
    """One value over time, from 0. Gaps stay gaps; nothing when nothing was measured."""
    known = [point.value for point in points if point.value is not None]
    if not known:
        return Markup()
    step, peak = _WIDTH / len(points), max(known) or 1.0
    hit = Markup('<g><title>{}</title><rect class="hit" x="{:.1f}" y="0" width="{:.1f}" height="{}"/></g>')
    parts = [
        hit.format(point.title, number * step, step, _HEIGHT)
        for number, point in enumerate(points)
        if point.value is not None
    ]
    trace = Markup('<path class="axis" d="M0 {}H{}"/><path class="trace" d="{}"/>')
    return _picture("chart", _WIDTH, _HEIGHT, told, [*parts, trace.format(_HEIGHT, _WIDTH, _path(points, step, peak))])


def lines(curves: Sequence[Sequence[Point]], titles: Sequence[str], told: str) -> Markup:
    """Up to three values over time on one scale from 0, one ``titles`` for each span of time."""
    known = [point.value for curve in curves for point in curve if point.value is not None]
    if not known:
        return Markup()
    step, peak = _WIDTH / len(titles), max(known) or 1.0
    hit = Markup('<g><title>{}</title><rect class="hit" x="{:.1f}" y="0" width="{:.1f}" height="{}"/></g>')
    parts = [hit.format(title, number * step, step, _HEIGHT) for number, title in enumerate(titles) if title]
    parts.append(Markup('<path class="axis" d="M0 {}H{}"/>').format(_HEIGHT, _WIDTH))
    parts += [
        Markup('<path class="trace {}" d="{}"/>').format(name, _path(curve, step, peak))
        for name, curve in zip(_TRACES, curves, strict=False)
    ]
    return _picture("chart", _WIDTH, _HEIGHT, told, parts)


def _path(points: Sequence[Point], step: float, peak: float) -> str:
    path, pen = [], "M"
    for number, point in enumerate(points):
        if point.value is None:
            pen = "M"
            continue
        x, y = number * step + step / 2, _HEIGHT - point.value / peak * (_HEIGHT - 6)
        # A value between two gaps is a short line: a point would not be seen.
        path.append(f"{pen}{x:.0f} {y:.1f}" + (f"h{min(step / 2, 3):.1f}" if pen == "M" else ""))
        pen = "L"
    return "".join(path)


def _picture(kind: str, wide: int, tall: int, told: str, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg class="{}" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(kind, wide, tall, told, Markup().join(parts))


def _ground(bars: Sequence[Bar], step: float) -> Markup:
    marked = [number for number, bar in enumerate(bars) if bar.marked]
    axis = Markup('<path class="axis" d="M0 {}H{}"/>').format(_HEIGHT, _WIDTH)
    if not marked:
        return axis
    x, wide = marked[0] * step, (marked[-1] - marked[0] + 1) * step
    ground = Markup('<rect class="mark" x="{:.1f}" y="0" width="{:.1f}" height="{}"/>')
    return ground.format(x, wide, _HEIGHT) + axis


def _rectangle(kind: str, x: float, wide: float, tall: float) -> Markup:
    shape = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    return shape.format(kind, x, _HEIGHT - tall, wide, tall)


def _tall(value: int, peak: int) -> float:
    return max(_LEAST, value / peak * (_HEIGHT - 4)) if value else 0.0
