"""The file that records which message the process died of."""

from pathlib import Path

import pytest

from celery_monitor.adapters.store.crash_marks import ApplyingFile

ONE, TWO = b"12345678", b"abcdefgh"


def _started(path: Path) -> ApplyingFile:
    file = ApplyingFile()
    file.start(path)
    return file


def test_deaths_are_counted_and_forgiven(tmp_path: Path) -> None:
    """A remaining mark is a death; an applied message has none."""
    path = tmp_path / "store.db.applying"
    for deaths in (0, 1, 2):
        file = _started(path)
        assert (file.deaths(ONE), file.deaths(TWO)) == (deaths, 0)
        file.begin(TWO)
        file.end(TWO)
        file.begin(ONE)
        file.stop()
    file = _started(path)
    file.end(ONE)
    file.stop()
    assert _started(path).deaths(ONE) == 0


def test_a_clean_end_leaves_no_mark(tmp_path: Path) -> None:
    """Nothing remains, and the file stays small."""
    path = tmp_path / "store.db.applying"
    for number in range(300):
        file = _started(path)
        file.begin(b"%08d" % number)
        if number % 2:
            file.end(b"%08d" % number)
        file.stop()
    assert path.stat().st_size < 2000
    assert _started(path).deaths(b"%08d" % 298) == 1


@pytest.mark.parametrize("content", [b"", b"x", b"12345678", b"\xff" * 10_000, b"12345678abc"])
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    """It is repaired, and only its contents are lost."""
    path = tmp_path / "store.db.applying"
    path.write_bytes(content)
    file = _started(path)
    file.begin(TWO)
    file.stop()
    assert _started(path).deaths(TWO) == 1


def test_without_a_file(tmp_path: Path) -> None:
    """If it cannot be created, everything else works."""
    file = _started(tmp_path / "nowhere" / "x")
    file.begin(ONE)
    file.end(ONE)
    assert file.deaths(ONE) == 0
    file.stop()
