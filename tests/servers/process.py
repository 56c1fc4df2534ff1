"""A server as a child process: started, stopped, killed, frozen and restarted."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.servers.waiting import wait_until

_LOG_TAIL = 4000


def require(tool: str) -> str:
    """Return the path of an executable. Without it the test is skipped, or fails where CI=true."""
    path = shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        message = f"{tool} is not installed (`make servers` installs it where it may)"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{message}; with CI=true nothing may be skipped")
        pytest.skip(message)
    return path


class ServerProcess:
    """One child process in a process group of its own, with its output in ``log``.

    Subclasses give ``command`` and ``ready``, and may give ``environment``. The kernel kills the child when
    the thread that started it is gone, so that a killed test run leaves nothing behind: start servers from
    a thread that lives.
    """

    ready_timeout = 60.0
    """Seconds from start until ``ready``."""
    stop_timeout = 10.0
    """Seconds from SIGTERM until SIGKILL."""
    stop_signal = signal.SIGTERM

    def __init__(self, name: str, directory: Path) -> None:
        """``directory`` holds the data and the log; it is made on start."""
        self.name = name
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        """The program and its arguments."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str] | None:
        """The whole environment of the child, or None for the parent's."""
        return None

    def ready(self) -> bool:
        """Whether it serves. Called until it is true."""
        raise NotImplementedError

    @property
    def log(self) -> Path:
        """The file with everything that the process wrote, over all its restarts."""
        return self.directory / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        if self._process is None:
            message = f"{self.name} does not run"
            raise RuntimeError(message)
        return self._process.pid

    @property
    def running(self) -> bool:
        """Started, and not ended."""
        return self._process is not None and not self._leader_ended()

    def start(self) -> None:
        """Start it and wait until it serves. Raises RuntimeError or TimeoutError with the end of the log."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it without waiting."""
        if self.running:
            message = f"{self.name} runs already"
            raise RuntimeError(message)
        self.directory.mkdir(parents=True, exist_ok=True)
        die_with_parent = [require("setpriv"), "--pdeathsig", "KILL", "--"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*die_with_parent, *self.command()],
                cwd=self.directory,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until it serves; stop it if it does not."""
        try:
            wait_until(self._ready_or_dead, self.ready_timeout, every=0.03, what=f"{self.name} ready")
        except BaseException as exc:
            exc.add_note(self.log_tail())
            self.kill()
            raise

    def _ready_or_dead(self) -> bool:
        if not self.running:
            message = f"{self.name} ended before it was ready"
            raise RuntimeError(message)
        return self.ready()

    def stop(self) -> int | None:
        """End it politely, thawed if it was frozen, and return its exit code, or None if it did not run."""
        if self._process is None:
            return None
        self.resume()
        self.signal(self.stop_signal)
        try:
            wait_until(self._leader_ended, self.stop_timeout, what=f"{self.name} stopped")
        except TimeoutError:
            self.signal(signal.SIGKILL)
        return self._reap()

    def discard(self) -> None:
        """Stop it and remove its data, when it is no longer needed. An orderly end may take longer."""
        self.stop()

    def kill(self) -> None:
        """SIGKILL to the process and all of its group."""
        if self._process is not None:
            self._reap()

    def signal(self, number: int) -> None:
        """Send a signal to the process alone. Nothing happens when it has ended."""
        if self._process is not None:
            os.kill(self._process.pid, number)

    def pause(self) -> None:
        """Freeze it and all of its group: connections stay open and nothing answers."""
        os.killpg(self.pid, signal.SIGSTOP)
        # On a busy machine its other threads go on until the one that was given the signal gets a processor.
        wait_until(self._frozen, every=0.001, what=f"{self.name} frozen")

    def resume(self) -> None:
        """End a ``pause``."""
        os.killpg(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Start it again on the same ports and data; end it politely first if it still runs."""
        self.stop()
        self.start()

    def log_tail(self) -> str:
        """Return the end of the log, for a message."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"--- the end of {self.log}\n{text[-_LOG_TAIL:]}"

    def _frozen(self) -> bool:
        states: list[str] = []
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(OSError):  # one that ends meanwhile
                states.append((thread / "stat").read_text().rpartition(") ")[2][0])
        return set(states) == {"T"}

    def _leader_ended(self) -> bool:
        # WNOWAIT leaves the zombie, which keeps its id from being given to another process before _reap.
        flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
        return self._process is None or os.waitid(os.P_PID, self._process.pid, flags) is not None

    def _reap(self) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()
