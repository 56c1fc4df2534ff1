"""``celery-monitor schedules``, on a real store, beside a daemon that has it open."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.cli import main
from celery_monitor.core.model import Changes, TaskStarts
from celery_monitor.settings import load

MONDAY = 1_773_615_600.0
"""2026-03-16T00:00:00+01:00."""
DAY = 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    """The daemon's store, open."""
    daemon = open_store(f"sqlite:///{tmp_path}/monitor.db", retention=86_400.0, fingerprint_window=10)
    daemon.start()
    yield daemon
    daemon.stop()


def invoke(tmp_path: Path, *arguments: str) -> Result:
    """The command on the daemon's store."""
    return CliRunner().invoke(
        main, ["schedules", *arguments], env={"CELERY_MONITOR_STORE__URL": f"sqlite:///{tmp_path}/monitor.db"}
    )


def test_suggestions_can_be_copied(store: SqlStore, tmp_path: Path) -> None:
    """What is printed is configuration, with hostile names too; tasks without a rule are left out."""
    assert invoke(tmp_path, "suggest").output.startswith("no regular tasks found among 0 tasks")
    hostile = "it's\n# {a: b}\x1b[2J"
    store.commit(
        Changes(
            MONDAY,
            1,
            starts=[
                TaskStarts("shop.report.nightly", tuple(MONDAY + day * DAY + 3 * 3600 + 2 for day in range(12))),
                TaskStarts("shop.sync", tuple(MONDAY + 300.1 * number for number in range(50))),
                TaskStarts("shop.pay", (MONDAY, MONDAY + 7, MONDAY + 1000, MONDAY + 1003, MONDAY + 9999)),
                TaskStarts(hostile, tuple(MONDAY + 60 * number for number in range(50))),
            ],
        )
    )
    result = invoke(tmp_path, "suggest", "--timezone", "Europe/Berlin")
    assert result.exit_code == 0
    assert "  # 03:00 ± 2 s, 12 of 12 days\n" in result.output
    assert '{task: "shop.report.nightly", cron: "0 3 * * *", timezone: Europe/Berlin, grace: 1m}' in result.output
    assert "\x1b" not in result.output
    document = yaml.safe_load(result.output)
    assert [one["task"] for one in document["schedules"]] == [hostile, "shop.report.nightly", "shop.sync"]
    del document["schedules"][0]  # no setting takes control characters
    file = tmp_path / "monitor.yaml"
    file.write_text(yaml.safe_dump(document))
    settings = load(file, environ={})
    assert [(one.cron, one.every) for one in settings.schedules] == [("0 3 * * *", None), (None, 300.0)]
    wrong = invoke(tmp_path, "suggest", "--timezone", "Berlin")
    assert (wrong.exit_code, "not an IANA time zone" in wrong.output) == (2, True)
