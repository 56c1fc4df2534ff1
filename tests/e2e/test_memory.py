"""The memory of a million active tasks."""

from pathlib import Path

import pytest

from bench.memory import measure
from tests.conftest import Start
from tests.e2e.daemon import Daemon

_LIMIT = 400e6
_GROWTH = 1.15
"""A dictionary that entries leave and join doubles its table once."""


@pytest.mark.campaign
def test_a_million_tasks_under_way(rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """They stay under 400 MB resident, also after three million events have replaced all of them."""
    tasks = 1_000_000
    daemon = start(Daemon(tmp_path / "daemon", rabbitmq_url, {"tracking": {"max_tasks": tasks}}))

    full, later = measure(daemon, tasks, turns=tasks)

    assert daemon.metric("monitor_tracked_tasks") == tasks
    assert daemon.metric("monitor_tracked_tasks_evicted_total") == 0
    assert full < _LIMIT
    assert later < _LIMIT
    assert later < full * _GROWTH
