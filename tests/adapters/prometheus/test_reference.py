"""The documentation of the metrics."""

from pathlib import Path

from celery_monitor.adapters.prometheus.families import FAMILIES
from celery_monitor.adapters.prometheus.reference import markdown

ROOT = Path(__file__).parents[3]


def test_the_document_is_of_now() -> None:
    """docs/metrics.md equals the generated document."""
    assert (ROOT / "docs" / "metrics.md").read_text() == markdown()


def test_every_metric_is_documented_once() -> None:
    """Each family has one row, whose text ends like a sentence."""
    rows = [line for line in markdown().splitlines() if line.startswith("| `celery_")]
    assert sorted(row.split("`")[1] for row in rows) == sorted(f"celery_{family.sample}" for family in FAMILIES)
    assert all(family.help.endswith(".") for family in FAMILIES)
