"""A memory cgroup for a test: the kernel kills its processes when they exceed the limit."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.waiting import wait_until

_V2 = Path("/sys/fs/cgroup")
_V1 = Path("/sys/fs/cgroup/memory")


class MemoryLimit:
    """A cgroup of version 1 or 2."""

    def __init__(self, directory: Path) -> None:
        """``directory``: of the cgroup."""
        self._directory = directory

    def within(self, command: Sequence[str]) -> list[str]:
        """The command, run in the cgroup from its first instruction on, with all its children."""
        return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._directory / "cgroup.procs"), *command]

    @property
    def kills(self) -> int:
        """The number of processes that the kernel has killed because of the limit."""
        for name in ("memory.events", "memory.oom_control"):
            file = self._directory / name
            if file.exists():
                return int(dict(line.split() for line in file.read_text().splitlines())["oom_kill"])
        return 0

    def is_empty(self) -> bool:
        """Whether no process runs in it."""
        return not (self._directory / "cgroup.procs").read_text()


@contextmanager
def memory_limit(name: str, megabytes: int) -> Iterator[MemoryLimit]:
    """Create a cgroup, and remove it once its processes have ended; skip the test if that is not permitted."""
    version_1 = (_V1 / "memory.limit_in_bytes").exists()
    directory = (_V1 if version_1 else _V2) / f"celery-monitor-test-{os.getpid()}-{name}"
    try:
        directory.mkdir()
    except OSError as exc:
        pytest.skip(f"no memory cgroup can be made here: {exc}")
    try:
        limits = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if version_1 else ("memory.max",)
        try:
            (directory / limits[0]).write_text(str(megabytes * 2**20))
        except OSError as exc:
            pytest.skip(f"the memory of a cgroup cannot be limited here: {exc}")
        for further in limits[1:]:
            if (directory / further).exists():  # else nothing is swapped
                (directory / further).write_text(str(megabytes * 2**20))
        limit = MemoryLimit(directory)
        yield limit
        wait_until(limit.is_empty, 60, what="the end of all processes of the cgroup")
    finally:
        directory.rmdir()
