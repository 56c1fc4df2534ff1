"""docs/http.md."""

from pathlib import Path

import pytest

from celery_monitor.adapters.web import connection, queries, server
from celery_monitor.adapters.web.parameters import DEFAULT_LIMIT, MAX_LIMIT

TEXT = (Path(__file__).parents[3] / "docs" / "http.md").read_text()


@pytest.mark.parametrize(
    "told",
    [
        f"| {connection.REQUEST_SECONDS:.0f} s, {server.MAX_HEADER_BYTES // 1024} KiB |",
        f"| {connection.RESPONSE_SECONDS:.0f} s |",
        f"| {connection.IDLE_SECONDS:.0f} s |",
        f"| connections | {connection.MAX_CONNECTIONS}:",
        f"| {connection.MAX_STALLED}: the one",
        f"| {queries.THREADS}, and {queries.PATIENCE_SECONDS:.0f} s for each |",
        f"from 1 to {MAX_LIMIT} ({DEFAULT_LIMIT} unless given)",
    ],
)
def test_the_bounds_are_those_of_the_code(told: str) -> None:
    """Each bound that the document names is the one that holds."""
    assert told in TEXT
