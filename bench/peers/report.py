"""The section "peers" of docs/benchmarks.md and its plots, from the measurements of bench/side_by_side.py."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from bench import pages, paging
from bench.peers.measure import FLAT_OUT
from bench.peers.readers import READERS, versions
from bench.peers.results import Results

OURS: Final = "celery-monitor"
PEER: Final = "celery-exporter"
_ENOUGH: Final = 0.95
_NUMBER_WORDS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

Row = Mapping[str, Any]
"""The fields of measure.Measured."""


def medians(found: Iterable[Row]) -> list[dict[str, Any]]:
    """One row per reader and stream, with the median of each figure over the runs and the extremes in ``spread``."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in found:
        groups.setdefault((row["broker"], row["rate"], row["per_message"], row["reader"]), []).append(row)
    return [_median(rows) for rows in groups.values()]


def _median(rows: Sequence[Row]) -> dict[str, Any]:
    answered = [r for r in rows if r["counted"] is not None]
    row = dict((answered or rows)[0])
    row["answered"], row["runs"], row["spread"] = len(answered), len(rows), {}
    lost = [1 - r["counted"] / r["published"] if r["published"] else 0.0 for r in answered]
    row["lost"] = statistics.median(lost) if lost else None
    for field in ("cpu_per_event", "cpu_share", "resident", "scrape", "reached"):
        numbers = [r[field] for r in answered if r[field] is not None]
        row[field] = statistics.median(numbers) if numbers else None
        row["spread"][field] = (min(numbers), max(numbers)) if len(numbers) > 1 else None
    return row


def _of(rows: Sequence[Row], **wanted: object) -> dict[str, Row]:
    """The rows of one stream by reader."""
    return {r["reader"]: r for r in rows if all(r[field] == value for field, value in wanted.items())}


def stream(row: Row) -> str:
    """The description of a stream."""
    if row["rate"] == 0:
        return "idle"
    events = "1 event" if row["per_message"] == 1 else f"{row['per_message']} events"
    rate = "flat out" if row["rate"] == FLAT_OUT else f"{row['rate']:,} events/s"
    return f"{rate}, {events} per message"


def _figure(row: Row) -> tuple[str, float, str]:
    """The figure by which readers are compared on a stream: the field, its scale and its unit."""
    return ("cpu_per_event", 1e6, " µs") if row["rate"] == FLAT_OUT else ("cpu_share", 100.0, " %")


def too_slow(row: Row) -> bool:
    """Whether the machine was too busy for a steady load."""
    return row["reached"] is not None and row["reached"] < _ENOUGH * row["rate"]


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if not row["answered"]:
        return "did not answer"
    if row["rate"] and not row["counted"]:
        return "nothing counted"
    field, scale, unit = _figure(row)
    digits = 1 if row["rate"] else 2
    text = f"{row[field] * scale:.{digits}f}{unit}"
    notes = []
    if spread := row["spread"][field]:
        notes.append(" to ".join(f"{value * scale:.{digits}f}" for value in spread))
    if too_slow(row):
        notes.append(f"at {row['reached']:,.0f} events/s")
    if row["lost"] >= 0.005:
        notes.append(f"lost {100 * row['lost']:.0f} %")
    if silent := row["runs"] - row["answered"]:
        notes.append(f"did not answer in {silent} of {row['runs']} runs")
    return text + (f" ({', '.join(notes)})" if notes else "")


def _ratio(found: Sequence[Row]) -> str:
    """The ratio for one stream: the median of the ratios of the runs."""
    runs: dict[int, dict[str, Row]] = {}
    for row in found:
        runs.setdefault(row["run"], {})[row["reader"]] = row
    ratios = []
    for readers in runs.values():
        ours, theirs = readers.get(OURS), readers.get(PEER)
        if ours and theirs and ours["cpu_per_event"] and theirs["cpu_per_event"]:
            ratios.append(theirs["cpu_per_event"] / ours["cpu_per_event"])
    if not ratios:
        return ""
    spread = f" ({min(ratios):.1f} to {max(ratios):.1f})" if len(ratios) > 1 else ""
    return f"{statistics.median(ratios):.1f} times{spread}"


def table(found: Sequence[Row]) -> str:
    """The table of CPU time: per event for a flat-out load, otherwise as a share of one core."""
    rows = medians(found)
    names = _readers(rows)
    lines = [f"| Broker | Stream | {' | '.join(names)} | {PEER} takes |"]
    lines.append("|---" * (len(names) + 3) + "|")
    order = dict.fromkeys((r["broker"], r["rate"], r["per_message"]) for r in rows)
    for broker, rate, per_message in order:
        wanted = {"broker": broker, "rate": rate, "per_message": per_message}
        group = _of(rows, **wanted)
        cells = " | ".join(_cell(group.get(name)) for name in names)
        own = [row for row in found if all(row[field] == value for field, value in wanted.items())]
        lines.append(f"| {broker} | {stream(next(iter(group.values())))} | {cells} | {_ratio(own)} |")
    return "\n".join(lines)


def _readers(rows: Sequence[Row]) -> list[str]:
    """The measured readers in their order."""
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
            cells.append(cell + (f", scrape {1000 * statistics.median(scrapes):,.0f} ms" if scrapes else ""))
        lines.append(f"| {broker} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def line(row: Row) -> str:
    """A line about one measurement, for the progress output."""
    text = f"{row['broker']:<9}{stream(row):<38}{row['reader']:<16}"
    if row["counted"] is None:
        return text + "did not answer"
    if row["cpu_per_event"] is not None:
        lost = row["published"] - row["counted"]
        text += f"{row['cpu_per_event'] * 1e6:6.1f} µs an event, lost {lost:,}, "
    if too_slow(row):
        text += f"ONLY {row['reached']:,.0f} events/s: the machine is too busy, "
    return text + f"{100 * row['cpu_share']:.2f} % of a core, {row['resident'] / 1e6:.0f} MB"


def console(results: Results) -> str:
    """The medians, for the terminal."""
    parts = [table(results.streams), losses(results.streams), *paging_sentences(results.pages)]
    return "\n".join([*parts, f"It took {results.seconds / 60:.1f} minutes."])


def losses(found: Sequence[Row]) -> str:
    """The exact number of events that this daemon did not count."""
    own = [row for row in found if row["reader"] == OURS and row["counted"] is not None]
    published, counted = (sum(row[field] for row in own) for field in ("published", "counted"))
    return f"celery-monitor lost {published - counted:,} of {published:,} events."


def paging_sentences(pages: Mapping[str, Sequence[Sequence[float]]]) -> list[str]:
    """A sentence for each broker about the pages of all runs."""
    sentences = []
    for broker, runs in pages.items():
        took = sorted(seconds for run in runs for seconds in run)
        middle, late = (paging.quantile(took, share) for share in (0.5, 0.99))
        sentences.append(
            f"From a failure to the request to PagerDuty, beside 1,000 events/s on {broker} ({len(took)} pages): "
            f"median {middle:.2f} s, 99th percentile {late:.2f} s, longest {took[-1]:.2f} s."
        )
    return sentences


def chart(title: str, unit: str, bars: Sequence[tuple[str, str, float]]) -> str:
    """An SVG of horizontal bars: label, reader, number. It suits light and dark pages."""
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


def write(results: Results) -> None:
    """Write the page and its plots."""
    rows = medians(results.streams)
    plots = {
        "benchmark-flat-out": ("CPU time per event, flat out", "µs", FLAT_OUT, "cpu_per_event", 1e6),
        "benchmark-steady": ("CPU at a steady 1,000 events/s", "% of a core", 1000, "cpu_share", 100.0),
    }
    pictures = []
    for name, (title, unit, rate, field, scale) in plots.items():
        if bars := _bars(rows, rate, field, scale):
            (pages.IMAGES / f"{name}.svg").write_text(chart(title, unit, bars))
            pictures.append(f"![{title}](images/{name}.svg)")
    runs = max(row["runs"] for row in rows)
    word = _NUMBER_WORDS[runs] if runs < len(_NUMBER_WORDS) else str(runs)
    text = _TEXT.format(
        machine=results.machine,
        size=results.size,
        runs="One run"
        if runs == 1
        else f"{word.capitalize()} runs: each figure is the median, with the smallest and the largest in parentheses",
        versions="\n".join(f"- {name}: {text}" for name, text in versions().items() if name in _readers(rows)),
        pictures="\n\n".join(pictures),
        table=table(results.streams),
        memory=_memory(rows),
        losses=losses(results.streams),
        paging="\n".join(f"- {sentence}" for sentence in paging_sentences(results.pages)),
    )
    pages.replace_part("peers", text)


_TEXT: Final = """\
Measured {machine} with {size}. The broker and the publisher share the cores with the reader. {runs}.

{versions}

{table}

{pictures}

- {losses}
{paging}

### Memory and scrapes

The largest resident memory over all streams, and the median time of one scrape of `/metrics` after the load.

{memory}
"""
