"""Signatures of Standard Webhooks, version 1: HMAC-SHA256 over id, time and body. Pure.

The specification: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bounds of a secret, in bytes, as the specification sets them."""
_HOW = 'make one with: echo "whsec_$(openssl rand -base64 32)"'


def key_of(secret: str) -> bytes:
    """Return the bytes of a secret.

    Args:
        secret: `whsec_` and base64, with or without the padding at its end.

    Raises:
        ValueError: it is no such secret. The message does not show it.
    """
    if not secret.startswith(PREFIX):
        raise ValueError(f"does not begin with {PREFIX}; {_HOW}")
    encoded = secret.removeprefix(PREFIX).rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"is not base64 after {PREFIX}; {_HOW}") from None
    if not SHORTEST <= len(key) <= LONGEST:
        raise ValueError(f"has {len(key)} bytes, not {SHORTEST} to {LONGEST}; {_HOW}")
    return key


def signature(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`: one signature for each key, separated by a space.

    Args:
        keys: bytes of the secrets; during a rotation the new and the old one.
        message_id: the value of `webhook-id`.
        timestamp: the value of `webhook-timestamp`, in seconds since 1970.
        body: the body as it is sent.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}" for key in keys)
