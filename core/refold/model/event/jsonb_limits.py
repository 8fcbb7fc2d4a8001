"""Limits of metadata in `jsonb`, those of Postgres and of refold, checked before an event is sent.

Postgres refuses the whole batch for one event that it cannot store. Metadata is therefore checked event by event, with
a reason that names the place within it.
"""

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from json.encoder import encode_basestring
from math import isfinite
from typing import Any

from refold.model.event.exact_json import encode_many, kind, metadata_json

MAX_DEPTH = 100
"""Greatest nesting of objects and arrays, counting the outermost; common JSON readers stop at 100 to 255."""

MAX_BYTES = 1024 * 1024
"""Greatest size of metadata, in bytes of the text that Postgres prints for it: `octet_length(metadata::text)`."""

MAX_DIGITS = 2000
"""Most digits of a number as Postgres prints it, before and after the point together, zeros included.

`numeric`, in which `jsonb` keeps numbers, holds 131,072 digits, but readers of JSON hold fewer: Python's `int` stops at
4,300. Every double written out exactly has at most 1,075 digits, and a key of 4,096 bits has 1,234.
"""

_MAX_EXPONENT_OF_ZERO = 2**30 - 2  # beyond it numeric_in refuses even a zero

SURELY_SMALL = 16_000
"""Characters of compact text that cannot exceed MAX_BYTES when Postgres prints it.

At worst it is full of 5e-324, each printed with all its zeros.
"""
# A number that is printed with more than MAX_DIGITS has such a run of digits, if its exponent passes _is_plain.
_MANY_DIGITS = re.compile(r"[0-9]{250}")

_TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep: flatten it"
_TOO_LARGE = f"is larger than {MAX_BYTES} bytes: keep large content elsewhere and refer to it"


def problem(metadata: dict[str, Any]) -> str | None:
    """Return why Postgres cannot store this object unchanged; None if it can.

    Ordinary metadata costs one run of the encoder; only unusual metadata is checked value by value.
    """
    try:
        text = metadata_json(metadata)
    except (TypeError, ValueError, RecursionError):
        return _find_problem(metadata)
    return None if _are_storable([metadata], [text]) else _find_problem(metadata)


def plain_texts(metadatas: Sequence[dict[str, Any]]) -> list[str] | None:
    """Return each metadata as compact JSON text if Postgres can store all of them for certain; None says nothing.

    It costs one run of the C encoder. The texts are those of `metadata_json`.
    """
    try:
        texts = encode_many(metadatas)
    except (TypeError, ValueError, RecursionError):
        return None
    return texts if _are_storable(metadatas, texts) else None


def _are_storable(metadatas: Sequence[dict[str, Any]], texts: Sequence[str]) -> bool:
    """Return whether metadata, written as these texts, are certainly within all limits."""
    if not _is_plain(metadatas):
        return False
    for text in texts:
        if len(text) > 250 and (len(text) > SURELY_SMALL or _MANY_DIGITS.search(text)):
            return False
    together = "".join(texts)
    if not together.isascii():
        try:
            together.encode()
        except UnicodeEncodeError:  # lone surrogates
            return False
    return "\\u0000" not in together


def text_problem(text: str) -> str | None:
    """Return why Postgres cannot store this string; None if it can."""
    if "\0" in text:
        return "contains a NUL character (\\u0000), which Postgres cannot store: remove it"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        return f"contains a lone surrogate ({half}), half a character: send both halves or none"
    return None


_SCALARS = frozenset((str, int, float, bool, type(None)))


def _is_plain(metadatas: Sequence[dict[str, Any]]) -> bool:
    """Return whether depth, keys and types are certainly valid; it goes level by level, for speed."""
    level: Sequence[Any] = metadatas
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for container in level:
            if type(container) is dict:
                for key in container:
                    if type(key) is not str:
                        return False
                values = container.values()
            else:
                values = container
            for value in values:
                if type(value) in _SCALARS:
                    continue
                if type(value) is Decimal and -300 < value.adjusted() < 300:
                    continue
                if type(value) is not dict and type(value) is not list:
                    return False
                below.append(value)
        if not below:
            return True
        level = below
    return False


def _find_problem(metadata: dict[str, Any]) -> str | None:
    """Check every value and the size of the text that Postgres will print; return the first problem, or None."""
    size = 0
    level: list[tuple[str, Any]] = [("", metadata)]
    for _ in range(MAX_DEPTH):
        below: list[tuple[str, Any]] = []
        for path, container in level:
            size += 2 * max(1, len(container))  # brackets, and ", " between the values
            for place, value in _children(path, container):
                if isinstance(value, (dict, list, tuple)):
                    below.append((place, value))
                    continue
                found = _scalar_problem(value)
                if found:
                    return f"{found} (at {place})"
                size += _printed_size(value)
                if size > MAX_BYTES:
                    return _TOO_LARGE
            if isinstance(container, dict):
                size += 2 * len(container)  # ": "
        if not below:
            return None if size <= MAX_BYTES else _TOO_LARGE
        level = below
    return _TOO_DEEP


def _children(path: str, container: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a container, each with its path for messages, such as `items[3].price`."""
    if not isinstance(container, dict):
        for index, value in enumerate(container):
            yield f"{path}[{index}]", value
        return
    for key, value in container.items():
        name = ascii(key)[1:-1][:40] if isinstance(key, str) else _NotAKey(key)
        yield f"the key {name}", key if isinstance(key, str) else _NotAKey(key)
        yield f"{path}.{name}" if path else f"{name}", value


class _NotAKey:
    """A key that is not a string: JSON would convert it, and two keys might become equal."""

    def __init__(self, key: object) -> None:
        self.key = key

    def __str__(self) -> str:
        return ascii(self.key)[:40]


def _scalar_problem(value: object) -> str | None:
    if isinstance(value, str):
        return text_problem(value)
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, _NotAKey):
        return f"has a key that is {kind(value.key)}: keys must be strings"
    if not isinstance(value, (int, float, Decimal)):
        return f"holds {kind(value)}, for which JSON has no form: convert it to a string or a number"
    finite = value.is_finite() if isinstance(value, Decimal) else isinstance(value, int) or isfinite(value)
    if not finite:
        return f"holds {value}, which is not a JSON number: use null or leave it out"
    if sum(_digits(value)) > MAX_DIGITS:
        return f"holds a number of more than {MAX_DIGITS} digits: send it as a string"
    return None


def _digits(value: int | float | Decimal) -> tuple[int, int]:
    """Return the numbers of digits before and after the point that numeric keeps, zeros included."""
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    exponent = int(exact.as_tuple().exponent)
    if exact:
        return max(1, exact.adjusted() + 1), max(0, -exponent)
    return (1 if exponent <= _MAX_EXPONENT_OF_ZERO else exponent), max(0, -exponent)


def _printed_size(value: object) -> int:
    """Return the bytes that Postgres prints for a valid scalar."""
    if isinstance(value, str):
        return len(encode_basestring(value).encode())
    if value is None or isinstance(value, bool):
        return 5 if value is False else 4
    assert isinstance(value, (int, float, Decimal))
    before, after = _digits(value)
    return (value < 0) + before + (after + 1 if after else 0)
