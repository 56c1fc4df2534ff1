"""Records in a small file which message is being applied, to identify a message that kills the process.

A write to the page cache takes two microseconds and survives the end of the process, whatever its cause; a commit takes
a thousand times as long. The record does not have to survive the machine. If the file cannot be used, only this
protection is missing.
"""

import os
import struct
from pathlib import Path
from typing import Final

import structlog

_MARK: Final = struct.Struct(">8s")
_DEATHS: Final = struct.Struct(">8sI")
_NOTHING: Final = bytes(_MARK.size)
_MAX_MARKS: Final = 100
"""Number of newest messages whose deaths are recorded."""

_log = structlog.get_logger()


class ApplyingFile:
    """See ports.CrashMarks. A mark that ``start`` finds counts as a death of the previous process."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._deaths: dict[bytes, int] = {}

    def start(self, path: Path) -> None:
        """Open or create the file. Never raises."""
        self.stop()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._read(os.pread(self._file, _MARK.size + _MAX_MARKS * _DEATHS.size, 0))
            self._write()
        except (OSError, struct.error) as exc:
            _log.warning(
                "Cannot write the in-flight marker: a poison message cannot be identified after a crash",
                file=str(path),
                error=str(exc),
            )

    def _read(self, data: bytes) -> None:
        mark = data[: _MARK.size]
        end = (len(data) - _MARK.size) // _DEATHS.size * _DEATHS.size
        self._deaths = dict(_DEATHS.iter_unpack(data[_MARK.size : _MARK.size + max(end, 0)]))
        if len(mark) == _MARK.size and mark != _NOTHING:
            self._deaths[mark] = self._deaths.pop(mark, 0) + 1
            _log.warning("The previous process died while it applied a message", deaths=self.deaths(mark))

    def _write(self) -> None:
        if self._file is None:
            return
        records = b"".join(_DEATHS.pack(*item) for item in [*self._deaths.items()][-_MAX_MARKS:])
        os.pwrite(self._file, _NOTHING + records, 0)
        os.ftruncate(self._file, _MARK.size + len(records))

    def deaths(self, fingerprint: bytes) -> int:
        """How often the process has died while it applied this message."""
        return self._deaths.get(fingerprint, 0)

    def begin(self, fingerprint: bytes) -> None:
        """Mark the message as being applied. Never raises."""
        self._mark(fingerprint)

    def end(self, fingerprint: bytes) -> None:
        """The message was applied, so it did not cause earlier deaths: forget them. Never raises."""
        self._mark(_NOTHING)
        if self._deaths and self._deaths.pop(fingerprint, None) is not None:
            try:
                self._write()
            except OSError as exc:
                _log.warning("Cannot write the crash record of a message", error=str(exc))

    def _mark(self, mark: bytes) -> None:
        if self._file is not None:
            try:
                os.pwrite(self._file, mark, 0)
            except OSError as exc:
                os.close(self._file)
                self._file = None
                _log.warning(
                    "Cannot write the in-flight marker: a poison message cannot be identified after a crash",
                    error=str(exc),
                )

    def stop(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
