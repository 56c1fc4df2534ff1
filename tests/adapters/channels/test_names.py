"""Only a channel's package and one list refer to it."""

from pathlib import Path

import pytest

import celery_monitor
from celery_monitor.channels import TYPES

PACKAGE = Path(celery_monitor.__file__).parent
NAMELESS = ("core", "runtime", "adapters/store", "adapters/web", "adapters/prometheus", "ports")
"""What knows a channel by its name, a text, and nothing else."""


@pytest.mark.parametrize("part", NAMELESS)
def test_no_channel_is_named(part: str) -> None:
    """No code, comment or template contains the name of a channel type; migrations describe the past."""
    place = PACKAGE / part
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.suffix in {".py", ".html"}]
    assert files
    named = [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in files
        if "migrations" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if any(name in line.lower() for name in TYPES)
    ]
    assert named == []
