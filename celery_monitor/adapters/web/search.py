"""Finding names by what people type: a part of a name, or a pattern with ``*`` and ``?``; case does not matter.

What is typed is matched against the names that are known, which are bounded; the store is then asked for these names.
"""

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

MAX_NAMES: Final = 500
"""Names that one search asks the store for."""
SUGGESTED: Final = 5
_COMPARED: Final = 2_000
"""Names that are compared for a suggestion: that takes time for each."""
_WILDCARD: Final = re.compile(r"[*?]")


def matcher(text: str) -> Callable[[str], bool]:
    """Whether a name is meant. Takes linear time, whatever was typed: a pattern's parts are looked for in turn."""
    wanted = text.casefold().strip()
    if not _WILDCARD.search(wanted):
        return lambda name: wanted in name.casefold()
    # Brackets are names' own characters here, not sets.
    pattern = re.compile(fnmatch.translate(wanted.replace("[", "[[]")))
    return lambda name: pattern.match(name.casefold()) is not None


def find(text: str, names: Iterable[str]) -> list[str]:
    """The names that are meant: that one alone when it is typed in full."""
    known = list(names)
    if text in known:
        return [text]
    matches = matcher(text)
    return [name for name in known if matches(name)]


def suggestions(text: str, names: Sequence[str]) -> list[str]:
    """Names that are like what was typed, the most alike first."""
    lowered = {name.casefold(): name for name in names[:_COMPARED]}
    close = difflib.get_close_matches(text.casefold().strip(" *?"), lowered, SUGGESTED, 0.5)
    return [lowered[name] for name in close]
