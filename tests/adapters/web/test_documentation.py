"""docs/http.md."""

import re
from pathlib import Path

import pytest

from celery_monitor.adapters.web import connection, queries
from celery_monitor.adapters.web.openapi import OPERATIONS
from celery_monitor.adapters.web.parameters import DEFAULT_LIMIT, MAX_LIMIT

TEXT = (Path(__file__).parents[3] / "docs" / "http.md").read_text()


@pytest.mark.parametrize(
    "expected",
    [
        f"| {connection.REQUEST_SECONDS:.0f} s |",
        f"| {connection.MAX_HEAD_BYTES // 1024} KiB, otherwise 431 |",
        f"| {connection.RESPONSE_SECONDS:.0f} s |",
        f"| {connection.IDLE_SECONDS:.0f} s |",
        f"| connections | {connection.MAX_CONNECTIONS}:",
        f"| {connection.MAX_STALLED}: the one",
        f"| {queries.THREADS}, each at most {queries.QUERY_TIMEOUT_SECONDS:.0f} s |",
        f"from 1 to {MAX_LIMIT} (default {DEFAULT_LIMIT})",
    ],
)
def test_the_bounds_are_those_of_the_code(expected: str) -> None:
    """Each documented limit is the actual one."""
    assert expected in TEXT


def test_the_parameters_are_those_of_the_code() -> None:
    """The documented parameters of each list are the actual ones."""
    stated = dict(re.findall(r"^ *\| `(/api/v1/[\w-]+)` \| (.*) \|$", TEXT, re.MULTILINE))
    lists = {path: names for path, (_, _, _, names) in OPERATIONS.items() if "cursor" in names}
    assert {path: re.findall(r"`(\w+)`", text) for path, text in stated.items()} == {
        path: [name for name in names if name not in {"limit", "cursor"}] for path, names in lists.items()
    }
