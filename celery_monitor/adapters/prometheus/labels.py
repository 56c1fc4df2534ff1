"""Label values from hostile input: printable, at most ``MAX_LENGTH`` characters, and still distinct."""

import hashlib
import re
from typing import Final

MAX_LENGTH: Final = 200
_DIGITS: Final = 16

_plain: Final = re.compile(r"[ !#-\[\]-~]*").fullmatch
"""ASCII that needs neither cleaning nor escaping: nearly every name, so it is worth a fast way."""


def label_text(text: str) -> str:
    """The text as a label value, not escaped.

    What is too long or not printable ends in ``~`` and 16 hex digits of the whole text's sha256, as long dedup keys
    do: two tasks never become one by being cut.
    """
    if len(text) <= MAX_LENGTH and text.isprintable():
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    head = text[: MAX_LENGTH - _DIGITS - 1]
    return "".join([char if char.isprintable() else "?" for char in head]) + "~" + digest


def escaped(text: str) -> str:
    """The text as it stands between the quotes of both formats."""
    if len(text) <= MAX_LENGTH and _plain(text):
        return text
    # A cleaned value holds no newline, the third character that the formats escape.
    return label_text(text).replace("\\", "\\\\").replace('"', '\\"')


def host(hostname: str) -> str:
    """The label ``hostname`` of a worker: what stands after the ``@`` of ``celery@box``, as in celery-exporter."""
    return label_text(hostname.partition("@")[2] or hostname)
