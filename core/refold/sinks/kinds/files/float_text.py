"""Floats as PostgreSQL writes them: the fewest digits that lie strictly nearest to the value."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

_PLAIN_BELOW = {24: 6, 53: 15}
"""Decimal exponents from which on PostgreSQL writes an exponent, by the bits of the significand."""
_MOST_DIGITS = {24: 9, 53: 17}


def float_text(value: float, bits: int = 53) -> str:
    """Return the text that PostgreSQL writes for a float with `extra_float_digits` of 1 to 3. Pure.

    Args:
        value: the float.
        bits: 53 for `double precision`, 24 for `real`.
    """
    if math.isnan(value):
        return "NaN"
    sign = "-" if math.copysign(1, value) < 0 else ""
    value = abs(value)
    if value == math.inf:
        return f"{sign}Infinity"
    if value == 0:
        return f"{sign}0"
    digits, exponent = _shortest(value, bits)
    if -4 <= exponent < _PLAIN_BELOW[bits]:
        return sign + _plain(digits, exponent)
    return f"{sign}{digits[0]}{'.' * (len(digits) > 1)}{digits[1:]}e{exponent:+03d}"


def _plain(digits: str, exponent: int) -> str:
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    rest = digits[exponent + 1 :]
    return f"{whole}.{rest}" if rest else whole


def _shortest(value: float, bits: int) -> tuple[str, int]:
    """Return digits without zeros at their end, and the decimal exponent of the first."""
    if bits == 53:
        digits, exponent = _parts(repr(value))
        if _is_within(digits, exponent, value, bits):
            return digits, exponent
    for count in range(_MOST_DIGITS[bits] - 1):
        for text in _candidates(value, count):
            if _rounded(text, bits) == value and _is_within(*_parts(text), value, bits):
                return _parts(text)
    return _parts(f"{value:.{_MOST_DIGITS[bits] - 1}e}")


def _candidates(value: float, places: int) -> Iterator[str]:
    nearest = f"{value:.{places}e}"
    yield nearest
    if math.frexp(value)[0] == 0.5:
        # Below a power of two the floats are twice as dense: the next decimal above may stand for it instead.
        decimal = Decimal(nearest)
        yield f"{decimal + Decimal((0, (1,), int(decimal.as_tuple().exponent))):e}"


def _rounded(text: str, bits: int) -> float:
    try:
        return float(text) if bits == 53 else float(struct.unpack("<f", struct.pack("<f", float(text)))[0])
    except OverflowError:
        return math.inf


def _is_within(digits: str, exponent: int, value: float, bits: int) -> bool:
    """Return whether a decimal that rounds to the value does not lie halfway to another: PostgreSQL writes no such."""
    if value < 2**bits:
        return True  # here, whatever lies halfway has more digits than any float needs
    decimal = Fraction(int(digits)) * Fraction(10) ** (exponent - len(digits) + 1)
    exact, below, over = Fraction(value), Fraction(_neighbour(value, -1, bits)), _neighbour(value, 1, bits)
    # Above the largest float there is infinity: the next one would be as far away as the one below.
    above = 2 * exact - below if math.isinf(over) else Fraction(over)
    return (below + exact) / 2 < decimal < (above + exact) / 2


def _neighbour(value: float, step: int, bits: int) -> float:
    integer, real = ("<q", "<d") if bits == 53 else ("<i", "<f")
    (number,) = struct.unpack(integer, struct.pack(real, value))
    return float(struct.unpack(real, struct.pack(integer, number + step))[0])


def _parts(text: str) -> tuple[str, int]:
    mantissa, _, exponent = text.partition("e")
    whole, _, rest = mantissa.partition(".")
    digits = whole + rest
    first = len(digits) - len(digits.lstrip("0"))
    return digits.strip("0"), int(exponent or 0) + len(whole) - 1 - first
