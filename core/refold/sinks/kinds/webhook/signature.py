"""Signatures of webhooks: Standard Webhooks, version v1 (https://www.standardwebhooks.com). Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """Return the key of a secret, `whsec_` and base64.

    Raises:
        ValueError: the secret has another form, or a key of less than 24 bytes; the message does not hold it.
    """
    if not secret.startswith(PREFIX):
        raise ValueError(f"does not begin with {PREFIX}")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"is not base64 after {PREFIX}") from None
    if len(key) < 24:
        raise ValueError("has fewer than 24 bytes")
    return key


def signatures(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header `webhook-signature`: one signature for each key.

    Args:
        keys: the keys; several while a secret is rotated.
        message_id: the header `webhook-id`.
        timestamp: seconds since 1970, the header `webhook-timestamp`.
        body: the body.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys)
