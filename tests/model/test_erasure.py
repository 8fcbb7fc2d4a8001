"""A person is found as a whole name, in texts and in JSON, and nobody else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.model.erasure import Person, fields_given, json_without, without


@pytest.mark.parametrize(
    ("user_id", "text", "found"),
    [
        ("alice", "alice", "erased"),
        ("alice", "no user alice.", "no user erased."),
        ("alice", '"alice" (alice), alice:', '"erased" (erased), erased:'),
        ("alice", "alice-2 malice alice@example.com x/alice alice_b Alice", None),
        ("u-4711", "u-47110 u-4711 xu-4711", "u-47110 erased xu-4711"),
        ("a.b*c", "aXbbc a.b*c", "aXbbc erased"),
        ("Ünal", "Ünal, Ünalan", "erased, Ünalan"),
        (" x ", "a x b", "aerasedb"),
        ('a"ä\\', r'{"user_id": "a\"ä\\"} {"user_id": "a\"\u00e4\\"}', '{"user_id": "erased"} {"user_id": "erased"}'),
        # A number within a sentence is mostly a count.
        ("42", "42 events", None),
        ("42", 'no user "42"', 'no user "erased"'),
        ("42", "42", "erased"),
    ],
)
def test_in_a_text(user_id: str, text: str, found: str | None) -> None:
    assert without(Person(user_id), text) == (text if found is None else found)


def test_in_json() -> None:
    person = Person("42", (("email", 'a"b'),), ids=("42-1",))
    text = '{"user_id": 42, "n": 42, "x": 42.50, "list": ["42", "a\\"b", 420], "42": 1, "of": "event 42-1 failed"}'
    cleaned = json_without(person, text)
    assert json.loads(cleaned) == {
        "user_id": "erased", "n": 42, "x": 42.5, "list": ["erased", "erased", 420], "erased": 1,
        "of": "event erased failed",
    }  # fmt: skip
    assert "42.50" in cleaned


VALUES = st.recursive(st.text(), lambda one: st.lists(one) | st.dictionaries(st.text(), one))


@given(st.text(min_size=1, max_size=8), VALUES)
def test_any_json_stays_json(user_id: str, value: object) -> None:
    for ascii_only in (True, False):
        text = json.dumps([value, user_id, {user_id: user_id}], ensure_ascii=ascii_only)
        found = json.loads(json_without(Person(user_id), text))
        assert found[1:] == ["erased", {"erased": "erased"}]


def test_what_stands_in_for_it_in_a_column_is_a_sign() -> None:
    for user_id in ('a"b', "a\\b", "ä", "a\nb"):
        signs = Person(user_id).signs
        for written in (user_id, json.dumps(user_id), json.dumps(user_id, ensure_ascii=False)):
            assert any(sign in written for sign in signs)


def test_fields_are_given_as_pairs() -> None:
    assert fields_given(["a=b=c", "a=b=c", "d= "]) == (("a", "b=c"), ("d", " "))
    for wrong in ("mail", "=mail", "mail="):
        with pytest.raises(ValueError, match="FIELD=VALUE") as refused:
            fields_given([wrong])
        assert f" {wrong}" not in str(refused.value)
