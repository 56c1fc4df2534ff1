"""What is worth reading of a traceback, out of hostile text."""

from typing import Final

FRAMES: Final = 2
"""Last frames, beside the application's own."""
ENDING: Final = 6
"""Lines kept of the last frame's source and the exception's message."""
WIDTH: Final = 200
_CUT: Final = "  …"
_FRAME: Final = '  File "'
_LIBRARIES: Final = "/site-packages/"


def relevant_tail(traceback: str, frame: str = "") -> str:
    """What is worth reading of a traceback: the application's own frame, the last ones, and the exception.

    ``frame`` is an error group's: ``path/of/app.py:function``. Paths are cut to their ends, markers of columns fall
    away.
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
    # What leads to the application's frame is Celery's; what follows it is what the application called.
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
        # By hand: a regular expression is slow on lines that are made to be slow.
        path, quote, rest = line.removeprefix(_FRAME).partition('"')
        parts = path.rpartition(_LIBRARIES)
        end = parts[2] if parts[1] else "/".join(path.split("/")[-3:])
        line = f"{_FRAME}{'…/' if end != path else ''}{end}{quote}{rest}"
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
