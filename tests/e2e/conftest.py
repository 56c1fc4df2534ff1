"""More time for these tests: each waits for many things, and for each of them long where the machine is slow."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Campaigns have what their command line gives them."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("campaign") is None:
            item.add_marker(pytest.mark.timeout(600))
