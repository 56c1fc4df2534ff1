"""The record of campaigns and their report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import campaign
from tests.outcomes import Outcome, sentence

_ROOT = Path(__file__).resolve().parents[2]
_TESTS = """
import pytest
from tests import outcomes

@pytest.fixture
def broken_at_the_end():
    yield
    raise OSError("no space left")

@pytest.mark.campaign
def test_fine(): outcomes.seed(7); outcomes.figures("classic", events=462_500, off=0, latest_page="0.3 s")

@pytest.mark.campaign
def test_wrong(): assert 1 == 2, "one | off"

@pytest.mark.campaign
def test_ended_badly(broken_at_the_end): pass

def test_of_every_day(): outcomes.seed(8)
"""


def test_every_campaign_leaves_a_line(tmp_path: Path) -> None:
    """With seed, figures, result and commit, even if its output is not captured; other tests write no line."""
    tests, record = tmp_path / "test_some.py", tmp_path / "record" / "campaigns.jsonl"
    tests.write_text(_TESTS)
    plugin = ["-p", "tests.conftest", "-c", str(_ROOT / "pyproject.toml"), "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", str(tests), *plugin, "-m", "campaign or not campaign", "-s", "-q"]
    environment = {**os.environ, "CAMPAIGN_RECORD": str(record), "PYTHONPATH": str(_ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True)
    outcomes = {one.test.partition("::")[2]: one for one in campaign.read([record])}
    assert {name: one.result for name, one in outcomes.items()} == {
        "test_fine": "passed",
        "test_wrong": "failed",
        "test_ended_badly": "failed",
    }
    fine = outcomes["test_fine"]
    assert fine.seed == 7
    assert fine.figures == [{"name": "classic", "events": 462_500, "off": 0, "latest_page": "0.3 s"}]
    assert "one | off" in outcomes["test_wrong"].message
    assert "no space left" in outcomes["test_ended_badly"].message


def _outcome(test: str, seed: int | None, **more: object) -> Outcome:
    known = {"began": "2026-11-28T00:42:00+00:00", "commit": "4b02c27", "load": 5.0, "seconds": 1800.0}
    return Outcome(test, seed=seed, **{**known, **more})  # type: ignore[arg-type]


def test_the_report_shows_runs_of_several_files(tmp_path: Path) -> None:
    """Each run with figures, each failure with its reason, and the number of the others by module."""
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    replicas = "e2e/test_failover.py::test_one_replica_after_the_other[long]"
    figures = [{"name": "quorum", "events": 462_500, "off": 0, "take-overs": 128}]
    lines = [
        _outcome(replicas, 2, figures=figures),
        _outcome("core/test_schedules.py::test_a_year[3]", None, seconds=60.0),
        _outcome("core/test_schedules.py::test_a_year[4]", None, seconds=60.0),
    ]
    one.write_text("".join(json.dumps(vars(line)) + "\n" for line in lines))
    other.write_text(json.dumps(vars(_outcome(replicas, 1, result="failed", message="a | `b` was 3"))) + "\n")
    text = campaign.section(list(campaign.read([one, other])))
    assert "4 runs, 1.0 hours, 3 passed, 1 failed, 0 skipped" in text
    run = "| `test_failover: one_replica_after_the_other[long]` |"
    assert f"{run} 2 | passed | 30.0 | 5.0 | 4b02c27 | quorum: 462,500 events, 0 off, 128 take-overs |" in text
    assert f"{run} 1 | failed | 30.0 | 5.0 | 4b02c27 | failed: `a \\| b was 3` |" in text
    assert "| `core/test_schedules.py` | 2 | 0 | 2.0 |  | 4b02c27 |" in text


def test_a_line_that_is_no_outcome_is_named(tmp_path: Path) -> None:
    """With file and line number."""
    path = tmp_path / "campaigns.jsonl"
    path.write_text('{"test": "a"}\n')
    with pytest.raises(SystemExit, match=r"campaigns\.jsonl, line 1 is not the outcome of a campaign"):
        list(campaign.read([path]))


def test_figures_in_words() -> None:
    """Numbers before their names, texts after them."""
    assert sentence({"events": 10_000_000.0, "share": 0.25, "latest_page": "0.3 s"}) == (
        "10,000,000 events, 0.25 share, latest page 0.3 s"
    )
