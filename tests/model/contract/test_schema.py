"""What is read from a document, and what is refused; patterns that both dialects read alike."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from refold.model.contract.contract_file import differences, digest_of
from refold.model.contract.pattern import portable
from refold.model.contract.schema import (
    ANY,
    Array,
    Null,
    Number,
    Object,
    Problem,
    Schema,
    Text,
    Values,
    schema_of,
)


def read(schema: dict[str, Any]) -> Object | list[Problem]:
    problems: list[Problem] = []
    return schema_of(schema, problems) or problems


def test_a_schema_is_a_union_of_shapes() -> None:
    assert read(
        {
            "type": "object",
            "required": ["a"],
            "additionalProperties": False,
            "properties": {
                "a": {"type": ["integer", "null"], "minimum": 1, "exclusiveMinimum": 0},
                "b": {"anyOf": [{"type": "string", "maxLength": 3}, {"enum": [True, 1]}]},
                "c": {"type": "array", "items": {"$ref": "#/$defs/text"}, "minItems": 1},
                "d": {"description": "anything"},
            },
            "$defs": {"text": {"type": "string"}},
        }
    ) == Object(
        {
            "a": Schema((Number(integer=True, low=Decimal(1)), Null())),
            "b": Schema((Text(most=3), Values((True, Decimal(1))))),
            "c": Schema((Array(Schema((Text(),)), least=1),)),
            "d": ANY,
        },
        frozenset({"a"}),
        closed=True,
    )


def test_a_model_of_pydantic_is_a_contract() -> None:
    class Item(BaseModel):
        model_config = ConfigDict(extra="forbid")
        price: float = Field(gt=0)

    class Purchase(BaseModel):
        """Somebody pays."""

        amount: int = Field(ge=1)
        currency: str = Field(pattern="^[A-Z]{3}$")
        coupon: str | None = None
        items: list[Item] = []

    found = read(Purchase.model_json_schema())
    assert isinstance(found, Object)
    assert found.required == {"amount", "currency"}
    assert found.of("coupon") == Schema((Text(), Null()))


@pytest.mark.parametrize(
    ("schema", "where", "message"),
    [
        ({"properties": {"a": {"allOf": [{}]}}}, "properties.a.allOf", "is no keyword that refold checks"),
        ({"properties": {"a": {"anyOf": [{}], "type": "string"}}}, "properties.a.type", "cannot stand beside anyOf"),
        ({"properties": {"a": {"enum": ["x"], "maxLength": 1, "type": "string"}}}, "properties.a.maxLength", "enum"),
        ({"properties": {"a": {"type": "number", "enum": ["x"]}}}, "properties.a.enum", "'x' is not of the type"),
        ({"properties": {"a": {"const": [1]}}}, "properties.a.const", "cannot hold an array"),
        ({"properties": {"a": {"type": "number", "minimum": "1"}}}, "properties.a.minimum", "must be a number"),
        ({"properties": {"a": {"type": "number", "minimum": 2, "maximum": 1}}}, "properties.a.maximum", "no number"),
        ({"properties": {"a": {"type": "string", "minLength": 2, "maxLength": 1}}}, "properties.a.maxLength", "less"),
        ({"properties": {"a": {"type": "array", "items": [{}]}}}, "properties.a.items", "must be a schema"),
        ({"properties": {"a": False}}, "properties.a", "must be a schema"),
        ({"additionalProperties": {}}, "additionalProperties", "must be true or false"),
        ({"additionalProperties": False, "required": ["a"]}, "required", "is not in properties"),
        ({"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}, "$defs.a.$ref", "itself"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "$schema", "must be JSON Schema 2020-12"),
        ({"properties": {"a\0": {}}}, "properties", "the character NUL"),
        ({"properties": {"a": {"type": []}}}, "properties.a.type", "must be a type or a list of types"),
    ],
)
def test_what_is_refused_names_its_path(schema: dict[str, Any], where: str, message: str) -> None:
    found = read({"type": "object", **schema})
    assert isinstance(found, list)
    assert [one.where for one in found if message in one.message] == [where], found


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^[a-z]+$", "^[a-z]+$"),
        (r"\d{3}", "[0-9]{3}"),
        (r"[\w.-]+", r"[A-Za-z0-9_.\-]+"),
        ("a.b", "a[^\n\r\u2028\u2029]b"),
        ("(?:a|b)c?", "(?:a|b)c?"),
        (r"\.\$\/", r"\.\$\/"),
        (r"[^\]]", r"[^\]]"),
    ],
)
def test_a_pattern_is_written_for_postgres(pattern: str, text: str) -> None:
    assert portable(pattern) == (text, None)
    re.compile(text)


@pytest.mark.parametrize(
    "pattern",
    ["(?=a)", "(?i)a", "a*?", "a++", r"\bword", r"\s", r"(a)\1", "[[:alpha:]]", "[]", "a{300}", "*a", "^*", "(", "[a",
     "a{2", "}", "\\", "[z-a]", "[a-\\d]", "a\0"],
)  # fmt: skip
def test_a_pattern_that_postgres_reads_differently_is_refused(pattern: str) -> None:
    assert portable(pattern)[1] is not None


def test_a_digest_counts_what_is_checked() -> None:
    one = {"type": "object", "required": ["a", "b"], "properties": {"a": {"type": "number", "minimum": 1}}}
    same = {
        "title": "words",
        "properties": {"a": {"minimum": Decimal("1.00"), "type": "number", "x-unit": "EUR"}},
        "required": ["b", "a"],
        "type": "object",
    }
    assert digest_of(one) == digest_of(same)
    assert differences(one, same) == []
    other = {**one, "properties": {"title": {}}}
    assert digest_of(one) != digest_of(other)
    assert differences(one, other) == [
        'properties.a: was {"type": "number", "minimum": 1}, is gone', "properties.title: is new: {}"
    ]  # fmt: skip
