"""Finds names by a typed part or by a pattern with ``*`` and ``?``, ignoring case.

The text is matched against the known names, whose number is bounded; the store is then queried for the matches.
"""

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Final

from celery_monitor.adapters.web.parameters import stored_text

MAX_NAMES: Final = 500
"""Maximum number of names in one query."""
SUGGESTED: Final = 5
_COMPARED: Final = 2_000_000
"""Maximum number of character pairs that are compared for suggestions, which takes a fifth of a second."""
_MAX_PATTERN: Final = 2_000
"""Maximum length of a pattern with wildcards: compiling a longer one takes time, and no name is that long."""
_UUID: Final = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""A task ID as Celery creates it, which is in lower case."""
_WILDCARD: Final = re.compile(r"[*?]")


def matcher(text: str) -> Callable[[str], bool]:
    """A predicate: whether a name matches the text. It takes linear time for any text."""
    needle = stored_text(text.strip()).casefold()
    if not _WILDCARD.search(needle):
        return lambda name: needle in name.casefold()
    if len(needle) > _MAX_PATTERN:
        return lambda _: False
    # Brackets are literal characters here, not character sets.
    pattern = re.compile(fnmatch.translate(needle.replace("[", "[[]")))
    return lambda name: pattern.match(name.casefold()) is not None


def find(text: str, names: Iterable[str]) -> list[str]:
    """The matching names; only the name itself if it was typed in full."""
    all_names = list(names)
    if text in all_names:
        return [text]
    matches = matcher(text)
    return [name for name in all_names if matches(name)]


def suggestions(text: str, names: Sequence[str]) -> list[str]:
    """Names that are similar to the text, most similar first."""
    needle = text.casefold().strip(" *?")
    lowered = {name.casefold(): name for name in _first(names, _COMPARED // max(1, len(needle)))}
    close = difflib.get_close_matches(needle, lowered, SUGGESTED, 0.5)
    if close:
        return [lowered[name] for name in close]
    # People often remember only the last part of a name.
    by_last: dict[str, list[str]] = {}
    for name in lowered:
        by_last.setdefault(name.rpartition(".")[2], []).append(name)
    close = difflib.get_close_matches(needle, by_last, SUGGESTED, 0.6)
    return [lowered[name] for last in close for name in by_last[last]][:SUGGESTED]


def _first(names: Sequence[str], characters: int) -> list[str]:
    """The first names whose total length is at most ``characters``."""
    lengths = accumulate(map(len, names))
    return [name for name, length in zip(names, lengths, strict=False) if length <= characters]


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID, ignoring surrounding spaces."""
    return _UUID.fullmatch(text.strip()) is not None


def ids_in(text: str) -> list[str]:
    """Task IDs that the text may mean, most likely first: the text itself, stripped, unquoted, or a UUID in it.

    So a line of a worker's log (``Task shop.charge[5a1b...] received``) also works.
    """
    match = _UUID.search(text)
    spelled = [text, text.strip(), text.strip().strip("'\"`"), match[0].lower() if match else ""]
    return list(dict.fromkeys(filter(None, spelled)))
