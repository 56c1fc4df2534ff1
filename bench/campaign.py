"""Runs every campaign of the tests with several seeds, and reports the results.

    PYTHONPATH=. python bench/campaign.py [--seeds 1 2 3] [--select EXPRESSION] [--paths tests/e2e ...] [--write]
    PYTHONPATH=. python bench/campaign.py --from build/campaigns.jsonl [more files] [--write]

A campaign kills, freezes and fills the daemon's dependencies at random moments determined by the seed (CAMPAIGN_SEED).
Afterwards all counts must be exact, and each page and each mail must have been sent once. ``--select`` is pytest's -k.
All campaigns together take hours for each seed. Every campaign that pytest runs, from here or not, writes a line to
build/campaigns.jsonl (tests/outcomes.py). ``--from`` runs nothing and reports the contents of such files, so that
campaigns of different days and checkouts can be combined. The exit status is 1 if a campaign failed. ``--write`` writes
the report to docs/benchmarks.md.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bench import pages
from tests.outcomes import Outcome, sentence

_PYTEST: Final = ("-m", "campaign", "--timeout", "0", "-o", "faulthandler_timeout=0", "-v")
_NO_TEST: Final = 5
"""Exit status of pytest if it selected nothing."""
_MAX_MESSAGE: Final = 200


def run(seeds: Sequence[int], arguments: argparse.Namespace) -> Path:
    """Run all selected campaigns with each seed. Returns the file of outcomes. Raises SystemExit if there is none."""
    record = Path("build", "campaigns-run.jsonl").absolute()
    record.parent.mkdir(exist_ok=True)
    record.write_text("")
    command = [sys.executable, "-m", "pytest", *arguments.paths, *_PYTEST]
    if arguments.select:
        command += ["-k", arguments.select]
    for seed in seeds:
        environment = {**os.environ, "CAMPAIGN_SEED": str(seed), "CAMPAIGN_RECORD": str(record)}
        done = subprocess.run(command, env=environment, check=False)
        if done.returncode == _NO_TEST:
            sys.exit(f"No campaign is selected by {arguments.select!r} in {' '.join(arguments.paths)}.")
        if not record.stat().st_size:
            sys.exit(f"pytest ended with {done.returncode} and recorded no campaign in {record}.")
    return record


def read(paths: Sequence[Path]) -> Iterator[Outcome]:
    """The outcomes in these files, in the order of the lines. Raises SystemExit for an invalid line."""
    for path in paths:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            try:
                yield Outcome(**json.loads(line))
            except (TypeError, ValueError) as exc:
                sys.exit(f"{path}, line {number} is not the outcome of a campaign: {exc}")


def section(outcomes: Sequence[Outcome]) -> str:
    """The section of the page: each run that failed or has figures, and the number of the others by module."""
    ordered = sorted(outcomes, key=lambda one: (one.test, one.seed or 0, one.began))
    told = [one for one in ordered if one.figures or one.result == "failed"]
    rest = [one for one in ordered if not one.figures and one.result != "failed"]
    parts = [_summary(outcomes)]
    if told:
        rows = [row for one in told for row in _rows(one)]
        parts.append(
            _table(("Campaign", "Seed", "Result", "Minutes", "Load", "Commit", "What it did"), rows, (0, 2, 5, 6))
        )
    if rest:
        parts += ["Campaigns without figures of their own:", _table(_HEAD, _by_module(rest), (0, 4, 5))]
    return "\n\n".join(parts)


_HEAD: Final = ("Module", "Passed", "Skipped", "Minutes", "Seeds", "Commits")


def _summary(outcomes: Sequence[Outcome]) -> str:
    results = Counter(one.result for one in outcomes)
    days = sorted({one.began[:10] for one in outcomes})
    when = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "never"
    hours = sum(one.seconds for one in outcomes) / 3600
    counted = ", ".join(f"{results[result]} {result}" for result in ("passed", "failed", "skipped"))
    return (
        f"Run {when} {pages.where()}: {len(outcomes)} runs, {hours:.1f} hours, {counted}. *Load* is the machine's load "
        "average as the campaign began; several ran at the same time."
    )


def _rows(one: Outcome) -> Iterator[list[object]]:
    """The rows of a run: one for each figure, and one with the reason if it failed."""
    run = ["" if one.seed is None else one.seed, one.result, f"{one.seconds / 60:.1f}", f"{one.load:.1f}", one.commit]
    for figures in one.figures:
        values = {name: value for name, value in figures.items() if name != "name"}
        yield [f"`{_name(one.test)}`", *run, f"{figures['name']}: {sentence(values)}"]
    if one.result == "failed":
        yield [f"`{_name(one.test)}`", *run, f"failed: `{one.message[:_MAX_MESSAGE].replace('`', '')}`"]


def _by_module(outcomes: Sequence[Outcome]) -> Iterator[list[object]]:
    for module in dict.fromkeys(one.test.partition("::")[0] for one in outcomes):
        own = [one for one in outcomes if one.test.partition("::")[0] == module]
        results = Counter(one.result for one in own)
        seeds = ", ".join(str(seed) for seed in sorted({one.seed for one in own if one.seed is not None}))
        commits = ", ".join(dict.fromkeys(one.commit for one in own))
        minutes = f"{sum(one.seconds for one in own) / 60:.1f}"
        yield [f"`{module}`", results["passed"], results["skipped"], minutes, seeds, commits]


def _name(test: str) -> str:
    """``e2e/test_crashes.py::test_killed_daemon[long]`` → ``test_crashes: killed_daemon[long]``."""
    module, _, function = test.partition("::")
    return f"{Path(module).stem}: {function.removeprefix('test_')}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], text: Collection[int]) -> str:
    return pages.table(head, [[str(cell).replace("|", "\\|") for cell in row] for row in rows], text=text)


def main() -> None:
    """Run the campaigns or read the files, print the report, and write it if requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--select", default="", help="pytest's -k")
    parser.add_argument("--paths", nargs="+", default=["tests"])
    parser.add_argument("--from", dest="files", type=Path, nargs="+", help="report these outcomes, and run nothing")
    parser.add_argument("--write", action="store_true", help="write the part of docs/benchmarks.md")
    arguments = parser.parse_args()
    outcomes = list(read(arguments.files or [run(arguments.seeds, arguments)]))
    text = section(outcomes)
    print(text)
    if arguments.write:
        pages.replace_part("campaign", text)
    sys.exit(any(outcome.result == "failed" for outcome in outcomes))


if __name__ == "__main__":
    main()
