"""The guarantees of a commit when the process or the disk fails."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.errors import StoreUnavailableError
from tests.adapters.store.committer import FINGERPRINT_WINDOW, disagreements, flush
from tests.adapters.store.conftest import Open

ROOT = Path(__file__).parents[3]


def test_killed(path: Path) -> None:
    """Killed with -9 at any time, committed flushes are complete, and nothing else is there."""
    rng = random.Random(7)
    url = f"sqlite:///{path}"
    store = open_store(url, retention=1e9, fingerprint_window=FINGERPRINT_WINDOW)
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.adapters.store.committer", url], stdout=subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout is not None
        output = b""
        for _ in range(rng.randint(1, 150)):
            output = process.stdout.readline()
        process.kill()
        output = (process.stdout.read().splitlines() or [output])[-1]
        process.wait()
        process.stdout.close()
        assert disagreements(store) == []
        # Its last words may have been cut off, or the next commit may have just been done.
        assert store.start().sequence >= int(output)
        store.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB; skips if mounting is not permitted."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


GIVEN_UP: tuple[list[str], ...] = ([], ["samples"], ["groups"], ["groups", "samples"])
"""What may be missing after the disk was full: all else agrees to the last unit.

A group that was given up has no sample either, so it may be missing alone.
"""


def test_disk_full(small_disk: Path, opened: Open) -> None:
    """Where nothing is set aside, each commit on a full disk says so and applies nothing.

    With room again it goes on, exactly but for what is given up on a full disk.
    """
    store = opened(f"sqlite:///{small_disk}/store.db", fingerprint_window=FINGERPRINT_WINDOW)
    store.start()
    for sequence in range(1, 40):
        store.commit(flush(sequence))
    (small_disk / "store.db.reserve").unlink()
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"")
    with pytest.raises(OSError, match="No space left"):
        fill_up(ballast)
    sequence = commit_until_full(store, 40)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            store.commit(flush(sequence))
    assert sum(row.counts[0] for row in store.reader.tasks(limit=99).rows) == sequence - 1
    ballast.unlink()
    for again in range(sequence, sequence + 50):
        store.commit(flush(again))
    store.stop()
    assert disagreements(store) in GIVEN_UP


def commit_until_full(store: SqlStore, sequence: int) -> int:
    """The number of the flush for which there was no space."""
    while True:
        try:
            store.commit(flush(sequence))
        except StoreUnavailableError as exc:
            if "full" not in str(exc):
                raise
            return sequence
        sequence += 1


def fill_up(path: Path) -> None:
    """Write until there is no space left."""
    with path.open("ab", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_disk_full_at_start(small_disk: Path, opened: Open) -> None:
    """A start on a full disk is retried later: the store is intact."""
    with pytest.raises(OSError, match="No space left"):
        fill_up(small_disk / "ballast")
    store = opened(f"sqlite:///{small_disk}/store.db")
    with pytest.raises(StoreUnavailableError):
        store.start()
    (small_disk / "ballast").unlink()
    assert store.start().sequence == 0


def test_file_size_limit(tmp_path: Path) -> None:
    """The same with a file size limit of the process, which needs no permission to mount."""
    script = (
        "import resource, sys\n"
        "from celery_monitor.adapters.store import open_store\n"
        "from celery_monitor.errors import StoreUnavailableError\n"
        "from tests.adapters.store.committer import FINGERPRINT_WINDOW, disagreements, flush\n"
        "store = open_store(sys.argv[1], retention=1e9, fingerprint_window=FINGERPRINT_WINDOW)\n"
        "store.start()\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))\n"
        "sequence, refusals = 1, 0\n"
        "while sequence < 400:\n"
        "    try:\n"
        "        store.commit(flush(sequence))\n"
        "        sequence += 1\n"
        "    except StoreUnavailableError:\n"
        "        refusals += 1\n"
        "        if refusals == 3:\n"
        "            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "store.stop()\n"
        "print(refusals, disagreements(store))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"sqlite:///{tmp_path}/store.db"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout in {f"3 {missing}\n" for missing in GIVEN_UP}
