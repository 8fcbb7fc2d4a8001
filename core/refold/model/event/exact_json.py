"""JSON read strictly and written exactly, so that `jsonb` receives what the producer wrote.

Python's `json` is too lenient for a log: of two equal keys it keeps the last, it accepts NaN, and it turns 1.10 into
1.1. This module refuses the first two with a reason, and keeps numbers digit for digit.
"""

import json
import json.encoder
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, InvalidOperation
from math import isfinite
from secrets import token_hex
from typing import Any

_INT64_DIGITS = 18
_DEEP = 500
_SHOWN_DIGITS = 1000
"""Most digits of a number for readers on either side of its point: none would take so long a one."""
_BLANK_BEFORE_COLON = re.compile(r'"[ \t\r\n]+:').search
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"')


def parse_json_line(text: str) -> dict[str, Any]:
    """Read one JSON object.

    Duplicate keys, NaN and Infinity are refused at any depth. A number that a float would print differently
    becomes a Decimal, and 1e3 becomes the integer 1000, as in `jsonb`.

    Raises:
        ValueError: the text is not one JSON object; the error's text completes "the line …".
    """
    value = parse_json(text)
    if type(value) is not dict:
        raise ValueError(f"must be a JSON object, not {kind(value)}")
    return value


def parse_json(text: str) -> Any:
    """Read one JSON value of any kind as `parse_json_line` does, with the same refusals."""
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise ValueError("is nested too deeply: flatten it") from None


def parse_json_lines(texts: Sequence[str]) -> list[dict[str, Any]] | None:
    """Read many JSON objects at once, each as `parse_json_line` does; None if any of them needs a closer look.

    The C decoder reads them as one array. Between any two stands a mark that no file can know, so that a text that is
    not one whole object is seen. Of two equal keys the decoder keeps one: then the keys are fewer than the `":`.

    Args:
        texts: one object each, without white space around it.
    """
    mark = token_hex(16)
    joined = "[" + f',"{mark}",'.join(texts) + "]"
    try:
        found = _MANY_READER.decode(joined)
    except (ValueError, RecursionError):
        return None
    objects: list[dict[str, Any]] = found[::2]
    marks = found[1::2]
    if len(objects) != len(texts) or len(marks) != len(texts) - 1 or marks.count(mark) != len(marks):
        return None
    if set(map(type, objects)) != {dict} or _BLANK_BEFORE_COLON(joined) or _count_keys(objects) != joined.count('":'):
        return None
    return objects


def _count_keys(objects: list[dict[str, Any]]) -> int:
    """Return the number of keys of objects and of all objects within them."""
    count = 0
    level: list[Any] = list(objects)
    while level:
        below: list[Any] = []
        for container in level:
            if type(container) is dict:
                count += len(container)
                container = container.values()
            below += [value for value in container if type(value) is dict or type(value) is list]
        level = below
    return count


def readable(text: str | bytes) -> Any:
    """Read stored JSON for display.

    An integer that is too long for `int` becomes a Decimal. JSON that is nested too deeply to be written again is
    returned as text.
    """
    shown = text if isinstance(text, str) else bytes(text).decode()
    if shown.count("[") + shown.count("{") > _DEEP and _depth(shown) > _DEEP:
        return shown
    try:
        return json.loads(shown)
    except ValueError:
        return json.loads(shown, parse_int=_integer)


def readable_exactly(text: str | bytes) -> Any:
    """Read stored JSON for display as `readable` does, with fractions as Decimals: 1.10 keeps its zero."""
    shown = text if isinstance(text, str) else bytes(text).decode()
    if shown.count("[") + shown.count("{") > _DEEP and _depth(shown) > _DEEP:
        return shown
    return json.loads(shown, parse_float=Decimal, parse_int=_integer)


def document(value: object, plain: Callable[[object], Any], *, indent: int | None = None) -> str:
    """Return a value as JSON text for readers, with Decimals digit for digit.

    Args:
        value: the value.
        plain: converts what JSON has no type for, except for finite Decimals.
        indent: spaces per level; None is one line.
    """
    # The encoder knows no number of any length. No value knows the mark.
    mark = token_hex(16)

    def formed(one: object) -> Any:
        if isinstance(one, Decimal) and one.is_finite() and abs(one.adjusted()) <= _SHOWN_DIGITS:
            return f"{mark}{one:f}"
        return plain(one)

    text = json.dumps(value, indent=indent, ensure_ascii=False, default=formed)
    return re.sub(f'"{mark}([^"]*)"', r"\1", text) if mark in text else text


def _depth(text: str) -> int:
    """Return the greatest number of brackets that are open at once."""
    deepest = now = 0
    # Brackets within strings do not nest: the error of an event may quote a thousand of them.
    for character in _STRING.sub("", text):
        if character in "[{":
            now += 1
            deepest = max(deepest, now)
        elif character in "]}":
            now -= 1
    return deepest


def metadata_json(metadata: dict[str, Any]) -> str:
    """Return metadata as compact JSON text, with Decimals and integers of any length digit for digit.

    Raises:
        TypeError: JSON has no form for a value; the metadata of a validated event never raises it.
    """
    try:
        return encode(metadata)
    except (TypeError, ValueError):
        return _write(metadata)


def encode(value: object) -> str:
    """Return a value as compact JSON text, with the C encoder.

    Raises:
        TypeError: JSON has no form for a value, such as a Decimal.
        ValueError: a number is NaN or infinite, or an integer has more digits than Python converts to text.
    """
    return "".join(_chunks(value, 0))


def encode_many(values: Sequence[object]) -> list[str]:
    """Return values as `encode` does, with one run of the encoder: between any two stands a mark that no value has.

    Raises:
        TypeError: JSON has no form for one of them.
        ValueError: one holds a number that `encode` refuses.
    """
    if not values:
        return []
    mark = token_hex(16)
    marked: list[object] = [mark] * (2 * len(values) - 1)
    marked[::2] = values
    return encode(marked)[1:-1].split(f',"{mark}",')


def kind(value: object) -> str:
    """Return the JSON type of a value for a message, with its article."""
    for types, name in _KINDS:
        if isinstance(value, types):
            return name
    return f"a Python {type(value).__name__}"


_KINDS: tuple[tuple[Any, str], ...] = (
    (type(None), "null"),
    (bool, "a boolean"),
    ((int, float, Decimal), "a number"),
    (str, "a string"),
    (dict, "an object"),
    ((list, tuple), "an array"),
)


class _Refused(ValueError):
    """JSON that the decoder accepts, but that cannot be kept unchanged."""


def _decode(text: str) -> object:
    try:
        return _READER.decode(text)
    except (json.JSONDecodeError, _Refused):
        raise
    except ValueError:
        # int() refuses more digits than sys.get_int_max_str_digits(). A hook for every integer costs 20 % of the time,
        # so the hook is used only here.
        return _LONG_INTEGER_READER.decode(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for position, key in enumerate(keys) if key in keys[:position])
        raise _Refused(f"has the key {twice[:40]!r} twice in one object: keep one")
    return result


def _constant(text: str) -> object:
    raise _Refused(f"holds {text}, which is not a JSON number: use null or leave it out")


def _fraction(text: str) -> float | int | Decimal:
    """Read a number that has a point or an exponent; as a float only if that loses nothing."""
    value = float(text)
    if repr(value) == text:
        return value
    try:
        exact = Decimal(text)
    except InvalidOperation:
        raise _Refused(f"holds the number {text[:40]}, which is out of range") from None
    whole = int(exact.as_tuple().exponent) >= 0
    if whole and (not exact or exact.adjusted() < _INT64_DIGITS):
        # jsonb stores 1e3 as 1000 and 0e9 as 0, and every reader of the event must see the same integer.
        return int(exact) if exact else 0
    return exact


def _integer(text: str) -> int | Decimal:
    try:
        return int(text)
    except ValueError:
        return Decimal(text)


_READER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_fraction, parse_constant=_constant)
_LONG_INTEGER_READER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_fraction, parse_constant=_constant, parse_int=_integer
)

_MANY_READER = json.JSONDecoder(parse_float=_fraction, parse_constant=_constant)

string: Callable[[str], str] = json.encoder.encode_basestring
"""Return a text as JSON."""


def _write(value: object) -> str:
    """Return JSON text for values that the C encoder refuses.

    This is slower. It is recursive, so that the caller must have checked the depth.
    """
    if isinstance(value, str):
        return string(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{string(key)}:{_write(inner)}" for key, inner in value.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([_write(inner) for inner in value]) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Decimal) and value.is_finite():
        return str(value)
    if isinstance(value, float) and isfinite(value):
        return float.__repr__(value)
    if isinstance(value, int):
        try:
            return int.__repr__(value)
        except ValueError:
            return str(Decimal(value))
    raise TypeError(f"JSON has no form for {value!r:.80}")


def _no_form(value: object) -> object:
    raise TypeError(f"JSON has no form for {kind(value)}")


def _c_encoder() -> Callable[[object, int], Iterable[str]]:
    """Return an encoder that is built once; `JSONEncoder.encode` builds one for every call (2.8 µs instead of 1.0)."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is not None:
        chunks: Callable[[object, int], Iterable[str]]
        chunks = make(None, _no_form, string, None, ":", ",", False, False, False)
        return chunks
    python = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_no_form)
    return lambda value, _indent: python.iterencode(value)


_chunks = _c_encoder()
