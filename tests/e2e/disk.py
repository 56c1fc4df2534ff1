"""File systems that fill up or fail."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.servers import wait_until


@contextmanager
def small_disk(directory: Path, megabytes: int = 64) -> Iterator[Path]:
    """A file system of this many MB. Needs root: without it the test is skipped, or fails with CI=true."""
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(directory)],
        capture_output=True,
        text=True,
        check=False,
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


def remount(disk: Path, *options: str) -> None:
    """Change the options of a mounted file system: ``ro``, or ``nr_inodes=1`` to allow no further files."""
    run("mount", "-o", ",".join(["remount", *options]), str(disk))


class FailingDisk:
    """An ext4 file system that the kernel makes read-only after an error, as on a broken volume."""

    def __init__(self, path: Path, image: Path) -> None:
        self.path, self._image = path, image

    def repair(self) -> None:
        """Mount it (again), writable."""
        if self.path.is_mount():
            # Lazily: a process that was killed may still hold it.
            run("umount", "--lazy", str(self.path))
        run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.path))

    def fail(self) -> None:
        """Cause an error."""
        device = run("findmnt", "--noheadings", "--output", "SOURCE", str(self.path)).strip()
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("tests")


@contextmanager
def failing_disk(directory: Path) -> Iterator[FailingDisk]:
    """Needs root and loop devices: without them the test is skipped, or fails with CI=true."""
    directory.mkdir()
    image = directory.with_suffix(".img")
    disk = FailingDisk(directory, image)
    try:
        with image.open("wb") as file:
            file.truncate(64 << 20)
        run("mkfs.ext4", "-q", str(image))
        disk.repair()
    except (OSError, subprocess.CalledProcessError) as exc:
        message = f"cannot mount a disk of a file: {exc}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{message}; with CI=true nothing may be skipped")
        pytest.skip(message)
    try:
        yield disk
    finally:
        run("umount", "--lazy", str(directory))


def run(*command: str) -> str:
    """Run a command and return its output. Raises OSError and CalledProcessError."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@contextmanager
def full(disk: Path, store: Path) -> Iterator[None]:
    """Use up all space during the block, including the store's reserve."""
    with closing(sqlite3.connect(store, timeout=60, isolation_level=None)) as reader:
        # SQLite writes its log from the start again where it can; as long as somebody reads the log, it must grow.
        wait_until(lambda: reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0, 60)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reserve = store.with_name(f"{store.name}.reserve")
        reserve.unlink(missing_ok=True)
        ballast = fill(disk)
        while reserve.exists():  # the daemon took it again before the disk was full
            reserve.unlink()
            fill(disk)
        yield
        ballast.unlink()


def fill(disk: Path) -> Path:
    """Use up all space; return the file that takes it."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return ballast
