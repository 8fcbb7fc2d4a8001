"""Random schemas of contracts, and documents that keep them, or nearly."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = ("a", "b", "c d", 'e"')
STRINGS = ("", "x", "ab", "EUR", "a.b", "0", "zürich", "😀", "line\nbreak")
PATTERNS = ("^[a-z]+$", "[0-9]", "^(EUR|USD)$", "^.$", "^[^a]*$", "b$")
NUMBERS = (-3, 0, 1, 2, 5, 7, 0.5, 2.0, -0.25)

scalars = st.sampled_from([None, True, False, *NUMBERS, *STRINGS])


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {"type": draw(st.sampled_from(["number", "integer"]))}
    if draw(st.booleans()):
        found[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = draw(st.sampled_from([-3, 0, 1, 0.5]))
    if draw(st.booleans()):
        found[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = draw(st.sampled_from([2, 5, 7.5]))
    if draw(st.integers(0, 3)) == 0:
        found["multipleOf"] = draw(st.sampled_from([1, 2, 5]))
    return found


@st.composite
def texts(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string"}
    if draw(st.booleans()):
        found["minLength"] = draw(st.integers(0, 2))
    if draw(st.booleans()):
        found["maxLength"] = draw(st.integers(2, 4))
    if draw(st.integers(0, 2)) == 0:
        found["pattern"] = draw(st.sampled_from(PATTERNS))
    return found


@st.composite
def choices(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"const": draw(scalars)}
    return {"enum": draw(st.lists(scalars, min_size=1, max_size=4))}


@st.composite
def nullable(draw: st.DrawFn) -> dict[str, Any]:
    one = draw(st.one_of(numbers(), texts()))
    return {**one, "type": [one["type"], "null"]}


plain = st.one_of(
    numbers(), texts(), choices(), nullable(), st.just({"type": "boolean"}), st.just({"type": "null"}), st.just({})
)


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "array"}
    if draw(st.booleans()):
        found["items"] = draw(inner)
    if draw(st.booleans()):
        found["minItems"] = draw(st.integers(0, 2))
    if draw(st.booleans()):
        found["maxItems"] = draw(st.integers(2, 3))
    return found


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))
    found: dict[str, Any] = {"type": "object", "properties": {name: draw(inner) for name in names}}
    # Now and then a field that has no schema.
    required = draw(st.sampled_from([*names, *names, *NAMES]))
    if draw(st.booleans()):
        found["required"] = [required]
    if set(found.get("required", ())) <= set(names) and draw(st.booleans()):
        found["additionalProperties"] = False
    return found


def _composite(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        arrays(inner),
        objects(inner),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
        objects(inner).map(lambda one: {"anyOf": [{"type": "null"}, one]}),
    )


anything = st.recursive(plain, _composite, max_leaves=4)
schemas = objects(anything)
"""Schemas of metadata."""

values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from((*NAMES, "other")), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def keeping(draw: st.DrawFn, schema: Any) -> Any:
    """A value that keeps a schema, or nearly."""
    if schema is True or schema == {} or draw(st.integers(0, 11)) == 0:
        return draw(values)
    if "anyOf" in schema:
        return draw(keeping(draw(st.sampled_from(schema["anyOf"]))))
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    stated = schema["type"]
    match draw(st.sampled_from(stated)) if isinstance(stated, list) else stated:
        case "null":
            return None
        case "boolean":
            return draw(st.booleans())
        case "string":
            return draw(st.sampled_from(STRINGS))
        case "array":
            return [draw(keeping(schema.get("items", {}))) for _ in range(draw(st.integers(0, 3)))]
        case "object":
            found = {}
            for name, one in schema.get("properties", {}).items():
                if name in schema.get("required", ()) or draw(st.booleans()):
                    found[name] = draw(keeping(one))
            if draw(st.integers(0, 5)) == 0:
                found[draw(st.sampled_from((*NAMES, "other")))] = draw(scalars)
            return found
    return draw(st.sampled_from(NUMBERS))
