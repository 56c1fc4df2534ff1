"""The sections of docs/benchmarks.md that benchmarks write, and the description of the machine."""

import os
import platform
import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

PAGE: Final = Path("docs/benchmarks.md")
IMAGES: Final = Path("docs/images")
_LOAD: Final = os.getloadavg()[0]
"""The load of the minute before the benchmark started, without the benchmark's own load."""


def part(name: str) -> str:
    """The text of the page's section ``name``. Raises ValueError if there is no such section."""
    return _divided(name)[1].strip()


def replace_part(name: str, text: str) -> None:
    """Replace the page's section ``name`` with ``text``. Raises ValueError if there is no such section."""
    before, _, after = _divided(name)
    PAGE.write_text(f"{before}\n\n{text.strip()}\n\n{after}")


def require(*names: str) -> None:
    """Raise SystemExit if the sections cannot be written, before hours of measuring."""
    try:
        for name in names:
            part(name)
        for path in (PAGE, IMAGES):
            if not os.access(path, os.W_OK):
                raise PermissionError(f"{path} cannot be written")
    except (OSError, ValueError) as exc:
        sys.exit(f"{exc}. Run this from the top of a checkout.")


def _divided(name: str) -> tuple[str, str, str]:
    """The text before the section, the section, and the text after it."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, begun, rest = PAGE.read_text().partition(begin)
    text, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"{PAGE} has no part {name!r}: it needs the lines {begin} and {end}")
    return before + begin, text, end + after


def machine() -> str:
    """The date and the machine of a measurement, for a sentence."""
    return f"{datetime.now(UTC).date().isoformat()} {where()}, load average before it {_LOAD:.1f},"


def where() -> str:
    """The machine, for a sentence."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    system = f"{model or platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    return f"on {os.cpu_count()} cores ({system})"


def number(value: float) -> str:
    """A number with three significant digits, and all digits before the decimal point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, text: Collection[int] = (0,)) -> str:
    """A table in Markdown. ``text``: the columns that contain no numbers."""
    lines = [f"| {' | '.join(head)} |"]
    lines.append("|" + "|".join(" --- " if column in text else " ---: " for column in range(len(head))) + "|")
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines)


def line_chart(title: str, axes: tuple[str, str], points: Sequence[tuple[float, float]]) -> str:
    """An SVG with one line from zero, given the units of both axes and the points. It suits light and dark pages."""
    width, height, left, top = 560.0, 200.0, 90.0, 50.0
    most_x, most_y = (max(point[axis] for point in points) or 1.0 for axis in (0, 1))
    most_y *= 1.1
    at = [(left + width * x / most_x, top + height * (1 - y / most_y)) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in at)
    base = top + height
    labels = "".join(
        f'<text x="{left - 8}" y="{base - height * part / 1.1 + 4:.1f}" text-anchor="end">'
        f"{most_y / 1.1 * part:,.4g}</text>"
        for part in (0.0, 0.5, 1.0)
    ) + "".join(
        f'<text x="{left + width * part}" y="{base + 18}" text-anchor="middle">{most_x * part:,.0f}</text>'
        for part in (0.0, 0.5, 1.0)
    )
    style = (
        "text{font:12px sans-serif;fill:#333}.title{font-size:14px;font-weight:bold}path{stroke:#9aa5b1;fill:none}"
        "polyline{stroke:#2a7d4f;stroke-width:2;fill:none}circle{fill:#2a7d4f}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}polyline{stroke:#4cc38a}circle{fill:#4cc38a}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 300" role="img"><title>{escape(title)}</title>'
        f'<style>{style}</style><text x="8" y="22" class="title">{escape(title)}</text>'
        f'<text x="8" y="42">{escape(axes[1])}</text><path d="M{left},{top}V{base}H{left + width}"/>'
        f'<polyline points="{line}"/>{marks}{labels}'
        f'<text x="{left + width}" y="{base + 38}" text-anchor="end">{escape(axes[0])}</text></svg>\n'
    )


def plot(name: str, title: str, axes: tuple[str, str], points: Sequence[tuple[float, float]]) -> str:
    """Write the chart to docs/images/NAME.svg and return the Markdown that shows it."""
    (IMAGES / f"{name}.svg").write_text(line_chart(title, axes, points))
    return f"![{title}](images/{name}.svg)"
