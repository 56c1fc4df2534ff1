"""A longer timeout for these tests, which wait for many things on a slow machine."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Campaigns use the timeout of their command line."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("campaign") is None:
            item.add_marker(pytest.mark.timeout(600))
