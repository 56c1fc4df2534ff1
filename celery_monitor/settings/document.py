"""The YAML file, and what is wrong with it in words that repeat nothing of it: any text may be an unquoted password."""

import os
import re
from pathlib import Path
from typing import Any, Final

import yaml

from celery_monitor.errors import Problem

_TOKENS: Final = frozenset(
    token.id for name, token in vars(yaml.tokens).items() if name.endswith("Token") and hasattr(token, "id")
)
"""What the parser quotes of its own language, such as ``,`` and ``<stream end>``."""
_TAB: Final = repr("\t")
_QUOTED: Final = re.compile(r"\s*(['\"]).*\1")
_HELD: Final = "\x00"
_TWICE: Final = "the same key stands twice in a section"
_BRACKETS: Final = {"while parsing a flow sequence": "[", "while parsing a flow mapping": "{"}


def read(path: Path) -> Any:  # noqa: ANN401 - whatever stands in it
    """What the file holds; a Problem when it cannot be read."""
    try:
        return yaml.load(path.read_bytes(), Loader=_UniqueKeys)  # noqa: S506 - derived from SafeLoader
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
        return Problem(str(path), f"cannot read the configuration: {reason}")
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        return Problem(where, f"is not YAML: {_told(exc)}")
    except yaml.YAMLError:
        return Problem(str(path), "is not YAML: it holds characters that no text has")
    except (ValueError, LookupError, AttributeError, RecursionError):
        # The library's constructors of dates, numbers and explicit tags raise whatever comes.
        return Problem(str(path), "is not YAML: it holds a date or number that is none")


def _told(exc: yaml.MarkedYAMLError) -> str:
    """What the parser says, and what was probably meant."""
    problem = exc.problem or "cannot be read"
    if problem == _TWICE:
        return problem
    if _TAB in problem:
        return "the line begins with a tab; indent with spaces"
    told = _without_quotes(problem)
    if exc.context in _BRACKETS and exc.context_mark is not None:
        return f"{told}; is the {_BRACKETS[exc.context]} of line {exc.context_mark.line + 1} closed?"
    if "<block end>" in told:
        return f"{told}; all keys of a section begin in the same column"
    return f"{told}; texts with special characters (: # * & ! % @ {{ [) need quotes"


def _without_quotes(text: str) -> str:
    """Without what is quoted of the file; what is of YAML's own language stays."""
    held = [f"'{token}'" for token in _TOKENS if f"'{token}'" in text]
    for number, token in enumerate(held):
        text = text.replace(token, f"{_HELD}{number}{_HELD}")
    text = _QUOTED.sub("", text)
    for number, token in enumerate(held):
        text = text.replace(f"{_HELD}{number}{_HELD}", token)
    return text


class _UniqueKeys(yaml.SafeLoader):
    """YAML itself forbids a key that stands twice; the library takes the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - the library's signature
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for count, key in enumerate(keys):
            if any(key.value == earlier.value for earlier in keys[:count]):
                raise yaml.constructor.ConstructorError(problem=_TWICE, problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)
