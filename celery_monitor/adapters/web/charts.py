"""Charts as inline SVG: pure functions of numbers, each with a text alternative.

Colours come from classes in the style sheet, because the content security policy forbids inline styles. The charts
contain no text, because they are stretched to the available width, which would distort it. Hovering over a bar shows
its title.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

_WIDTH: Final = 720
_HEIGHT: Final = 100
_LEAST: Final = 2.0
"""Height of the smallest nonzero bar."""
_SPARK_WIDTH: Final = 96
_SPARK_HEIGHT: Final = 20
_AXIS: Final = f'<path class="axis" d="M0 {_HEIGHT}H{_WIDTH}"/>'
_TRACES: Final = ("first", "second", "third")
"""CSS classes of the lines of a chart."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One time span of a bar chart."""

    title: str
    """Time and values, shown on hover."""
    runs: int
    failed: int
    marked: bool = False
    """Whether it is highlighted, because the page is about this time."""


@dataclass(frozen=True, slots=True)
class Point:
    """One time span of a line chart; ``value`` is None if nothing was measured."""

    title: str
    value: float | None


def strip(bars: Sequence[Bar], description: str) -> Markup:
    """A bar chart of runs by time, with the failed part of each bar in red. ``description``: text alternative."""
    if not bars:
        return Markup()
    step = _WIDTH / len(bars)
    peak = max(max(bar.runs, bar.failed) for bar in bars) or 1
    parts = [_ground(bars, step)]
    for number, bar in enumerate(bars):
        runs, failed = _tall(max(bar.runs, bar.failed), peak), _tall(bar.failed, peak)
        x, wide = number * step + step * 0.1, step * 0.8
        drawn = _rectangle("run", x, wide, runs) if runs > failed else ""
        drawn += _rectangle("fail", x, wide, failed) if failed else ""
        if drawn:
            parts.append(f"<g><title>{escape(bar.title)}</title>{drawn}</g>")
    return _picture("chart", _WIDTH, _HEIGHT, description, parts)


def sparkline(bars: Sequence[tuple[int, int]], description: str) -> Markup:
    """A small bar chart of (runs, failed) for a table row. Empty if there are no runs."""
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
            drawn.append(f'<path class="{kind}" d="{path}"/>')
    return _picture("chart spark", _SPARK_WIDTH, _SPARK_HEIGHT, description, drawn)


def line(points: Sequence[Point], description: str) -> Markup:
    """A line chart of one value, from 0, with gaps for missing values. Empty if nothing was measured."""
    known = [point.value for point in points if point.value is not None]
    if not known:
        return Markup()
    step, peak = _WIDTH / len(points), max(known) or 1.0
    parts = [_hit(point.title, number, step) for number, point in enumerate(points) if point.value is not None]
    parts += [_AXIS, f'<path class="trace" d="{_path(points, step, peak)}"/>']
    return _picture("chart", _WIDTH, _HEIGHT, description, parts)


def lines(curves: Sequence[Sequence[Point]], titles: Sequence[str], description: str) -> Markup:
    """A line chart of up to three values on one scale from 0, with a title for each time span."""
    known = [point.value for curve in curves for point in curve if point.value is not None]
    if not known:
        return Markup()
    step, peak = _WIDTH / len(titles), max(known) or 1.0
    parts = [_hit(title, number, step) for number, title in enumerate(titles) if title]
    parts.append(_AXIS)
    parts += [
        f'<path class="trace {name}" d="{_path(curve, step, peak)}"/>'
        for name, curve in zip(_TRACES, curves, strict=False)
    ]
    return _picture("chart", _WIDTH, _HEIGHT, description, parts)


def _path(points: Sequence[Point], step: float, peak: float) -> str:
    path, pen = [], "M"
    for number, point in enumerate(points):
        if point.value is None:
            pen = "M"
            continue
        x, y = number * step + step / 2, _HEIGHT - point.value / peak * (_HEIGHT - 6)
        # A single value between two gaps is drawn as a short line, as a point would be invisible.
        path.append(f"{pen}{x:.0f} {y:.1f}" + (f"h{min(step / 2, 3):.1f}" if pen == "M" else ""))
        pen = "L"
    return "".join(path)


def _picture(kind: str, wide: int, tall: int, description: str, parts: Sequence[str]) -> Markup:
    """The SVG of ``parts``, which are markup with escaped texts."""
    return Markup(  # noqa: S704 - see above; Markup.format took half of a page's time
        f'<svg class="{kind}" viewBox="0 0 {wide} {tall}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(description)}">{"".join(parts)}</svg>'
    )


def _ground(bars: Sequence[Bar], step: float) -> str:
    marked = [number for number, bar in enumerate(bars) if bar.marked]
    if not marked:
        return _AXIS
    x, wide = marked[0] * step, (marked[-1] - marked[0] + 1) * step
    return f'<rect class="mark" x="{x:.1f}" y="0" width="{wide:.1f}" height="{_HEIGHT}"/>{_AXIS}'


def _hit(title: str, number: int, step: float) -> str:
    """The invisible area that shows the title on hover."""
    shape = f'<rect class="hit" x="{number * step:.1f}" y="0" width="{step:.1f}" height="{_HEIGHT}"/>'
    return f"<g><title>{escape(title)}</title>{shape}</g>"


def _rectangle(kind: str, x: float, wide: float, tall: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{_HEIGHT - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}"/>'


def _tall(value: int, peak: int) -> float:
    return max(_LEAST, value / peak * (_HEIGHT - 4)) if value else 0.0
