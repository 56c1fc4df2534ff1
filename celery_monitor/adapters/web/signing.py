"""Signed texts for cookies, which only this fleet's monitors can create.

A signed text is ``<content>.<signature>``, both in URL-safe base64: JSON with an expiry time (``until``), and
HMAC-SHA256 over the content and its purpose. Everybody can read the content, and nobody can change it.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

MAX_SIGNED: Final = 4096
"""Maximum length in characters: browsers do not store longer cookies."""


class Signer:
    """Signs and verifies. ``secret`` is called each time, because its file may change; with None, nothing is valid.

    ``context`` is part of every signature: fleets with different contexts or settings do not accept each other's
    signatures.
    """

    def __init__(self, secret: Callable[[], str | None], context: str) -> None:
        self._secret = secret
        self._context = context.encode()

    def sign(self, purpose: str, content: Mapping[str, Any], until: float) -> str:
        """``content`` as a signed text, valid until ``until`` in Unix seconds. Raises ValueError without a secret."""
        body = _encoded(json.dumps({**content, "until": until}, separators=(",", ":")).encode())
        return f"{body}.{_encoded(self.derive(purpose, body))}"

    def read(self, purpose: str, signed: str, now: float) -> dict[str, Any] | None:
        """The content; None if the text is invalid for any reason."""
        body, _, signature = signed.partition(".")
        if len(signed) > MAX_SIGNED or not signed.isascii():
            return None
        try:
            if not hmac.compare_digest(_encoded(self.derive(purpose, body)), signature):
                return None
            content = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (ValueError, binascii.Error):
            return None
        return content if isinstance(content, dict) and _is_valid(content.get("until"), now) else None

    def derive(self, purpose: str, text: str) -> bytes:
        """32 bytes that only holders of the secret can compute. Raises ValueError without a secret."""
        secret = self._secret()
        if not secret:
            raise ValueError("there is no key")
        key = hmac.digest(secret.encode(), b"celery-monitor\0" + self._context, sha256)
        return hmac.digest(key, f"{purpose}\0{text}".encode(), sha256)


def _is_valid(until: object, now: float) -> bool:
    return isinstance(until, int | float) and now < until


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
