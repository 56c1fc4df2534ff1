"""Runs one benchmark alternately in two checkouts: is this checkout slower than an older one?

    PYTHONPATH=. python bench/compare.py OLD_CHECKOUT NAME [--rounds 5] [-- arguments of the benchmark]

Each checkout needs its own .venv (`make setup`). Both run ``bench/NAME.py`` once in each round, in alternating order,
so that other work on the machine affects both. Lines that differ only in their numbers are compared: for each number,
the ratio of the medians, new to old, is printed. The last line is the CPU time of all processes that the benchmark
started, which depends least on other work. For example, to see whether the core became slower:

    git worktree add /tmp/old v0.1.0 && make -C /tmp/old setup
    PYTHONPATH=. python bench/compare.py /tmp/old core
"""

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_NUMBER: Final = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")
CPU: Final = "CPU time of everything: # s"

Numbers = dict[str, list[float]]
"""Line with ``#`` instead of numbers → its numbers. Repeated lines are numbered."""


def run(checkout: Path, name: str, arguments: Sequence[str]) -> Numbers:
    """Run the benchmark in a checkout and return its output. Raises SystemExit with the output if it fails."""
    before = _cpu_of_children()
    command = [str(checkout / ".venv/bin/python"), f"bench/{name}.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode} in {checkout}:\n{done.stdout}{done.stderr}")
    return {**numbers(done.stdout), CPU: [_cpu_of_children() - before]}


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def numbers(output: str) -> Numbers:
    """The numbers of each line."""
    found: Numbers = {}
    for line in output.splitlines():
        text = " ".join(_NUMBER.sub("#", line).split())
        key, times = text, 1
        while key in found:
            times += 1
            key = f"{text} ({times})"
        found[key] = [float(number.replace(",", "")) for number in _NUMBER.findall(line)]
    return found


def report(old: Sequence[Numbers], new: Sequence[Numbers]) -> list[str]:
    """One line for each number that all runs printed."""
    lines = []
    for key in new[0]:
        if not all(key in one and len(one[key]) == len(new[0][key]) for one in (*old, *new)):
            lines.append(f"       only in one of them: {key}")
            continue
        for position in range(len(new[0][key])):
            before, after = (statistics.median(one[key][position] for one in runs) for runs in (old, new))
            ratio = f"{after / before:5.2f}" if before else "    -"
            lines.append(f"{ratio}  {before:12,.6g} -> {after:12,.6g}  number {position + 1} of: {key}")
    return lines


def main() -> None:
    """Compare the checkouts and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="the older checkout")
    parser.add_argument("name", help="of the benchmark, such as core")
    parser.add_argument("--rounds", type=int, default=5)
    own, passed = (sys.argv[1:], [])
    if "--" in own:
        own, passed = own[: own.index("--")], own[own.index("--") + 1 :]
    arguments = parser.parse_args(own)
    checkouts = {"old": arguments.old.resolve(), "new": Path.cwd()}
    for checkout in checkouts.values():
        for needed in (checkout / ".venv/bin/python", checkout / "bench" / f"{arguments.name}.py"):
            if not needed.exists():
                sys.exit(f"{needed} is missing: both checkouts need the benchmark and `make setup`")
    runs: dict[str, list[Numbers]] = {"old": [], "new": []}
    for number in range(arguments.rounds):
        for which in ("old", "new") if number % 2 == 0 else ("new", "old"):
            runs[which].append(run(checkouts[which], arguments.name, passed))
            print(f"round {number + 1} of {arguments.rounds}, {which}", file=sys.stderr, flush=True)
    print("\n".join(report(runs["old"], runs["new"])))


if __name__ == "__main__":
    main()
