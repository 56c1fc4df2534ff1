"""The numbers of the store's migrations. They are file names, so they are checked with the fast tests."""

import re
from pathlib import Path

VERSIONS = Path(__file__).parents[2] / "celery_monitor" / "adapters" / "store" / "migrations" / "versions"
FILES = sorted(VERSIONS.glob("[0-9]*.py"))


def test_they_form_one_line() -> None:
    """Each is numbered and follows the previous one: two changes must not add the same number."""
    before = "None"
    for number, file in enumerate(FILES, start=1):
        found = dict(re.findall(r"^(revision|down_revision) = (.*)$", file.read_text(), re.MULTILINE))
        assert found == {"revision": f'"{number:04}"', "down_revision": before}, file.name
        assert file.name.startswith(f"{number:04}_")
        before = found["revision"]
