r"""Splits the text of a traceback into sections, one for each exception in the chain; the last one ended the task.

The text follows the grammar of CPython's ``traceback`` module (``TracebackException.format``)::

    Traceback (most recent call last):            header
      File "/srv/shop/tasks.py", line 3, in pay   frames, source lines and carets: all of them indented
        raise Declined(order)
    shop.errors.Declined: no money                exception line: the first line that is not indented
    any further lines                             the rest of the message, and notes: arbitrary text
                                                  (blank line)
    During handling of the above exception, another exception occurred:
                                                  (blank line, and the next section)

A message is arbitrary text, so it is not parsed, except for the sentence that links two exceptions. An exception group
has its sections after a margin of ``  | ``, and its nested exceptions further to the right. ``RemoteTraceback`` (of
billiard, multiprocessing and concurrent.futures) contains a whole traceback in quotes.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec

MAX_CLASS_LENGTH: Final = 240
"""Maximum characters of a class name with its module; anything longer is not a class."""

_HEADERS: Final = (
    "Traceback",
    "Traceback (most recent call last):",
    "Exception Group Traceback (most recent call last):",
)
_SINGLE_HEADERS: Final = _HEADERS[:2]
_GROUP_HEADER: Final = "  + Exception Group Traceback (most recent call last):"
_MARGIN: Final = "  |"
_LINKS: Final = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
_QUOTES: Final = ('"""', "'''")
_CLASS: Final = re.compile(r"(?:[^\W\d]\w*|<locals>)(?:\.(?:[^\W\d]\w*|<locals>))*\Z")
_FRAME: Final = re.compile(r'  File "([^"\n]{1,500})", line -?\d{1,9}(?:, in ([^\n]{1,200}))?')
"""Without a function it is the location of a SyntaxError, not a frame."""
_NESTED_FRAME: Final = re.compile(r'[ |]{4,40}File "([^"\n]{1,500})", line -?\d{1,9}, in ([^\n]{1,200})')
_USUAL: Final = 4_000
"""Longest text, in characters, whose frames are cached."""
_REMOTE: Final = frozenset({"RemoteTraceback", "_RemoteTraceback"})
_EXCEPTION: Final = re.compile(r"\n([^ \t\n][^\n]*)")
_FRAMES: Final = re.compile(rf"\n{_FRAME.pattern}")
"""These two patterns begin with a literal, which makes the search fast."""

Frame = tuple[str, str]
"""Path and function."""
_State = Callable[["_SectionReader", str], None]
"""A state's method, which reads the next line."""


class TracebackSection(msgspec.Struct, frozen=True, gc=False):
    """One exception of a chain."""

    qualified: str
    """Its class with the module, as Python writes it; "" if the line does not have Python's format."""
    message: str
    frames: tuple[Frame, ...]
    """Outermost first."""
    held: tuple[Frame, ...] = ()
    """Frames of the nested exceptions of an exception group."""
    remote: bool = False
    """It was raised in another process and raised again here as the next exception of the chain."""


def sections(head: str, tail: str = "") -> list[TracebackSection]:
    """Every exception of a traceback, in the order of the text.

    If the text was truncated in the middle, ``head`` is its beginning and ``tail`` its end. Takes linear time. Only a
    line feed ends a line: the other characters at which ``splitlines`` splits come from messages.
    """
    single = None if tail else _single(head)
    if single is not None:
        return [single]
    reader = _SectionReader()
    for line in head.split("\n"):
        reader.read(line)
    if tail:
        reader.gap()
        for line in tail.split("\n")[1:]:
            reader.read(line)
    return reader.end()


def _single(text: str) -> TracebackSection | None:
    """The section of a traceback that has only one, as nearly all do; this takes a tenth of the time."""
    start = text.find("\n")
    match = _EXCEPTION.search(text, start) if text[:start] in _SINGLE_HEADERS else None
    if match is None:
        return None
    line, rest = match[1], text[match.end() :]
    named, message = _split(line)
    if _LINKS[0] in rest or _LINKS[1] in rest or named.rpartition(".")[2] in _REMOTE:
        return None
    lines = text[start : match.start()]
    frames = _known_frames(lines) if len(lines) <= _USUAL else _frames(lines)
    return TracebackSection(named, f"{message if named else line}{rest}".strip(), frames)


def _frames(lines: str) -> tuple[Frame, ...]:
    return tuple([frame for frame in _FRAMES.findall(lines) if frame[1]])


_known_frames = lru_cache(maxsize=256)(_frames)
"""Cached: failures at the same place have the same frames, whatever their messages."""


class _SectionReader:
    """A state machine over lines."""

    def __init__(self) -> None:
        self._sections: list[TracebackSection] = []
        # A plain function: a bound method would create a reference cycle for the garbage collector.
        self._read: _State = _SectionReader._before
        self._margin = False
        self._quote = ""
        self._linked = 0
        """1 after the sentence that links two exceptions, 2 after the blank line that follows it."""
        self._uncertain = False
        self._start()

    def _start(self) -> None:
        self._frames: list[Frame] = []
        self._held: list[Frame] = []
        self._named = ""
        self._message: list[str] = []

    def read(self, line: str) -> None:
        """Read the next line."""
        if self._margin:
            if line.startswith(_MARGIN):
                line = line[4:]
            elif line.startswith(("  +-", "    ")):
                if match := _NESTED_FRAME.match(line):
                    self._held.append((match[1], match[2]))
                return
            else:
                self._margin = False
        self._read(self, line)

    def gap(self) -> None:
        """Lines are missing at this point."""
        self._uncertain = self._read is _SectionReader._in_frames

    def end(self) -> list[TracebackSection]:
        """The sections that were found."""
        self._close()
        return self._sections

    def _close(self) -> None:
        """Add the complete section. One with a remote traceback is left out, as that has its own sections."""
        if self._read is _SectionReader._in_message and self._named.rpartition(".")[2] not in _REMOTE:
            message = "\n".join(self._message).strip()
            frames, held, remote = tuple(self._frames), tuple(self._held), bool(self._quote)
            self._sections.append(TracebackSection(self._named, message, frames, held, remote))
        self._start()

    def _before(self, line: str) -> None:
        """State before the first line of a section."""
        if self._header(line) or not line.strip():
            return
        if not self._quote and line in _QUOTES:
            self._quote = line
        elif self._quote and line == self._quote:
            self._quote = ""
        elif line.startswith(_MARGIN) and not self._margin:
            self._margin = True
            self.read(line)
        elif _is_alone(line):
            self._exception(line)
        else:
            self._read = _SectionReader._between

    def _between(self, line: str) -> None:
        """State in unrelated text: the next section begins with a header."""
        self._header(line)

    def _in_frames(self, line: str) -> None:
        if match := _FRAME.match(line):
            self._uncertain = False
            if match[2]:
                self._frames.append((match[1], match[2]))
        elif line[:1] not in {" ", "\t", ""} and not self._uncertain:
            self._exception(line)

    def _in_message(self, line: str) -> None:
        if self._linked == 2 and self._follows(line):  # noqa: PLR2004  # see there
            return
        if line in _LINKS and not self._message[-1].strip():
            self._linked = 1
        else:
            self._linked = 2 if self._linked == 1 and not line.strip() else 0
        if self._named.rpartition(".")[2] in _REMOTE and not self._quote and line in _QUOTES:
            self._close()
            self._quote, self._read = line, _SectionReader._before
        elif self._quote and line == self._quote:
            self._close()
            self._quote, self._read, self._linked = "", _SectionReader._after_quote, 0
        else:
            self._message.append(line)

    def _after_quote(self, line: str) -> None:
        """State after a remote traceback: the linking sentence follows, or the end."""
        if line in _LINKS:
            self._read = _SectionReader._before

    def _follows(self, line: str) -> bool:
        """Whether the line begins the next section of a chain."""
        header = line in _HEADERS or line == _GROUP_HEADER
        named = _split(line)[0]
        if not header and not named:
            return False
        del self._message[-2:]
        self._close()
        self._linked = 0
        self._read = _SectionReader._before
        self._before(line)
        return True

    def _header(self, line: str) -> bool:
        if line == _GROUP_HEADER:
            self._margin = True
        elif line not in _HEADERS:
            return False
        self._read = _SectionReader._in_frames
        return True

    def _exception(self, line: str) -> None:
        self._named, message = _split(line)
        self._message.append(message if self._named else line)
        self._linked = 0
        self._read = _SectionReader._in_message


def _is_alone(line: str) -> bool:
    """Whether it is the line of an exception without frames. Stricter than ``_split``, as there is no context."""
    named, message = _split(line)
    return bool(named) and (bool(message) or not named.rpartition(".")[2][0].islower())


def _split(line: str) -> tuple[str, str]:
    """Class and message of an exception line; "" if it names no class."""
    named, _, message = line.partition(":")
    if len(named) > MAX_CLASS_LENGTH or not _is_class(named):
        return "", ""
    return named, message.strip()


@lru_cache(maxsize=256)
def _is_class(name: str) -> bool:
    return _CLASS.match(name) is not None and not name.endswith("<locals>")
