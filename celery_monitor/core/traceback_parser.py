r"""A traceback's text → its sections, one for each exception of the chain, the last one for what ended the task.

The text follows the grammar of CPython's ``traceback`` module (``TracebackException.format``)::

    Traceback (most recent call last):            header
      File "/srv/shop/tasks.py", line 3, in pay   frames, source lines and carets: all of them indented
        raise Declined(order)
    shop.errors.Declined: no money                exception line: the first line that is not indented
    any further lines                             the rest of the message, and notes: arbitrary text
                                                  (blank line)
    During handling of the above exception, another exception occurred:
                                                  (blank line, and the next section)

A message is arbitrary text, so nothing in it is looked at, except for the sentence that links two exceptions. An
exception group has its sections behind a margin of ``  | ``, and the exceptions that it holds further to the right.
``RemoteTraceback`` (of billiard, multiprocessing and concurrent.futures) carries a whole traceback in quotes.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec

MAX_CLASS_LENGTH: Final = 240
"""Characters of a class with its module; a longer one is no class."""

_HEADERS: Final = (
    "Traceback",
    "Traceback (most recent call last):",
    "Exception Group Traceback (most recent call last):",
)
_GROUP_HEADER: Final = "  + Exception Group Traceback (most recent call last):"
_MARGIN: Final = "  |"
_LINKS: Final = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
_QUOTES: Final = ('"""', "'''")
_CLASS: Final = re.compile(r"(?:[^\W\d]\w*|<locals>)(?:\.(?:[^\W\d]\w*|<locals>))*\Z")
_FRAME: Final = re.compile(r'  File "([^"\n]{1,500})", line -?\d{1,9}(?:, in ([^\n]{1,200}))?')
"""Without a function it is where a SyntaxError is, not a frame."""
_NESTED_FRAME: Final = re.compile(r'[ |]{4,40}File "([^"\n]{1,500})", line -?\d{1,9}, in ([^\n]{1,200})')
_USUAL: Final = 4_000
"""Characters of frames that are worth to be remembered."""
_REMOTE: Final = frozenset({"RemoteTraceback", "_RemoteTraceback"})
_EXCEPTION: Final = re.compile(r"\n([^ \t\n][^\n]*)")
_FRAMES: Final = re.compile(rf"\n{_FRAME.pattern}")
"""These two begin with a literal, which is what makes their search fast."""

Frame = tuple[str, str]
"""Path and function."""
_State = Callable[["_SectionReader", str], None]
"""Reads the next line."""


class TracebackSection(msgspec.Struct, frozen=True, gc=False):
    """One exception of a chain."""

    qualified: str
    """Its class with the module, as Python writes it; "" when the line is none that Python writes."""
    message: str
    frames: tuple[Frame, ...]
    """Outermost first."""
    held: tuple[Frame, ...] = ()
    """Frames of the exceptions that an exception group holds."""
    remote: bool = False
    """It was raised in another process, and raised again here as the next one of the chain."""


def sections(head: str, tail: str = "") -> list[TracebackSection]:
    """Every exception of a traceback, in the order of the text.

    ``tail`` is the end of a text of which ``head`` is the beginning, when what is between them was cut out. Takes
    linear time. Lines end with a line feed only: other characters at which ``splitlines`` divides come from messages.
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
    """The section of a traceback that has no other one: nearly all are so, and this takes a tenth of the time."""
    start = text.find("\n")
    match = _EXCEPTION.search(text, start) if text[:start] in _HEADERS[:2] else None
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
"""What fails at one place has the same frames, whatever its message is."""


class _SectionReader:
    """A state machine over lines."""

    def __init__(self) -> None:
        self._sections: list[TracebackSection] = []
        # A function and no bound method: that would be a cycle, and work for the garbage collector.
        self._read: _State = _SectionReader._before
        self._margin = False
        self._quote = ""
        self._linked = 0
        """After the sentence that links two exceptions: 1, after its blank line: 2."""
        self._uncertain = False
        self._start()

    def _start(self) -> None:
        self._frames: list[Frame] = []
        self._held: list[Frame] = []
        self._named = ""
        self._message: list[str] = []

    def read(self, line: str) -> None:
        """The next line."""
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
        """Lines are missing here."""
        self._uncertain = self._read is _SectionReader._in_frames

    def end(self) -> list[TracebackSection]:
        """What was found."""
        self._close()
        return self._sections

    def _close(self) -> None:
        """The section is complete. One that carries a remote traceback is not: that has sections of its own."""
        if self._read is _SectionReader._in_message and self._named.rpartition(".")[2] not in _REMOTE:
            message = "\n".join(self._message).strip()
            frames, held, remote = tuple(self._frames), tuple(self._held), bool(self._quote)
            self._sections.append(TracebackSection(self._named, message, frames, held, remote))
        self._start()

    def _before(self, line: str) -> None:
        """Nothing of a section was read yet."""
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
        """Foreign text: the next section begins with a header."""
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
        """Behind a remote traceback: the sentence that links it to what follows, or the end."""
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
    """Whether it is the exception line of an exception without frames: stricter, as nothing before it says so."""
    named, message = _split(line)
    return bool(named) and (bool(message) or not named.rpartition(".")[2][0].islower())


def _split(line: str) -> tuple[str, str]:
    """Class and message of an exception line; "" where there is no class."""
    named, _, message = line.partition(":")
    if len(named) > MAX_CLASS_LENGTH or not _CLASS.match(named) or named.endswith("<locals>"):
        return "", ""
    return named, message.strip()
