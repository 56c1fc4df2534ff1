"""The daily summary of recorded fleets: core, store and report together, compared with the known counts."""

import datetime as dt
from collections import Counter
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from celery_monitor.adapters.channels.email.render import render_html, render_text
from celery_monitor.adapters.store import open_store
from celery_monitor.core.model import COUNTS, FAILED, RETRIED, SUCCEEDED, UNKNOWN_TASK
from celery_monitor.core.monitor import Monitor
from celery_monitor.core.summary import Summary
from celery_monitor.policy import limits_of
from celery_monitor.runtime.report import DayReport
from celery_monitor.settings import Settings
from tests.builders import recorded

ZONES = ("UTC", "Asia/Kathmandu", "America/Los_Angeles")


def replay(version: str, directory: Path, zone: str) -> tuple[list[Summary], Counter[tuple[str, int]]]:
    """Summaries of all days of the recording, and the exported counts by task and kind."""
    store = open_store(f"sqlite:///{directory / 'monitor.db'}", retention=1e9, fingerprint_window=100)
    restored = store.start()
    try:
        deliveries = recorded(version)
        now = dt.datetime(2100, 1, 1, tzinfo=dt.UTC).timestamp()
        monitor = Monitor(limits_of(Settings()), restored, now)
        monitor.connected(acknowledges=True)
        for delivery in deliveries:
            monitor.receive([delivery], now)
            changes = monitor.take(now)
            if changes is not None:
                store.commit(changes)
        days = {
            dt.datetime.fromtimestamp(bucket.start, ZoneInfo(zone)).date() for bucket in store.reader.buckets(0, now)
        }
        report = DayReport(store.reader, "shop", ZoneInfo(zone), paging=False)
        shown: Counter[tuple[str, int]] = Counter()
        for series in monitor.snapshot().series:
            for kind in range(len(COUNTS)):
                shown[series.key.name, kind] += series.counts[kind]
        return [report.summary(date, now) for date in sorted(days)], shown
    finally:
        store.stop()


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(("version", "failed"), [("4.4.7", 18), ("5.7.0", 19)])
def test_the_mail_and_prometheus_agree_on_a_recorded_day(version: str, failed: int, zone: str, tmp_path: Path) -> None:
    """Executed, failed and retried match the recording, also by task, and every failure has its error group."""
    summaries, shown = replay(version, tmp_path, zone)
    assert sum(summary.day.failed for summary in summaries) == failed
    assert sum(summary.day.executed for summary in summaries) == 48 + failed
    assert sum(summary.day.retried for summary in summaries) == 2
    by_task: Counter[str] = Counter()
    for summary in summaries:
        by_task.update({task.name: task.failed for task in summary.tasks})
    assert by_task == {name: count for (name, kind), count in shown.items() if kind == FAILED and count}
    assert UNKNOWN_TASK not in by_task
    assert sum(shown[name, kind] for name, kind in shown if kind in {SUCCEEDED, FAILED}) == 48 + failed
    assert sum(count for (_, kind), count in shown.items() if kind == RETRIED) == 2
    for number, summary in enumerate(summaries):
        assert sum(error.count for error in summary.errors) == summary.day.failed
        assert summary.new_errors == (len(summary.errors) if number else 0)  # before the first day nothing was counted
        for text in (render_text(summary), render_html(summary)):
            assert f"{summary.day.failed} failure" in text.lower()
