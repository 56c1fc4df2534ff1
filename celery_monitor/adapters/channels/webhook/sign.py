"""Signatures as Standard Webhooks define them: HMAC-SHA256 over ``id.timestamp.body``. Pure.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
from typing import Final

PREFIX: Final = "whsec_"
_MIN_BYTES: Final = 24
_MAX_BYTES: Final = 64


def key_of(secret: str) -> bytes:
    """The signing key that a secret encodes.

    Raises:
        ValueError: The secret is invalid. The message describes the required form and contains no part of the secret.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if not secret.startswith(PREFIX) or not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise ValueError(
            f"must be {PREFIX} and {_MIN_BYTES} to {_MAX_BYTES} random bytes in Base64: "
            f'echo "{PREFIX}$(openssl rand -base64 32)" makes one'
        )
    return key


def headers(secret: str, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers by which the receiver verifies the sender and recognises duplicates."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()
    return {"webhook-id": event_id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{signature}"}
