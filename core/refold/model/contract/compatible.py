"""Whether every document of one schema is valid under another: yes, no, or unknown.

The answer `yes` is a proof, and the only one on which a deploy relies. `no` comes with a field whose values can differ.
`unknown` is what a comparison shape by shape cannot decide: two regular expressions, say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import IntEnum

from refold.model.contract.pattern import portable
from refold.model.contract.predicate import phrase, types_of
from refold.model.contract.schema import (
    Array,
    Boolean,
    Null,
    Number,
    Object,
    Scalar,
    Schema,
    Shape,
    Text,
    Values,
    same,
    shapes_of,
)


class Verdict(IntEnum):
    """Whether all documents fit; of several, the least counts."""

    no = 0
    unknown = 1
    yes = 2


@dataclass(frozen=True, slots=True)
class Reason:
    """Why documents do not fit, or perhaps do not.

    Args:
        path: the field; empty for the document itself.
        verdict: `no` or `unknown`.
        text: what the older schema allows, and the newer one does not.
    """

    path: str
    verdict: Verdict
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


def misfits(old: Object, new: Object) -> list[Reason]:
    """Return why documents of an older schema are not all valid under a newer one; empty if they are. Pure."""
    return list(_object(old, new, ""))


def verdict_of(reasons: Sequence[Reason]) -> Verdict:
    """Return the verdict that reasons amount to."""
    return min((reason.verdict for reason in reasons), default=Verdict.yes)


def _schema(old: Schema, new: Schema, path: str) -> Iterator[Reason]:
    if new.anything:
        return
    for shape in shapes_of(old):
        yield from _shape(shape, new, path)


def _shape(old: Shape, new: Schema, path: str) -> Iterator[Reason]:
    if isinstance(old, Values):
        yield from _values(old.values, new, path)
        return
    if isinstance(old, Boolean) and verdict_of(list(_values((True, False), new, path))) is Verdict.yes:
        return
    if isinstance(old, Null):
        yield from _values((None,), new, path)
        return
    alike = [shape for shape in new.shapes if set(types_of(shape)) & set(types_of(old))]
    if not alike:
        yield Reason(path, Verdict.no, f"was {phrase(old)}, which is no longer allowed")
        return
    tried = [list(_one(old, shape, path)) for shape in alike]
    if any(verdict_of(reasons) is Verdict.yes for reasons in tried):
        return
    if len(tried) == 1:
        yield from tried[0]
    else:
        # Each alternative may take a part of the values.
        yield Reason(path, Verdict.unknown, f"was {phrase(old)}, which no single alternative takes whole")


def _one(old: Shape, new: Shape, path: str) -> Iterator[Reason]:
    match old, new:
        case Number(), Number():
            yield from _number(old, new, path)
        case Text(), Text():
            yield from _text(old, new, path)
        case Array(), Array():
            yield from _sizes(old, new, path, "items", sure=True)
            if old.most != 0:
                yield from _schema(old.items, new.items, f"{path}[*]")
        case Object(), Object():
            yield from _object(old, new, path)
        case Boolean(), Boolean():
            return
        case _:
            yield Reason(path, Verdict.no, f"was {phrase(old)}, must be {phrase(new)}")


def _number(old: Number, new: Number, path: str) -> Iterator[Reason]:
    changed = f"was {phrase(old)}, must be {phrase(new)}"
    whole = old.integer or (old.multiple is not None and old.multiple % 1 == 0)
    low, above, high, below = old.low, old.above, old.high, old.below
    if whole and low is not None:
        low, above = _rounded(low, above, ROUND_CEILING, 1), False
    if whole and high is not None:
        high, below = _rounded(high, below, ROUND_FLOOR, -1), False
    # Which numbers within its bounds a multiple reaches is not looked at.
    sure = Verdict.no if old.multiple is None else Verdict.unknown
    lower = new.low is not None and (low is None or low < new.low or (low == new.low and new.above and not above))
    upper = new.high is not None and (high is None or high > new.high or (high == new.high and new.below and not below))
    if lower or upper:
        yield Reason(path, sure, changed)
    elif new.integer and not whole:
        yield Reason(path, Verdict.unknown if old.low is not None and old.low == old.high else sure, changed)
    elif new.multiple is not None and not (
        (old.multiple is not None and old.multiple % new.multiple == 0) or (whole and 1 % new.multiple == 0)
    ):
        bounded = low is not None and high is not None
        yield Reason(path, Verdict.unknown if bounded or old.multiple is not None else Verdict.no, changed)


def _rounded(bound: Decimal, excluded: bool, way: str, step: int) -> Decimal:
    """Return the outermost whole number within a bound."""
    whole = bound.to_integral_value(way)
    return whole + step if excluded and whole == bound else whole


def _text(old: Text, new: Text, path: str) -> Iterator[Reason]:
    yield from _sizes(old, new, path, "characters", sure=old.pattern is None)
    if new.pattern is not None and new.pattern != old.pattern:
        was = "was any text" if old.pattern is None else f"matched {old.pattern}"
        yield Reason(path, Verdict.unknown, f"{was}, must match {new.pattern}")


def _sizes(old: Text | Array, new: Text | Array, path: str, what: str, *, sure: bool) -> Iterator[Reason]:
    verdict = Verdict.no if sure else Verdict.unknown
    if old.least < new.least:
        yield Reason(path, verdict, f"had at least {old.least} {what}, must have {new.least}")
    if new.most is not None and (old.most is None or old.most > new.most):
        had = "any number of" if old.most is None else f"at most {old.most}"
        yield Reason(path, verdict, f"had {had} {what}, must have at most {new.most}")


def _object(old: Object, new: Object, path: str) -> Iterator[Reason]:
    for name in sorted(new.required - old.required):
        yield Reason(_below(path, name), Verdict.no, "could be missing, and is required")
    for name in dict.fromkeys((*old.properties, *new.properties)):
        was, now = old.of(name), new.of(name)
        if was is None:
            continue
        at = _below(path, name)
        if now is None:
            yield Reason(at, Verdict.no, "could be there, and is no longer allowed")
        elif was.anything and name not in old.properties and not now.anything:
            yield Reason(at, Verdict.no, "could be anything, because other fields were allowed (additionalProperties)")
        else:
            yield from _schema(was, now, at)
    if new.closed and not old.closed:
        yield Reason(path, Verdict.no, "had any other fields (additionalProperties), which are no longer allowed")


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _values(values: Sequence[Scalar], new: Schema, path: str) -> Iterator[Reason]:
    for value in values:
        found = max((_takes(shape, value) for shape in new.shapes), default=Verdict.no)
        if not new.anything and found is not Verdict.yes:
            yield Reason(path, found, f"could be {phrase(Values((value,)))}, which is no longer allowed")


def _takes(shape: Shape, value: Scalar) -> Verdict:
    """Return whether a value is of a shape."""
    match shape, value:
        case Values(), _:
            equal = any(same(one, value) for one in shape.values)
        case (Null(), None) | (Boolean(), bool()):
            equal = True
        case Number(), Decimal():
            equal = (
                (not shape.integer or value % 1 == 0)
                and (shape.low is None or (value > shape.low if shape.above else value >= shape.low))
                and (shape.high is None or (value < shape.high if shape.below else value <= shape.high))
                and (shape.multiple is None or value % shape.multiple == 0)
            )
        case Text(), str():
            if len(value) < shape.least or (shape.most is not None and len(value) > shape.most):
                return Verdict.no
            if shape.pattern is not None and "\n" in value:
                # `$` of Python also matches before a last one.
                return Verdict.unknown
            equal = shape.pattern is None or re.search(portable(shape.pattern)[0], value) is not None
        case _:
            equal = False
    return Verdict.yes if equal else Verdict.no
