"""Reads the YAML file. Errors repeat nothing from the file, because any text may be an unquoted password."""

import os
import re
import select
import stat
from pathlib import Path
from typing import Any, Final

import yaml

from celery_monitor.errors import Problem
from celery_monitor.settings.secret import unreadable

MAX_BYTES: Final = 1 << 20
"""Maximum size of the file. A thousand rules take a quarter of it."""
MAX_DEPTH: Final = 50
MAX_NODES: Final = 100_000
"""Maximum number of keys, values and lists, with aliases expanded: a few lines of aliases can expand to billions."""
_PIPE_TIMEOUT: Final = 10.0
"""Seconds to wait for the writer of a pipe (``--config <(sops -d config.yaml)``)."""

_TOKENS: Final = frozenset(
    token.id for name, token in vars(yaml.tokens).items() if name.endswith("Token") and hasattr(token, "id")
)
"""Tokens of YAML that the parser quotes in errors, such as ``,`` and ``<stream end>``."""
_TAB: Final = repr("\t")
_QUOTED: Final = re.compile(r"\s*(['\"]).*\1")
_PLACEHOLDER: Final = "\x00"
_TWICE: Final = "duplicate key in a section"
_DEEP: Final = f"it is nested more than {MAX_DEPTH} levels deep"
_LARGE: Final = f"it has more than {MAX_NODES:,} values (aliases count as what they stand for)"
_ENDLESS: Final = "an alias refers to a value that contains it"
_REFUSED: Final = frozenset({_DEEP, _LARGE, _ENDLESS})
"""Errors of files that are valid YAML."""
_BRACKETS: Final = {"while parsing a flow sequence": "[", "while parsing a flow mapping": "{"}
_BOOLEAN: Final = "tag:yaml.org,2002:bool"
_STRING: Final = "tag:yaml.org,2002:str"
_MEANT: Final = {
    _TWICE: _TWICE,
    "but found another document": "the file has more than one document; remove the line ---",
    "found undefined alias": "an alias (*name) has no anchor (&name); a text that begins with * needs quotes",
    "found duplicate anchor": "the same anchor (&name) is defined twice",
    "found unhashable key": "a key must be a plain text",
}


def read(path: Path) -> Any:  # noqa: ANN401 - any document
    """The parsed content of the file; a Problem if it cannot be read."""
    content = b""
    try:
        content = _content(path)
        return yaml.load(content, Loader=_Loader)  # noqa: S506 - derived from SafeLoader
    except OSError as exc:
        return Problem(str(path), f"cannot read the configuration: {unreadable(exc)}")
    except _UnreadableError as exc:
        return Problem(str(path), f"cannot read the configuration: {exc}")
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        return Problem(where, exc.problem if exc.problem in _REFUSED else f"is not YAML: {_problem(exc)}")
    except yaml.reader.ReaderError as exc:
        return _not_text(path, content, exc)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError):
        # The library's constructors of dates, numbers and explicit tags raise various exceptions.
        return Problem(str(path), "is not YAML: it contains an invalid date or number; quote strings")


class _UnreadableError(Exception):
    """No configuration can be read from the file."""


def _content(path: Path) -> bytes:
    """The content of the file or pipe. Raises OSError, and _UnreadableError if it never ends or is too large."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = os.fstat(file).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind) or stat.S_ISDIR(kind)):
            raise _UnreadableError("it is not a regular file")
        content = b""
        while len(content) <= MAX_BYTES:
            if stat.S_ISFIFO(kind) and not select.select([file], [], [], _PIPE_TIMEOUT)[0]:
                raise _UnreadableError(f"it is a pipe, and nothing was written to it for {_PIPE_TIMEOUT:.0f} s")
            part = os.read(file, MAX_BYTES + 1)
            if not part:
                return content
            content += part
    finally:
        os.close(file)
    raise _UnreadableError(f"it is larger than {MAX_BYTES} bytes; is it the right file?")


def _not_text(path: Path, content: bytes, exc: yaml.reader.ReaderError) -> Problem:
    if exc.encoding == "unicode":  # The library's marker for decoded text with a character that YAML forbids.
        text = content.decode(errors="replace")
        line = text.count("\n", 0, exc.position) + 1
        return Problem(f"{path}:{line}", "is not YAML: the line has a control character")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Problem(str(path), "is not text; save it as UTF-8")
    line = content.count(b"\n", 0, exc.position) + 1
    return Problem(f"{path}:{line}", "is not UTF-8 text; save the file as UTF-8")


def _problem(exc: yaml.MarkedYAMLError) -> str:
    """The parser's message, and what was probably intended."""
    problem = exc.problem or "cannot be read"
    if _TAB in problem:
        mark = exc.problem_mark
        begins = mark is None or not (mark.buffer or "")[: mark.pointer].rpartition("\n")[2].strip()
        return (
            "the line begins with a tab; indent with spaces"
            if begins
            else "there is a tab before the value; use a space"
        )
    reason = _without_quotes(problem)
    if reason in _MEANT:
        return _MEANT[reason]
    if exc.context in _BRACKETS and exc.context_mark is not None:
        return f"{reason}; is the {_BRACKETS[exc.context]} of line {exc.context_mark.line + 1} closed?"
    if "<block end>" in reason:
        return f"{reason}; all keys of a section must begin in the same column"
    return f"{reason}; texts with special characters (: # * & ! % @ {{ [) need quotes"


def _without_quotes(text: str) -> str:
    """The message without quotes from the file; YAML's own tokens are kept."""
    quoted = [f"'{token}'" for token in _TOKENS if f"'{token}'" in text]
    for number, token in enumerate(quoted):
        text = text.replace(token, f"{_PLACEHOLDER}{number}{_PLACEHOLDER}")
    text = _QUOTED.sub("", text)
    for number, token in enumerate(quoted):
        text = text.replace(f"{_PLACEHOLDER}{number}{_PLACEHOLDER}", token)
    return text


def _refused(problem: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    mark = event.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark if isinstance(mark, yaml.Mark) else None)


class _Loader(yaml.SafeLoader):
    """The library's loader with bounds and an error for duplicate keys.

    YAML forbids duplicate keys; the library silently uses the last one.
    """

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self._depth = 0
        self._nodes = 0
        self._sizes: dict[int, int] = {}
        """Identity of an anchor's node → number of nodes in it."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401 - the library's
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        nodes_before = self._nodes
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _refused(_DEEP, event)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                raise _refused(_ENDLESS, event)
            self._nodes += self._sizes[id(node)]
        else:
            self._nodes += 1
            self._sizes[id(node)] = self._nodes - nodes_before
        if self._nodes > MAX_NODES:
            raise _refused(_LARGE, event)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - the library's signature
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    raise yaml.constructor.ConstructorError(problem=_TWICE, problem_mark=key.start_mark)
                keys.add(key.value)
                if key.tag == _BOOLEAN:  # keys are strings: in YAML 1.1, which the library implements, ``on:`` is true
                    key.tag = _STRING
        return super().construct_mapping(node, deep)
