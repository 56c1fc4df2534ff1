"""The report of the measurements of bench/side_by_side.py."""

from dataclasses import asdict

from bench.peers import report
from bench.peers.measure import FLAT_OUT, Measured


def _measured(run: int, reader: str, rate: int, cpu: float, **more: float | None) -> dict[str, object]:
    known: dict[str, object] = {
        "published": 1_000,
        "counted": 1_000,
        "cpu_per_event": cpu / 1e6,
        "cpu_share": cpu / 1e3,
    }
    return asdict(Measured(run, reader, "Redis", rate, 1, **{**known, "resident": 10**8, **more}))  # type: ignore[arg-type]


def test_figures_are_medians_and_ratios_are_of_the_same_run() -> None:
    """With the extremes in parentheses."""
    runs = [(20.0, 200.0), (40.0, 280.0), (21.0, 252.0)]
    found = [
        _measured(run, reader, FLAT_OUT, cpu)
        for run, both in enumerate(runs)
        for reader, cpu in zip(("celery-monitor", "celery-exporter"), both, strict=True)
    ]
    row = report.table(found).splitlines()[-1]
    assert "| 21.0 µs (20.0 to 40.0) | 252.0 µs (200.0 to 280.0) | 10.0 times (7.0 to 12.0) |" in row
    assert report.losses(found) == "celery-monitor lost 0 of 3,000 events."


def test_what_did_not_go_as_it_should_is_said() -> None:
    """A reader without an answer, lost events, and a machine that was too busy for the load."""
    found = [
        _measured(0, "celery-monitor", 1_000, 30.0, reached=128.4, counted=990),
        _measured(0, "celery-exporter", 1_000, 0.0, counted=None, cpu_per_event=None, cpu_share=None, resident=None),
    ]
    row = report.table(found).splitlines()[-1]
    assert "| 3.0 % (at 128 events/s, lost 1 %) | did not answer |  |" in row
    assert "ONLY 128 events/s" in report.line(found[0])
    assert "did not answer" in report.line(found[1])
    assert report.losses(found) == "celery-monitor lost 10 of 1,000 events."
