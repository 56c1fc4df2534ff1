"""A file system that is soon full."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of 64 MB. Needs root: without it the test is skipped, or fails where CI=true."""
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(directory)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        message = f"cannot mount a small disk: {mounted.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{message}; with CI=true nothing may be skipped")
        pytest.skip(message)
    try:
        yield directory
    finally:
        # Lazily: the daemon of a test that failed is stopped after this.
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(disk: Path) -> Path:
    """Take all space that is left; return the file that holds it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return ballast
