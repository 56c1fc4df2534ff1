"""A lock that ends with its process."""

import signal
import subprocess
import sys
from pathlib import Path

from celery_monitor.adapters.store.process_lock import ProcessLock

HOLD = """
import sys
from pathlib import Path
from celery_monitor.adapters.store.process_lock import ProcessLock
lock = ProcessLock()
print(lock.take(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_it_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    """The holder is named while it has the lock. Killed, it leaves nothing that blocks the next one."""
    path, lock = tmp_path / "lock", ProcessLock()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "None\n"
        assert str(lock.take(path)).startswith(f"process {process.pid} on ")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lock.take(path) is None
        assert lock.take(path) is None  # it is ours
        assert str(ProcessLock().take(path)).startswith("process ")
    lock.release()
    assert ProcessLock().take(path) is None
