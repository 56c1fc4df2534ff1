"""Every campaign of the tests, with several seeds, and a report of them.

    PYTHONPATH=. python bench/campaign.py [--seeds 1 2 3] [--select EXPRESSION] [--paths tests/e2e ...] [--write]

A campaign kills, freezes and fills what the daemon depends on, at moments drawn from the seed (CAMPAIGN_SEED), and then
requires exact counts, each page once and each mail once. ``--select`` is pytest's -k. All of them take hours for
each seed. The exit status is 1 when one failed. ``--write`` puts the report into docs/benchmarks.md.
"""

import argparse
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import pages

_PYTEST: Final = ("-m", "campaign", "--timeout", "0", "-o", "faulthandler_timeout=0", "-o", "junit_logging=system-out")
_NO_TEST: Final = 5
"""Exit status of pytest that selected nothing."""
_MAX_SAID: Final = 300


@dataclass(frozen=True)
class Outcome:
    """One campaign with one seed."""

    seed: int
    name: str
    result: str
    """``passed``, ``failed`` or ``skipped``."""
    seconds: float
    said: str
    """The last line that it printed: what it did, and what it measured."""


def run(seed: int, arguments: argparse.Namespace) -> Iterator[Outcome]:
    """All selected campaigns with one seed. Raises SystemExit when there is none."""
    report = Path("build", f"campaign-{seed}.xml")
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", *arguments.paths, *_PYTEST, "-v", f"--junit-xml={report}"]
    if arguments.select:
        command += ["-k", arguments.select]
    done = subprocess.run(command, env={**os.environ, "CAMPAIGN_SEED": str(seed)}, check=False)
    if done.returncode == _NO_TEST:
        sys.exit(f"no campaign is selected by {arguments.select!r} in {' '.join(arguments.paths)}")
    if not report.exists():
        sys.exit(f"pytest ended with {done.returncode} and wrote no report")
    return outcomes(seed, report)


def outcomes(seed: int, report: Path) -> Iterator[Outcome]:
    """Those in a report of pytest."""
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it
        kinds = {child.tag for child in case}
        result = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        lines = [line for line in (case.findtext("system-out") or "").splitlines() if line.strip("- ")]
        said = next((line for line in reversed(lines) if not line.startswith(("CAMPAIGN_SEED", "---"))), "")
        module = case.get("classname", "").removeprefix("tests.")
        yield Outcome(seed, f"{module}: {case.get('name')}", result, float(case.get("time", 0)), said[:_MAX_SAID])


def section(found: Sequence[Outcome], seeds: Sequence[int]) -> str:
    """For the page: a row for each campaign, with its results in the order of the seeds."""
    rows = []
    for name in dict.fromkeys(outcome.name for outcome in found):
        own = [outcome for outcome in found if outcome.name == name]
        results = ", ".join(outcome.result for outcome in own)
        rows.append([f"`{name}`", results, f"{max(outcome.seconds for outcome in own):,.0f}", own[-1].said])
    failed = sum(outcome.result == "failed" for outcome in found)
    seconds = sum(outcome.seconds for outcome in found)
    verdict = f"{len(found)} runs in {seconds / 3600:.1f} hours: " + (f"{failed} failed." if failed else "none failed.")
    said = f"Seeds {', '.join(map(str, seeds))}. Run {pages.machine()} by `bench/campaign.py`. {verdict}"
    escaped = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return f"{said}\n\n{pages.table(('Campaign', 'Results', 'Seconds', 'Last line of the last run'), escaped)}"


def main() -> None:
    """Run, report, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--select", default="", help="pytest's -k")
    parser.add_argument("--paths", nargs="+", default=["tests"])
    parser.add_argument("--write", action="store_true", help="write the part of docs/benchmarks.md")
    arguments = parser.parse_args()
    found = [outcome for seed in arguments.seeds for outcome in run(seed, arguments)]
    text = section(found, arguments.seeds)
    print(text)
    if arguments.write:
        pages.replace_part("campaign", text)
    sys.exit(any(outcome.result == "failed" for outcome in found))


if __name__ == "__main__":
    main()
