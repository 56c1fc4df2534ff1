"""What each campaign did: one line of JSON in build/campaigns.jsonl, from which bench/campaign.py writes its report.

A campaign's seed and its figures are given by the test itself, with ``seed`` and ``figures``; pytest gives the rest.
CAMPAIGN_RECORD in the environment names another file, so that runs in several checkouts can share one. A campaign that
is interrupted leaves no line.
"""

import json
import os
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

_MAX_MESSAGE: Final = 500


@dataclass
class Outcome:
    """One campaign with one seed."""

    test: str
    """Its node id, without ``tests/``."""
    began: str
    """UTC, ISO 8601."""
    commit: str
    """With ``-dirty`` where the checkout had changes; empty outside of a checkout."""
    load: float
    """Load average of the machine over the minute before."""
    result: str = "passed"
    """``passed``, ``failed`` or ``skipped``."""
    seconds: float = 0.0
    """Without setting up its fixtures."""
    seed: int | None = None
    figures: list[dict[str, Any]] = field(default_factory=list)
    """Each has a ``name``: what the others were measured at."""
    message: str = ""
    """Why it failed, in one line."""


_current: list[Outcome] = []
"""The campaign that runs, if one does."""


def seed(value: int) -> None:
    """Note and print the seed of the running test."""
    print(f"CAMPAIGN_SEED={value}")  # noqa: T201 - pytest shows it with a failure
    for outcome in _current:
        outcome.seed = value


def figures(name: str, **values: float | str) -> None:
    """Note and print what the running test did and measured at ``name``. ``_`` in the names of figures are spaces."""
    print(f"{name}: {sentence(values)}")  # noqa: T201 - pytest shows it with a failure
    for outcome in _current:
        outcome.figures.append({"name": name, **values})


def sentence(values: dict[str, Any]) -> str:
    """Figures in words: ``462,500 events, 0 off``; texts come behind their name."""
    return ", ".join(_in_words(name.replace("_", " "), value) for name, value in values.items())


def _in_words(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return f"{name} {value}"
    if value == 1:
        return f"1 {name.removesuffix('s')}"
    return f"{int(value):,} {name}" if value == int(value) else f"{value:,.4g} {name}"


def begin(item: pytest.Item) -> None:
    """Before the test's fixtures are set up."""
    _current.clear()
    if item.get_closest_marker("campaign") is not None:
        began = datetime.now(UTC).isoformat(timespec="seconds")
        _current.append(Outcome(item.nodeid.removeprefix("tests/"), began, _commit(), os.getloadavg()[0]))


def report(item: pytest.Item, report: pytest.TestReport) -> None:
    """After each phase of the test; after the last one its line is written."""
    for outcome in _current:
        if report.when == "call":
            outcome.seconds = round(report.duration, 1)
        if report.outcome != "passed" and outcome.result != "failed":
            outcome.result, outcome.message = report.outcome, _message(report)
        if report.when == "teardown":
            _write(item.config.rootpath, outcome)
            _current.clear()
            break


def _message(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    return " ".join(text.split())[:_MAX_MESSAGE]


def _write(root: Path, outcome: Outcome) -> None:
    """In one write, because several processes of pytest may append."""
    path = Path(os.environ.get("CAMPAIGN_RECORD") or root / "build" / "campaigns.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(outcome)) + "\n"
    with path.open("ab", buffering=0) as file:
        file.write(line.encode())


@cache
def _commit() -> str:
    """What is checked out as the first campaign begins."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return found.stdout.strip()
