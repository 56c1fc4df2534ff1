"""The part "peers" of docs/benchmarks.md and its plots, from the measurements of bench/side_by_side.py."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from bench import pages
from bench.peers.readers import READERS, versions

FLAT_OUT: Final = 10**9
OURS: Final = "celery-monitor"

Row = Mapping[str, Any]
"""The fields of side_by_side.Measured."""


def medians(found: Iterable[Row]) -> list[dict[str, Any]]:
    """One row for each reader and stream, each figure the median over the runs."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in found:
        groups.setdefault((row["broker"], row["rate"], row["per_message"], row["reader"]), []).append(row)
    return [_median(rows) for rows in groups.values()]


def _median(rows: Sequence[Row]) -> dict[str, Any]:
    answered = [r for r in rows if r["counted"] is not None]
    row = dict((answered or rows)[0])
    row["answered"], row["runs"] = len(answered), len(rows)
    lost = [1 - r["counted"] / r["published"] if r["published"] else 0.0 for r in answered]
    row["lost"] = statistics.median(lost) if lost else None
    for field in ("cpu_per_event", "cpu_share", "resident", "scrape"):
        numbers = [r[field] for r in answered if r[field] is not None]
        row[field] = statistics.median(numbers) if numbers else None
    return row


def _of(rows: Sequence[Row], **wanted: object) -> dict[str, Row]:
    """Reader → row, of one stream."""
    return {r["reader"]: r for r in rows if all(r[field] == value for field, value in wanted.items())}


def stream(row: Row) -> str:
    """The stream in words."""
    if row["rate"] == 0:
        return "idle"
    events = "1 event" if row["per_message"] == 1 else f"{row['per_message']} events"
    rate = "flat out" if row["rate"] == FLAT_OUT else f"{row['rate']:,} events/s"
    return f"{rate}, {events} per message"


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if not row["answered"]:
        return "did not answer"
    if row["rate"] and not row["counted"]:
        return "nothing counted"
    if row["rate"] == FLAT_OUT:
        text = f"{row['cpu_per_event'] * 1e6:.1f} µs"
    else:
        text = f"{100 * row['cpu_share']:.1f} %"
    notes = [f"lost {100 * row['lost']:.0f} %"] if row["lost"] >= 0.005 else []
    if silent := row["runs"] - row["answered"]:
        notes.append(f"did not answer in {silent} of {row['runs']} runs")
    return text + (f" ({', '.join(notes)})" if notes else "")


def _ratio(rows: Mapping[str, Row]) -> str:
    ours, theirs = rows.get(OURS), rows.get("celery-exporter")
    field = "cpu_per_event" if ours and ours["rate"] == FLAT_OUT else "cpu_share"
    if not ours or not theirs or not ours[field] or not theirs[field]:
        return ""
    return f"{theirs[field] / ours[field]:.1f} times"


def table(rows: Sequence[Row]) -> str:
    """Processor time: flat out for each event, else as a share of one core."""
    names = _readers(rows)
    lines = [f"| Broker | Stream | {' | '.join(names)} | celery-exporter takes |"]
    lines.append("|---" * (len(names) + 3) + "|")
    for broker, rate, per_message in dict.fromkeys((r["broker"], r["rate"], r["per_message"]) for r in rows):
        group = _of(rows, broker=broker, rate=rate, per_message=per_message)
        cells = " | ".join(_cell(group.get(name)) for name in names)
        lines.append(f"| {broker} | {stream(next(iter(group.values())))} | {cells} | {_ratio(group)} |")
    return "\n".join(lines)


def _readers(rows: Sequence[Row]) -> list[str]:
    """Those that were measured, in their order."""
    return [name for name in READERS if any(row["reader"] == name for row in rows)]


def _memory(rows: Sequence[Row]) -> str:
    names = _readers(rows)
    lines = ["| Broker | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for broker in dict.fromkeys(r["broker"] for r in rows):
        cells = []
        for name in names:
            own = [r for r in rows if r["broker"] == broker and r["reader"] == name and r["resident"]]
            scrapes = [r["scrape"] for r in own if r["scrape"] is not None]
            cell = f"{max(r['resident'] for r in own) / 1e6:.0f} MB" if own else ""
            cells.append(cell + (f", scrape {1000 * statistics.median(scrapes):.0f} ms" if scrapes else ""))
        lines.append(f"| {broker} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def print_table(found: Iterable[Row]) -> None:
    """The medians, to standard output."""
    print(table(medians(found)))


def chart(title: str, unit: str, bars: Sequence[tuple[str, str, float]]) -> str:
    """An SVG of horizontal bars: label, reader, number. Fits a light and a dark page."""
    longest = max(number for _, _, number in bars)
    parts = []
    top = 40
    for label, reader, number in bars:
        if label:
            top += 10
            parts.append(f'<text x="8" y="{top + 12}" class="group">{escape(label)}</text>')
            top += 20
        width = max(1.0, 400 * number / longest)
        kind = "ours" if reader == OURS else "other"
        parts.append(f'<text x="150" y="{top + 13}" text-anchor="end">{escape(reader)}</text>')
        parts.append(f'<rect x="160" y="{top + 1}" width="{width:.1f}" height="15" class="{kind}"/>')
        parts.append(f'<text x="{166 + width:.1f}" y="{top + 13}">{number:.1f} {escape(unit)}</text>')
        top += 20
    style = (
        "text{font:12px sans-serif;fill:#333}.title{font-size:14px;font-weight:bold}.group{font-weight:bold}"
        ".ours{fill:#2a7d4f}.other{fill:#9aa5b1}@media(prefers-color-scheme:dark){text{fill:#ddd}.ours{fill:#4cc38a}}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 {top + 10}" role="img">'
    name = (
        f'<title>{escape(title)}</title><style>{style}</style><text x="8" y="22" class="title">{escape(title)}</text>'
    )
    return head + name + "".join(parts) + "</svg>\n"


def _bars(rows: Sequence[Row], rate: int, field: str, scale: float) -> list[tuple[str, str, float]]:
    bars = []
    for broker, per_message in dict.fromkeys((r["broker"], r["per_message"]) for r in rows if r["rate"] == rate):
        group = _of(rows, broker=broker, rate=rate, per_message=per_message)
        label = f"{broker}, {stream(next(iter(group.values())))}"
        for name, row in group.items():
            if row[field]:
                bars.append((label, name, row[field] * scale))
                label = ""
    return bars


def write(found: Sequence[Row], runs: int, paging: str) -> None:
    """Write the page and its plots. ``paging``: what is known of the time to a page."""
    rows = medians(found)
    plots = {
        "benchmark-flat-out": ("CPU time per event, flat out", "µs", FLAT_OUT, "cpu_per_event", 1e6),
        "benchmark-steady": ("CPU at a steady 1,000 events/s", "% of a core", 1000, "cpu_share", 100.0),
    }
    pictures = []
    for name, (title, unit, rate, field, scale) in plots.items():
        if bars := _bars(rows, rate, field, scale):
            (pages.IMAGES / f"{name}.svg").write_text(chart(title, unit, bars))
            pictures.append(f"![{title}](images/{name}.svg)")
    text = _TEXT.format(
        machine=pages.machine(),
        versions="\n".join(f"- {name}: {text}" for name, text in versions().items() if name in _readers(rows)),
        runs="One run" if runs == 1 else f"{runs} runs; each figure is the median",
        pictures="\n\n".join(pictures),
        table=table(rows),
        memory=_memory(rows),
        paging=paging,
    )
    pages.replace_part("peers", text)


_TEXT: Final = """\
Measured {machine}; the broker and the publisher share the cores with the reader. {runs}.

{versions}

{table}

{pictures}

{paging}

### Memory and scrapes

The largest resident memory over all streams, and the median time of one scrape of `/metrics` after the load.

{memory}
"""
