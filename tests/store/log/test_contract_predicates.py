"""The predicate of a contract in the database says what jsonschema says, which nobody here wrote."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from refold.model.contract.predicate import Predicate, predicate_of
from refold.model.contract.schema import Problem, schema_of
from tests.support import schemas

Connection = psycopg.Connection[Any]

JUDGED = """
SELECT ((m.metadata @@ %(path)s::jsonpath)
        AND (%(keys)s::text[] IS NULL OR m.metadata - %(keys)s::text[] = '{}')) IS TRUE,
       (SELECT b.reason FROM refold.contract_breach(
            ROW('purchase', 2, '{}', '', 'enforce', '{}', %(path)s::jsonpath, %(keys)s::text[],
                %(conditions)s::text[]::jsonpath[], %(rules)s::jsonb, now())::refold.contracts, m.metadata) AS b)
FROM unnest(%(documents)s::jsonb[]) WITH ORDINALITY AS m (metadata, place) ORDER BY m.place
"""


def compiled(schema: dict[str, Any]) -> Predicate:
    problems: list[Problem] = []
    # As a file is read.
    shape = schema_of(json.loads(json.dumps(schema), parse_float=Decimal), problems)
    assert shape is not None, problems
    return predicate_of(shape)


def judged(conn: Connection, schema: dict[str, Any], documents: list[Any]) -> list[tuple[bool, str | None]]:
    made = compiled(schema)
    return conn.execute(
        JUDGED,
        {
            "path": made.path,
            "keys": None if made.keys is None else list(made.keys),
            "conditions": made.conditions,
            "rules": json.dumps([rule.as_dict() for rule in made.rules]),
            "documents": [json.dumps(one) for one in documents],
        },
    ).fetchall()


@pytest.mark.slow
@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_the_database_agrees_with_jsonschema(conn: Connection, data: st.DataObject) -> None:
    schema = data.draw(schemas.schemas)
    documents = [
        one for one in data.draw(st.lists(schemas.keeping(schema), min_size=8, max_size=8)) if type(one) is dict
    ]
    validator = Draft202012Validator(schema)
    for document, (valid, reason) in zip(documents, judged(conn, schema, documents), strict=True):
        assert valid is validator.is_valid(document), (schema, document, reason)
        # The rules together are the predicate.
        assert (reason is None) is valid, (schema, document, reason)


SHOP = {
    "type": "object",
    "required": ["amount", "items"],
    "additionalProperties": False,
    "properties": {
        "amount": {"type": "number"},
        "currency": {"enum": ["EUR", "USD"]},
        "quantity": {"type": "integer", "minimum": 1},
        "note": {"type": ["string", "null"], "maxLength": 5},
        "code": {"type": "string", "pattern": "^[A-Z]{2}$"},
        "items": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["price"],
                "additionalProperties": False,
                "properties": {"price": {"type": "number", "exclusiveMinimum": 0}},
            },
        },
    },
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"amount": "9"}, "amount: must be a number, not a string"),
        ({"amount": ...}, "amount: is missing"),
        ({"amount": [9]}, "amount: must be a number, not an array"),
        ({"currency": "GBP"}, 'currency: must be one of "EUR", "USD", not "GBP"'),
        ({"quantity": 0}, "quantity: must be a whole number of at least 1, not 0"),
        ({"quantity": 1.5}, "quantity: must be a whole number of at least 1, not 1.5"),
        ({"note": "too long"}, 'note: must be a string of at most 5 characters or null, not "too long"'),
        ({"code": "de"}, 'code: must be a string that matches ^[A-Z]{2}$, not "de"'),
        ({"items": []}, "items: must be an array of at least 1 item, not an array"),
        ({"items": [{"price": 1}, {"price": 0}]}, "items[*].price: must be a number above 0, not 0"),
        ({"items": [{"price": 1}, {}]}, "items[*].price: is missing"),
        ({"items": [{"price": 1}, 7]}, "items[*]: must be an object, not a number"),
        ({"items": [{"price": 1, "prise": 2}]}, 'items[*]: unknown field "prise"'),
        ({"amuont": 1}, 'unknown field "amuont"'),
    ],
)
def test_the_reason_names_the_field(conn: Connection, change: dict[str, Any], reason: str | None) -> None:
    document = {"amount": 9, "items": [{"price": 1}]} | change
    document = {key: value for key, value in document.items() if value is not ...}
    ((valid, told),) = judged(conn, SHOP, [document])
    assert told == (None if reason is None else f"{reason} (contract purchase v2)")
    assert valid is (reason is None)


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        (r"^\d+$", ["1", "12", "", "a", "1\n", "\u0661"]),
        ("^.$", ["a", "\n", "😀", "\u2028", "ab"]),
        (r"^[\w.-]+@[a-z]+$", ["a.b-c@de", "ü@de", "@de"]),
        ("^(?:a|b)*$", ["", "abba", "abc"]),
        (r"^[^\]\-^]$", ["]", "-", "^", "x"]),
        ("a{2}", ["a", "baab"]),
    ],
)
def test_a_pattern_means_what_it_means_in_json_schema(conn: Connection, pattern: str, texts: list[str]) -> None:
    """The judge is ECMAScript's reading, in Python's words: `$` is the end, and classes are ASCII."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    judge = re.compile(pattern.replace("$", r"\Z").replace("^.", "^[^\n\r\u2028\u2029]"), re.ASCII)
    found = [valid for valid, _ in judged(conn, schema, [{"a": text} for text in texts])]
    assert found == [judge.search(text) is not None for text in texts]
