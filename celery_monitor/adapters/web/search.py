"""Finding names by what people type: a part of a name, or a pattern with ``*`` and ``?``; case does not matter.

What is typed is matched against the names that are known, which are bounded; the store is then asked for these names.
"""

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Final

from celery_monitor.adapters.web.parameters import stored_text

MAX_NAMES: Final = 500
"""Names that one search asks the store for."""
SUGGESTED: Final = 5
_COMPARED: Final = 2_000_000
"""Pairs of characters, of what was typed and of names, that are compared for a suggestion: a fifth of a second."""
_MAX_PATTERN: Final = 2_000
"""Characters of a pattern with wildcards; compiling a longer one takes time, and no name is as long."""
_UUID: Final = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""What Celery makes, in lower case."""
_WILDCARD: Final = re.compile(r"[*?]")


def matcher(text: str) -> Callable[[str], bool]:
    """Whether a name is meant. Takes linear time, whatever was typed: a pattern's parts are looked for in turn."""
    needle = stored_text(text.strip()).casefold()
    if not _WILDCARD.search(needle):
        return lambda name: needle in name.casefold()
    if len(needle) > _MAX_PATTERN:
        return lambda _: False
    # Brackets are names' own characters here, not sets.
    pattern = re.compile(fnmatch.translate(needle.replace("[", "[[]")))
    return lambda name: pattern.match(name.casefold()) is not None


def find(text: str, names: Iterable[str]) -> list[str]:
    """The names that are meant: that one alone when it is typed in full."""
    all_names = list(names)
    if text in all_names:
        return [text]
    matches = matcher(text)
    return [name for name in all_names if matches(name)]


def suggestions(text: str, names: Sequence[str]) -> list[str]:
    """Names that are like what was typed, the most alike first."""
    needle = text.casefold().strip(" *?")
    lowered = {name.casefold(): name for name in _first(names, _COMPARED // max(1, len(needle)))}
    close = difflib.get_close_matches(needle, lowered, SUGGESTED, 0.5)
    if close:
        return [lowered[name] for name in close]
    # People remember the last part of a name, and mistype that.
    by_last: dict[str, list[str]] = {}
    for name in lowered:
        by_last.setdefault(name.rpartition(".")[2], []).append(name)
    close = difflib.get_close_matches(needle, by_last, SUGGESTED, 0.6)
    return [lowered[name] for last in close for name in by_last[last]][:SUGGESTED]


def _first(names: Sequence[str], characters: int) -> list[str]:
    """The first names that have no more than so many characters together."""
    lengths = accumulate(map(len, names))
    return [name for name, length in zip(names, lengths, strict=False) if length <= characters]


def is_uuid(text: str) -> bool:
    """Whether it is one, as Celery makes them, with spaces around it or not."""
    return _UUID.fullmatch(text.strip()) is not None


def ids_in(text: str) -> list[str]:
    """Task IDs that may be meant, the likeliest first: as typed, without spaces around it, as Celery writes a UUID.

    A line of a worker's log (``Task shop.charge[5a1b...] received``) is searched for one, too.
    """
    match = _UUID.search(text)
    spelled = [text, text.strip(), text.strip().strip("'\"`"), match[0].lower() if match else ""]
    return list(dict.fromkeys(filter(None, spelled)))
