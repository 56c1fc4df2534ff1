"""Splits a traceback into blocks and separates the application's frames from those of libraries.

A reader looks for the application's frame first; Celery's own frames are the same for every task.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from celery_monitor.core.classify import is_library

Kind = Literal["text", "frame", "own", "raised"]

_FRAME: Final = re.compile(r'[ |+-]{0,40}File "([^"\n]{1,500})", line -?\d{1,9}(?:, in ([^\n]{1,200}))?')
_HEADERS: Final = ("Traceback", "During handling of", "The above exception was")


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that belong together."""

    kind: Kind
    lines: tuple[tuple[bool, str], ...]
    """(is a line of column markers, which are useless if lines are wrapped; line)."""


def blocks(traceback: str, frame: str = "") -> list[Block]:
    """The complete text in order: all lines joined by line feeds are the traceback.

    ``frame``: the frame of its error group, ``path/of/app.py:function``, for applications that are installed like
    libraries.
    """
    runs: list[tuple[Kind, list[str]]] = []
    for line in traceback.split("\n"):
        kind = _kind(line, frame)
        if kind is None and runs and runs[-1][0] in {"own", "frame"}:
            runs[-1][1].append(line)  # a frame's source and the marks below it
        elif kind in {"own", "frame"} or not runs or runs[-1][0] != (kind or "text"):
            runs.append((kind or "text", [line]))
        else:
            runs[-1][1].append(line)
    return [Block(kind, tuple((bool(line) and not line.strip(" ^~"), line) for line in lines)) for kind, lines in runs]


def _kind(line: str, frame: str) -> Kind | None:
    """The kind of block that the line starts; None if it belongs to the previous line."""
    if match := _FRAME.match(line):
        path, function = match[1].replace("\\", "/"), match[2] or ""
        path_of_frame, _, within = frame.rpartition(":")
        is_application = bool(path_of_frame) and function == within and path.endswith(path_of_frame)
        return "own" if is_application or not is_library(match[1]) else "frame"
    if line[:1] in {" ", "\t", "|"}:
        return None
    return "text" if not line or line.startswith(_HEADERS) else "raised"
