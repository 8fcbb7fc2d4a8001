"""The subset of JSON Schema 2020-12 that contracts are written in: its values, and how a document becomes them.

A schema is a union of shapes, each of one JSON type. Every keyword outside of the subset is refused: a contract that
looks as if it checked something, and does not, is worse than none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from refold.model.contract.pattern import portable
from refold.model.event.exact_json import kind
from refold.suggest import did_you_mean

LONGEST_TEXT = 255
"""Most characters that minLength and maxLength may name: regular expressions of Postgres count no further."""
DEEPEST = 20
"""Most levels of a schema."""

Scalar = None | bool | Decimal | str


@dataclass(frozen=True, slots=True)
class Null:
    """The value null."""


@dataclass(frozen=True, slots=True)
class Boolean:
    """true or false."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number.

    Args:
        integer: whether it must be whole; 1.0 is.
        low: its lower bound, if any.
        above: whether the bound itself is excluded.
        high: its upper bound, if any.
        below: whether the bound itself is excluded.
        multiple: what it must be a multiple of, if anything.
    """

    integer: bool = False
    low: Decimal | None = None
    above: bool = False
    high: Decimal | None = None
    below: bool = False
    multiple: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A string.

    Args:
        least: fewest characters.
        most: most characters, if there is a limit.
        pattern: a regular expression as the author wrote it, if any.
    """

    least: int = 0
    most: int | None = None
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Array:
    """An array.

    Args:
        items: what each item must be.
        least: fewest items.
        most: most items, if there is a limit.
    """

    items: Schema
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Object:
    """An object.

    Args:
        properties: what its fields must be, if they are there.
        required: the fields that must be there.
        closed: whether it has no other fields.
    """

    properties: Mapping[str, Schema] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    closed: bool = False

    def of(self, name: str) -> Schema | None:
        """Return what a field must be; None if the object cannot have it."""
        return self.properties.get(name, None if self.closed else ANY)


@dataclass(frozen=True, slots=True)
class Values:
    """One of several values that are neither arrays nor objects."""

    values: tuple[Scalar, ...]


Shape = Null | Boolean | Number | Text | Array | Object | Values


@dataclass(frozen=True, slots=True)
class Schema:
    """What a value must be: one of these shapes."""

    shapes: tuple[Shape, ...]

    @property
    def anything(self) -> bool:
        """Whether every value is valid."""
        return self == ANY


ANY = Schema(())
"""Every value; its shapes are `every_shape()`."""


def every_shape() -> tuple[Shape, ...]:
    """Return the shapes whose union is every value."""
    return (Null(), Boolean(), Number(), Text(), Array(ANY), Object())


def shapes_of(schema: Schema) -> tuple[Shape, ...]:
    """Return the shapes of a schema, written out."""
    return schema.shapes or every_shape()


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a schema.

    Args:
        path: where it is, from the top of the document.
        message: what is wrong.
        remedy: what to write instead.
    """

    path: tuple[str, ...]
    message: str
    remedy: str | None = None

    @property
    def where(self) -> str:
        """The path in one word."""
        return ".".join(self.path) or "the schema"


_TYPES = {"null": Null, "boolean": Boolean, "number": Number, "string": Text, "array": Array, "object": Object}
TYPES = (*_TYPES, "integer")
ANNOTATIONS = (
    "$schema", "$id", "$comment", "$defs", "title", "description", "default", "examples", "deprecated", "readOnly",
    "writeOnly",
)  # fmt: skip
"""Keywords that check nothing, in JSON Schema as here."""
KEYWORDS: Mapping[str, Sequence[str]] = {
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength", "pattern"),
    "array": ("items", "minItems", "maxItems"),
    "object": ("properties", "required", "additionalProperties"),
}
"""Keywords that need a type, by the type."""
ALONE = ("$ref", "anyOf")
"""Keywords beside which only annotations may stand."""
EVERY_KEYWORD = ("type", "enum", "const", *ALONE, *(word for words in KEYWORDS.values() for word in words))
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_REMEDIES = {
    "format": "Write a pattern. In JSON Schema 2020-12 a format is only an annotation.",
    "allOf": "Write the keywords of its parts into one schema.",
    "oneOf": "Write anyOf.",
    "not": "Say what the value may be, by enum, anyOf or pattern.",
    "if": "Write the cases as anyOf.",
    "then": "Write the cases as anyOf.",
    "else": "Write the cases as anyOf.",
    "dependentRequired": "Write the cases as anyOf.",
    "dependentSchemas": "Write the cases as anyOf.",
    "patternProperties": "Name the fields in properties, or allow any by leaving out additionalProperties.",
    "propertyNames": "Name the fields in properties, and write additionalProperties: false.",
    "unevaluatedProperties": "Write additionalProperties.",
    "minProperties": "Name the fields that must be there in required.",
    "maxProperties": "Name the fields in properties, and write additionalProperties: false.",
    "prefixItems": "Write one items for all, or an object with named fields.",
    "uniqueItems": "Leave it out: the database does not check it.",
    "contains": "Leave it out: the database does not check it.",
    "definitions": "Write $defs, its name since 2019-09.",
    "nullable": 'Write "type": ["string", "null"].',
}


def schema_of(document: object, problems: list[Problem]) -> Object | None:
    """Return what the metadata of an event must be; None after problems.

    Args:
        document: a JSON Schema, without the key `x-refold`; its numbers are ints and Decimals.
        problems: receives all that is wrong.
    """
    reader = _Reader(document, problems)
    before = len(problems)
    schema = reader.read(document, (), 0)
    if len(problems) > before:
        return None
    match schema.shapes:
        case (Object() as shape,):
            return shape
    problems.append(Problem((), "must have the type object, as metadata has", 'Write "type": "object".'))
    return None


class _Reader:
    def __init__(self, root: object, problems: list[Problem]) -> None:
        self._root = root
        self._problems = problems
        self._refs: list[str] = []

    def read(self, given: object, path: tuple[str, ...], depth: int) -> Schema:
        """Return a schema; after a problem, something."""
        if given is True:
            return ANY
        if not isinstance(given, dict):
            self._wrong(path, f"must be a schema (an object), not {kind(given)}")
            return ANY
        if depth > DEEPEST:
            self._wrong(path, f"is nested more than {DEEPEST} levels deep", "Flatten it.")
            return ANY
        self._refuse_unknown(given, path)
        for word in ALONE:
            if word in given:
                others = [other for other in given if other in EVERY_KEYWORD and other != word]
                if others:
                    self._wrong((*path, others[0]), f"cannot stand beside {word}", f"Write it into the {word}.")
                if word == "$ref":
                    return self._referred(given[word], (*path, word), depth)
                return self._union(given[word], (*path, word), depth)
        return self._typed(given, path, depth)

    def _wrong(self, path: tuple[str, ...], message: str, remedy: str | None = None) -> None:
        self._problems.append(Problem(path, message, remedy))

    def _refuse_unknown(self, given: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for word, value in given.items():
            if word == "$schema" and str(value).rstrip("#") != _DRAFT:
                self._wrong((*path, word), "must be JSON Schema 2020-12", f'Write "{_DRAFT}".')
            if word in ANNOTATIONS or word in EVERY_KEYWORD or word.startswith("x-"):
                continue
            near = did_you_mean(word, EVERY_KEYWORD)
            self._wrong(
                (*path, word),
                f"is no keyword that refold checks.{near}",
                _REMEDIES.get(word, f"The keywords are {', '.join(EVERY_KEYWORD)}."),
            )

    def _referred(self, given: object, path: tuple[str, ...], depth: int) -> Schema:
        remedy = 'Write "#/$defs/NAME", and the schema below $defs at the top of the file.'
        if not isinstance(given, str) or not given.startswith("#/$defs/"):
            self._wrong(path, "must name a schema of this file", remedy)
            return ANY
        name = given.removeprefix("#/$defs/").replace("~1", "/").replace("~0", "~")
        known = self._root.get("$defs") if isinstance(self._root, dict) else None
        if not isinstance(known, dict) or name not in known:
            near = did_you_mean(name, list(known) if isinstance(known, dict) else [])
            self._wrong(path, f"{name!r} is not in $defs.{near}", remedy)
            return ANY
        if name in self._refs:
            self._wrong(path, f"{name!r} refers to itself", "Write its levels out.")
            return ANY
        self._refs.append(name)
        found = self.read(known[name], ("$defs", name), depth + 1)
        self._refs.pop()
        return found

    def _union(self, given: object, path: tuple[str, ...], depth: int) -> Schema:
        if not isinstance(given, list) or not given:
            self._wrong(path, "must be a list of schemas")
            return ANY
        shapes: list[Shape] = []
        for number, one in enumerate(given):
            part = self.read(one, (*path, str(number)), depth + 1)
            if part.anything:
                return ANY
            shapes += part.shapes
        return Schema(tuple(shape for at, shape in enumerate(shapes) if shape not in shapes[:at]))

    def _typed(self, given: Mapping[str, Any], path: tuple[str, ...], depth: int) -> Schema:
        types = self._types(given, path)
        for owner, words in KEYWORDS.items():
            for word in words:
                if word in given and owner not in types and not (owner == "number" and "integer" in types):
                    self._wrong(
                        (*path, word),
                        f"needs the type {owner}: values of other types pass it",
                        f'Write "type": "{owner}".',
                    )
        if "enum" in given or "const" in given:
            return self._values(given, types, path)
        if not types:
            return ANY
        return Schema(tuple(self._shape(one, given, path, depth) for one in types))

    def _types(self, given: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
        if "type" not in given:
            return []
        stated = given["type"]
        types = [stated] if isinstance(stated, str) else stated
        if not isinstance(types, list) or not types or not all(isinstance(one, str) for one in types):
            self._wrong((*path, "type"), "must be a type or a list of types", f"The types are {', '.join(TYPES)}.")
            return []
        for one in types:
            if one not in TYPES:
                near = did_you_mean(one, TYPES)
                self._wrong((*path, "type"), f"{one!r} is no type.{near}", f"The types are {', '.join(TYPES)}.")
        known = [one for one in dict.fromkeys(types) if one in TYPES]
        return [one for one in known if one != "integer" or "number" not in known]

    def _values(self, given: Mapping[str, Any], types: list[str], path: tuple[str, ...]) -> Schema:
        word = "const" if "const" in given else "enum"
        stated = [given["const"]] if word == "const" else given["enum"]
        beside = [other for other in given if other in EVERY_KEYWORD and other not in (word, "type")]
        if beside:
            self._wrong((*path, beside[0]), f"cannot stand beside {word}", f"Leave out what the {word} already says.")
        if not isinstance(stated, list) or not stated:
            self._wrong((*path, word), "must be a list of values")
            return ANY
        values: list[Scalar] = []
        for one in stated:
            if isinstance(one, dict | list):
                self._wrong((*path, word), f"cannot hold {kind(one)}", "Write properties or items instead.")
                continue
            value = Decimal(str(one)) if isinstance(one, int | float) and not isinstance(one, bool) else one
            if types and not any(_is_of(value, type_) for type_ in types):
                self._wrong((*path, word), f"{one!r} is not of the type {' or '.join(types)}")
            if isinstance(value, str) and "\0" in value:
                self._wrong((*path, word), "holds the character NUL, which no event can hold")
            if not any(same(value, other) for other in values):
                values.append(value)
        return Schema((Values(tuple(values)),))

    def _shape(self, type_: str, given: Mapping[str, Any], path: tuple[str, ...], depth: int) -> Shape:
        match type_:
            case "null":
                return Null()
            case "boolean":
                return Boolean()
            case "string":
                return self._text(given, path)
            case "array":
                least, most = self._count(given, "minItems", path) or 0, self._count(given, "maxItems", path)
                items = self.read(given["items"], (*path, "items"), depth + 1) if "items" in given else ANY
                self._ordered(least, most, (*path, "maxItems"))
                return Array(items, least, most)
            case "object":
                return self._object(given, path, depth)
        return self._number(given, path, integer=type_ == "integer")

    def _number(self, given: Mapping[str, Any], path: tuple[str, ...], *, integer: bool) -> Number:
        low, above = self._bound(given, "minimum", "exclusiveMinimum", path, max)
        high, below = self._bound(given, "maximum", "exclusiveMaximum", path, min)
        if low is not None and high is not None and (low > high or (low == high and (above or below))):
            self._wrong((*path, "maximum"), "leaves no number")
        multiple = self._decimal(given, "multipleOf", path)
        if multiple is not None and multiple <= 0:
            self._wrong((*path, "multipleOf"), "must be greater than 0")
            multiple = None
        return Number(integer, low, above, high, below, multiple)

    def _bound(
        self, given: Mapping[str, Any], inclusive: str, exclusive: str, path: tuple[str, ...], stricter: Any
    ) -> tuple[Decimal | None, bool]:
        one, other = self._decimal(given, inclusive, path), self._decimal(given, exclusive, path)
        if one is None or other is None:
            return (other, True) if one is None and other is not None else (one, False)
        return (other, True) if stricter(one, other) == other else (one, False)

    def _decimal(self, given: Mapping[str, Any], word: str, path: tuple[str, ...]) -> Decimal | None:
        value = given.get(word)
        if word not in given:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            self._wrong((*path, word), f"must be a number, not {kind(value)}")
            return None
        number = Decimal(str(value))
        if abs(number.adjusted()) > 300 or len(number.as_tuple().digits) > 300:
            self._wrong((*path, word), "has too many digits")
            return None
        return number

    def _text(self, given: Mapping[str, Any], path: tuple[str, ...]) -> Text:
        least, most = self._count(given, "minLength", path) or 0, self._count(given, "maxLength", path)
        for word, value in (("minLength", least), ("maxLength", most)):
            if value is not None and value > LONGEST_TEXT:
                self._wrong(
                    (*path, word),
                    f"may be at most {LONGEST_TEXT}",
                    "Leave it out: the database counts no further.",
                )
        self._ordered(least, most, (*path, "maxLength"))
        pattern = given.get("pattern")
        if pattern is not None:
            problem = "must be a string" if not isinstance(pattern, str) else portable(pattern)[1]
            if problem:
                self._wrong((*path, "pattern"), problem, "Write [0-9], [A-Za-z], groups, |, *, +, ? and {1,5}.")
                pattern = None
        return Text(least, most, pattern)

    def _object(self, given: Mapping[str, Any], path: tuple[str, ...], depth: int) -> Object:
        properties = given.get("properties", {})
        if not isinstance(properties, dict):
            self._wrong((*path, "properties"), f"must be an object, not {kind(properties)}")
            properties = {}
        required = given.get("required", [])
        if not isinstance(required, list) or not all(isinstance(one, str) for one in required):
            self._wrong((*path, "required"), "must be a list of names")
            required = []
        for name in [*properties, *required]:
            if "\0" in name:
                self._wrong((*path, "properties"), "names a field with the character NUL, which no event can hold")
        closed = given.get("additionalProperties", True)
        if not isinstance(closed, bool):
            self._wrong(
                (*path, "additionalProperties"),
                "must be true or false",
                "Name the fields in properties; other fields can only be allowed or refused.",
            )
        fields = {name: self.read(one, (*path, "properties", name), depth + 1) for name, one in properties.items()}
        strange = [name for name in required if name not in fields]
        if closed is False and strange:
            self._wrong(
                (*path, "required"),
                f"{strange[0]!r} is not in properties, and additionalProperties forbids it."
                f"{did_you_mean(strange[0], list(fields))}",
            )
        return Object(fields, frozenset(required), closed is False)

    def _count(self, given: Mapping[str, Any], word: str, path: tuple[str, ...]) -> int | None:
        if word not in given:
            return None
        value = given[word]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self._wrong((*path, word), "must be a whole number of at least 0")
            return None
        return value

    def _ordered(self, least: int, most: int | None, path: tuple[str, ...]) -> None:
        if most is not None and least > most:
            self._wrong(path, "is less than the least")


def same(one: Scalar, other: Scalar) -> bool:
    """Return whether two values are equal in JSON: true is not 1."""
    return type(one) is type(other) and one == other


def type_of(value: Scalar) -> str:
    """Return the JSON type of a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case Decimal():
            return "number"
    return "string"


def _is_of(value: Scalar, type_: str) -> bool:
    if type_ == "integer":
        return isinstance(value, Decimal) and value == value.to_integral_value()
    return type_of(value) == type_


def walk(schema: Schema) -> Iterator[Shape]:
    """Yield the shapes of a schema and of all schemas within."""
    for shape in schema.shapes:
        yield shape
        if isinstance(shape, Array):
            yield from walk(shape.items)
        elif isinstance(shape, Object):
            for one in shape.properties.values():
                yield from walk(one)
