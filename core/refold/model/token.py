"""Tokens of the HTTP door: what they look like, and what the database keeps of them. Pure.

A token tells by its first letters what it is, so that scanners for leaked secrets find it, and by its last ones that it
was not mistyped. It is random and long, so one SHA-256 is as good as a slow hash, which is for what people choose.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from typing import Literal, get_args

Kind = Literal["secret", "write_key"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_PREFIX: dict[Kind, str] = {"secret": "rfd_secret_", "write_key": "rfd_write_"}
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM = 43
"""Characters that are drawn: 256 bits."""
_CHECK = 6
"""Characters of the checksum, a CRC-32."""
_FORM = re.compile(f"rfd_(?:secret|write)_[0-9A-Za-z]{{{_RANDOM + _CHECK}}}")


def draw(kind: Kind) -> str:
    """Return a new token."""
    body = _PREFIX[kind] + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return body + _checksum(body)


def is_token(text: str) -> bool:
    """Return whether a text has the form of a token, and its checksum is right."""
    return _FORM.fullmatch(text) is not None and text[-_CHECK:] == _checksum(text[:-_CHECK])


def digest(token: str) -> bytes:
    """Return what the database keeps: the SHA-256 of the token."""
    return hashlib.sha256(token.encode()).digest()


def hint(token: str) -> str:
    """Return the beginning of a token, by which a person recognises it."""
    return token[: token.rindex("_") + 5] + "…"


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    text = ""
    for _ in range(_CHECK):
        number, digit = divmod(number, len(_ALPHABET))
        text = _ALPHABET[digit] + text
    return text
