"""Extracts the part of an untrusted traceback that is worth reading."""

from typing import Final

FRAMES: Final = 2
"""Last frames that are shown in addition to the application's own."""
ENDING: Final = 6
"""Lines that are shown of one frame or of the exception's message."""
WIDTH: Final = 200
_CUT: Final = "  …"
_FRAME: Final = '  File "'
_LIBRARIES: Final = "/site-packages/"


def relevant_tail(traceback: str, frame: str = "") -> str:
    """The part of a traceback that is worth reading: the application's own frame, the last frames and the exception.

    ``frame``: an error group's frame, such as ``path/of/app.py:function``. Paths are shortened to their ends and column
    markers are removed.
    """
    lines = [line for line in traceback.rstrip().splitlines() if line.strip(" ^~") or not line]
    frames = [index for index, line in enumerate(lines) if line.startswith(_FRAME)]
    if not frames:
        return "\n".join(map(_shortened, lines[-2 * ENDING :]))
    path, _, function = frame.rpartition(":")
    name = path.rpartition("/")[2]
    own_frames = [
        index for index in frames if name and f'{name}"' in lines[index] and lines[index].endswith(f"in {function}")
    ]
    # The frames before the application's belong to Celery; those after it are what the application called.
    begin = own_frames[-1] if own_frames else frames[0]
    lines_shown = sorted({*own_frames[-1:], *[index for index in frames if index >= begin][-FRAMES:]})
    ends = [*frames[1:], len(lines)]
    out: list[str] = []
    for index in lines_shown:
        block = lines[index : ends[frames.index(index)]]
        if index > frames[0] and (index == lines_shown[0] or frames[frames.index(index) - 1] not in lines_shown):
            out.append(_CUT)
        if len(block) > ENDING:
            block = [*block[: ENDING - 3], _CUT, *block[-2:]]
        out += block
    return "\n".join(map(_shortened, out))


def _shortened(line: str) -> str:
    if line.startswith(_FRAME):
        # No regular expression: a crafted line could make it slow.
        path, quote, rest = line.removeprefix(_FRAME).partition('"')
        parts = path.rpartition(_LIBRARIES)
        end = parts[2] if parts[1] else "/".join(path.split("/")[-3:])
        line = f"{_FRAME}{'…/' if end != path else ''}{end}{quote}{rest}"
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
