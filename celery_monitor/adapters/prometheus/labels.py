"""Converts untrusted text to label values: printable, at most ``MAX_LENGTH`` characters, and still distinct."""

import hashlib
import re
from typing import Final

MAX_LENGTH: Final = 200
_DIGITS: Final = 16

_plain: Final = re.compile(r"[ !#-\[\]-~]*").fullmatch
"""ASCII that needs neither cleaning nor escaping. Nearly every name matches, so this fast path pays off."""


def label_text(text: str) -> str:
    """The text as a label value, not escaped.

    A text that is too long or not printable ends in ``~`` and 16 hex digits of its SHA-256, like long dedup keys, so
    that different names stay different.
    """
    if len(text) <= MAX_LENGTH and text.isprintable():
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    head = text[: MAX_LENGTH - _DIGITS - 1]
    return "".join([char if char.isprintable() else "?" for char in head]) + "~" + digest


def escaped(text: str) -> str:
    """The text as a label value, escaped for both formats."""
    if len(text) <= MAX_LENGTH and _plain(text):
        return text
    # A cleaned value contains no newline, the third character that the formats escape.
    return label_text(text).replace("\\", "\\\\").replace('"', '\\"')


def host(hostname: str) -> str:
    """The label ``hostname`` of a worker: the part after the ``@`` of ``celery@box``, as in celery-exporter."""
    return label_text(hostname.partition("@")[2] or hostname)
