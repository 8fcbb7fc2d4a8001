"""What fits what: a table of changes that people make, and no document that ever breaks a `yes`."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from refold.model.contract.compatible import Verdict, misfits, verdict_of
from refold.model.contract.schema import Object, Problem, schema_of
from tests.support import schemas

NO, UNKNOWN, YES = Verdict.no, Verdict.unknown, Verdict.yes


def shape(schema: dict[str, Any]) -> Object:
    problems: list[Problem] = []
    found = schema_of(json.loads(json.dumps(schema), parse_float=Decimal), problems)
    assert found is not None, problems
    return found


def field(schema: Any, *, required: bool = True, closed: bool = True) -> dict[str, Any]:
    """An object with the field `a`."""
    found: dict[str, Any] = {"type": "object", "properties": {"a": schema}, "additionalProperties": not closed}
    return found | ({"required": ["a"]} if required else {})


NUMBER, INTEGER, TEXT = {"type": "number"}, {"type": "integer"}, {"type": "string"}
CLOSED, OPEN = {"type": "object", "additionalProperties": False}, {"type": "object"}
LIST = {"type": "array", "items": TEXT}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Verdict]] = {
    # Fields that come and go.
    "nothing changes": (field(TEXT), field(TEXT), YES),
    "a description comes": (field(TEXT), field({**TEXT, "description": "words"}), YES),
    "an optional field comes to a closed object": (CLOSED, field(TEXT, required=False), YES),
    "an optional field comes to an open object": (OPEN, field(TEXT, required=False, closed=False), NO),
    "an optional field of any type comes to an open object": (OPEN, field({}, required=False, closed=False), YES),
    "a required field comes": (CLOSED, field(TEXT), NO),
    "a field becomes required": (field(TEXT, required=False), field(TEXT), NO),
    "a field becomes optional": (field(TEXT), field(TEXT, required=False), YES),
    "a field goes from a closed object": (field(TEXT), CLOSED, NO),
    "a field goes from an open object": (field(TEXT, closed=False), OPEN, YES),
    "an object opens": (CLOSED, OPEN, YES),
    "an object closes": (OPEN, CLOSED, NO),
    "a field is renamed": (
        field(TEXT),
        {"type": "object", "properties": {"b": TEXT}, "required": ["b"], "additionalProperties": False},
        NO,
    ),
    # Types.
    "an integer becomes a number": (field(INTEGER), field(NUMBER), YES),
    "a number becomes an integer": (field(NUMBER), field(INTEGER), NO),
    "a number becomes a string": (field(NUMBER), field(TEXT), NO),
    "a field becomes nullable": (field(TEXT), field({"type": ["string", "null"]}), YES),
    "a field is no longer nullable": (field({"type": ["string", "null"]}), field(TEXT), NO),
    "a field may be anything": (field(TEXT), field({}), YES),
    "anything becomes a string": (field({}), field(TEXT), NO),
    "anything becomes every type": (
        field({}),
        field({"type": ["null", "boolean", "number", "string", "array", "object"]}),
        YES,
    ),
    "an alternative comes": (field(TEXT), field({"anyOf": [TEXT, NUMBER]}), YES),
    "an alternative goes": (field({"anyOf": [TEXT, NUMBER]}), field(TEXT), NO),
    "two alternatives share the numbers": (
        field(NUMBER),
        field({"anyOf": [{**NUMBER, "minimum": 0}, {**NUMBER, "maximum": 0}]}),
        UNKNOWN,
    ),
    # Values.
    "a value comes": (field({"enum": ["EUR"]}), field({"enum": ["EUR", "USD"]}), YES),
    "a value goes": (field({"enum": ["EUR", "USD"]}), field({"enum": ["EUR"]}), NO),
    "values become a string": (field({"enum": ["EUR", "USD"]}), field(TEXT), YES),
    "a string becomes values": (field(TEXT), field({"enum": ["EUR"]}), NO),
    "values keep to a pattern": (field({"enum": ["EUR"]}), field({**TEXT, "pattern": "^[A-Z]{3}$"}), YES),
    "values leave a pattern": (field({"enum": ["euro"]}), field({**TEXT, "pattern": "^[A-Z]{3}$"}), NO),
    "both booleans are the type": (field({"type": "boolean"}), field({"enum": [True, False]}), YES),
    "1 is not true": (field({"const": 1}), field({"type": "boolean"}), NO),
    # Limits.
    "a minimum comes": (field(NUMBER), field({**NUMBER, "minimum": 0}), NO),
    "a minimum rises": (field({**NUMBER, "minimum": 0}), field({**NUMBER, "minimum": 1}), NO),
    "a minimum falls": (field({**NUMBER, "minimum": 1}), field({**NUMBER, "minimum": 0}), YES),
    "a minimum excludes itself": (
        field({**NUMBER, "minimum": 0}), field({**NUMBER, "exclusiveMinimum": 0}), NO,
    ),
    "above 0 is from 1 on, of integers": (
        field({**INTEGER, "exclusiveMinimum": 0}), field({**INTEGER, "minimum": 1}), YES,
    ),
    "above 0 is not from 1 on, of numbers": (
        field({**NUMBER, "exclusiveMinimum": 0}), field({**NUMBER, "minimum": 1}), NO,
    ),
    "a multiple of 10 is one of 5": (
        field({**INTEGER, "multipleOf": 10}), field({**INTEGER, "multipleOf": 5}), YES,
    ),
    "a multiple of 5 is not one of 10": (
        field({**INTEGER, "multipleOf": 5}), field({**INTEGER, "multipleOf": 10}), UNKNOWN,
    ),
    "a string becomes longer": (field({**TEXT, "maxLength": 5}), field({**TEXT, "maxLength": 9}), YES),
    "a string becomes shorter": (field({**TEXT, "maxLength": 9}), field({**TEXT, "maxLength": 5}), NO),
    "a pattern comes": (field(TEXT), field({**TEXT, "pattern": "^a"}), UNKNOWN),
    "a pattern goes": (field({**TEXT, "pattern": "^a"}), field(TEXT), YES),
    "a pattern changes": (field({**TEXT, "pattern": "^ab"}), field({**TEXT, "pattern": "^a"}), UNKNOWN),
    # Arrays and objects within.
    "items become anything": (field(LIST), field({"type": "array"}), YES),
    "items become numbers": (field(LIST), field({"type": "array", "items": NUMBER}), NO),
    "items of an array that is always empty": (
        field({**LIST, "maxItems": 0}), field({"type": "array", "items": NUMBER}), YES,
    ),
    "an array must have an item": (field(LIST), field({**LIST, "minItems": 1}), NO),
    "a field within becomes required": (
        field({"type": "array", "items": field(TEXT, required=False)}),
        field({"type": "array", "items": field(TEXT)}),
        NO,
    ),
    "a field within an alternative": (
        field({"anyOf": [{"type": "null"}, field(INTEGER)]}), field({"anyOf": [{"type": "null"}, field(NUMBER)]}), YES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_table(case: str) -> None:
    old, new, verdict = CASES[case]
    assert verdict_of(misfits(shape(old), shape(new))) is verdict


def test_the_reasons_name_the_field() -> None:
    old = field({"type": "array", "items": field({"enum": ["x", "y"]})})
    new = field({"type": "array", "items": field({"enum": ["x"]})})
    assert [str(one) for one in misfits(shape(old), shape(new))] == ['a[*].a: could be "y", which is no longer allowed']


@st.composite
def changed(draw: st.DrawFn, schema: Any) -> Any:
    """A schema with one change somewhere, as people make them."""
    if not isinstance(schema, dict) or draw(st.integers(0, 3)) == 0:
        return draw(schemas.anything)
    found = dict(schema)
    names = list(found.get("properties", {}))
    match draw(st.integers(0, 4)):
        case 0 if names:
            name = draw(st.sampled_from(names))
            found["properties"] = {**found["properties"], name: draw(changed(found["properties"][name]))}
        case 1 if "items" in found:
            found["items"] = draw(changed(found["items"]))
        case 2 if "anyOf" in found:
            found["anyOf"] = [draw(changed(one)) for one in found["anyOf"]]
        case 3:
            loose = [key for key in found if key not in ("type", "properties", "enum", "const", "anyOf")]
            if loose:
                del found[draw(st.sampled_from(loose))]
        case _ if names:
            found["required"] = [draw(st.sampled_from(names))]
    return found


@pytest.mark.slow
@given(st.data())
@settings(max_examples=150)
def test_no_document_breaks_a_yes(data: st.DataObject) -> None:
    old = data.draw(schemas.schemas)
    new = data.draw(changed(old))
    if not isinstance(new, dict) or new.get("type") != "object":
        return
    verdict = verdict_of(misfits(shape(old), shape(new)))
    before, after = Draft202012Validator(old), Draft202012Validator(new)
    for document in data.draw(st.lists(schemas.keeping(old), min_size=5, max_size=5)):
        if verdict is YES and isinstance(document, dict) and before.is_valid(document):
            assert after.is_valid(document), (old, new, document)
