"""The parse tree of a query, as Postgres stores it for a view, normalized for comparison. Pure.

Trees are nested tuples, so that `==` compares them. Spelling and places in the text are removed. sqlglot writes
`x NOT IN (…)` as `NOT x IN (…)`, so NOT is moved inwards wherever Postgres' planner would do so too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CALL = "CALL"
"""Kind of the node that represents a call of an operator or a function."""

Tree = Any
"""A node is ("{", name, ((field, values), …)), a list is ("(", items), and any other value is its text."""

_TOKEN = re.compile(r"[{}()]|\[[^\]]*\]|(?:\\.|[^\s{}()\\])+", re.DOTALL)
# Fields for the place in the text and the syntax: CAST(x AS t) or x::t, f(x) or a special syntax.
_SPELLING = re.compile(r":(?:\w*location|stmt_len|list_start|list_end|\w+format)$")

_TESTS = {"0": "1", "1": "0", "2": "3", "3": "2", "4": "5", "5": "4"}
"""For each test its negation: IS TRUE and IS NOT TRUE, and so on."""


# Functions whose first argument is a word in upper or lower case.
_UNITS = frozenset(
    {"timestamp_trunc", "timestamptz_trunc", "timestamptz_trunc_zone", "interval_trunc", "timestamp_part",
     "timestamptz_part", "interval_part", "time_part", "timetz_part", "extract_date", "extract_time",
     "extract_timetz", "extract_timestamp", "extract_timestamptz", "extract_interval"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Catalog:
    """The meaning of the oids in a tree.

    Args:
        negators: the negator and its function, by the oid of an operator.
        functions: the name of the C code, by the oid of a built-in function; ceil and ceiling share it.
    """

    negators: Mapping[str, tuple[str, str]]
    functions: Mapping[str, str]


def read(text: str, catalog: Catalog, own: Mapping[str, str]) -> Tree:
    """Parse and normalize a tree.

    Args:
        text: `pg_rewrite.ev_action` of a view.
        catalog: the catalog of the database.
        own: replacements for oids that differ between any two views.
    """
    tokens = iter(_TOKEN.findall(text))
    return _negated_inwards(_node(next(tokens), tokens, own), catalog)


def nodes(tree: Tree) -> Iterator[Tree]:
    """Yield all nodes of a tree."""
    if isinstance(tree, tuple):
        if tree[0] == "{":
            yield tree
            for _, values in tree[2]:
                yield from nodes(("(", values))
        else:
            for item in tree[1]:
                yield from nodes(item)


def field(node: Tree, name: str) -> Tree:
    """Return the value of a field; None if the node lacks it."""
    for found, values in node[2]:
        if found == name:
            return values[0] if len(values) == 1 else values
    return None


def _node(token: str, tokens: Iterator[str], own: Mapping[str, str]) -> Tree:
    if token == "(":
        items = []
        while (token := next(tokens)) != ")":
            items.append(_node(token, tokens, own))
        return ("(", tuple(items))
    if token != "{":
        return token
    name = next(tokens)
    fields: list[tuple[str, tuple[Tree, ...]]] = []
    label = ""
    values: list[Tree] = []
    while True:
        token = next(tokens)
        if token == "}" or token.startswith(":"):
            if label and not _SPELLING.match(label):
                fields.append((label, tuple(values)))
            if token == "}":
                return ("{", name, tuple(fields))
            label, values = token, []
        else:
            value = _node(token, tokens, own)
            values.append(own.get(value, value) if label == ":relid" and isinstance(value, str) else value)


def _negated_inwards(tree: Tree, catalog: Catalog) -> Tree:
    if not isinstance(tree, tuple):
        return tree
    if tree[0] == "(":
        return ("(", tuple(_negated_inwards(item, catalog) for item in tree[1]))
    if tree[1] == "BOOLEXPR" and field(tree, ":boolop") == "not":
        inner = field(tree, ":args")[1][0]
        negated = _negation(inner, catalog)
        if negated is not None:
            return _negated_inwards(negated, catalog)
    whole = (
        "{",
        tree[1],
        tuple((name, tuple(_negated_inwards(value, catalog) for value in values)) for name, values in tree[2]),
    )
    return _call(whole, catalog) if whole[1] in ("OPEXPR", "FUNCEXPR") else whole


def _call(node: Tree, catalog: Catalog) -> Tree:
    """Return the node of an operator or a function as a call of its code."""
    prefix, number = (":op", ":opfuncid") if node[1] == "OPEXPR" else (":func", ":funcid")
    function = field(node, number)
    code = catalog.functions.get(function, function)
    arguments = field(node, ":args")
    if code in _UNITS and isinstance(arguments, tuple) and arguments[1][0][1] == "CONST":
        arguments = ("(", (_lower(arguments[1][0]), *arguments[1][1:]))
    return (
        "{",
        CALL,
        (
            (":function", (code,)),
            (":result", (field(node, f"{prefix}resulttype"),)),
            (":set", (field(node, f"{prefix}retset"),)),
            (":collation", (field(node, f"{prefix}collid"),)),
            (":inputcollid", (field(node, ":inputcollid"),)),
            (":args", (arguments,)),
        ),
    )


def _lower(constant: Tree) -> Tree:
    """Return a text constant in lower case; four bytes for its length precede its text."""

    def lower(value: Tree) -> Tree:
        if not (isinstance(value, str) and value.startswith("[")):
            return value
        numbers = [int(number) for number in value.strip("[] ").split()]
        return str(numbers[:4] + [number + 32 if 65 <= number <= 90 else number for number in numbers[4:]])

    return (
        constant[0],
        constant[1],
        tuple((name, tuple(map(lower, values)) if name == ":constvalue" else values) for name, values in constant[2]),
    )


def _negation(node: Tree, catalog: Catalog) -> Tree | None:
    """Return the negation of a node as a node without NOT; None if there is none."""
    kind = node[1]
    if kind == "BOOLEXPR":
        operator, arguments = field(node, ":boolop"), field(node, ":args")[1]
        if operator == "not":
            return arguments[0]
        turned = tuple(_not(argument) for argument in arguments)
        return _with(node, {":boolop": "or" if operator == "and" else "and", ":args": ("(", turned)})
    if kind in ("OPEXPR", "SCALARARRAYOPEXPR"):
        negator = catalog.negators.get(field(node, ":opno"))
        if negator is None:
            return None
        changed: dict[str, Tree] = {":opno": negator[0], ":opfuncid": negator[1]}
        if kind == "SCALARARRAYOPEXPR":
            changed[":useOr"] = "false" if field(node, ":useOr") == "true" else "true"
        return _with(node, changed)
    if kind == "BOOLEANTEST":
        return _with(node, {":booltesttype": _TESTS[field(node, ":booltesttype")]})
    if kind == "NULLTEST" and field(node, ":argisrow") == "false":
        return _with(node, {":nulltesttype": "1" if field(node, ":nulltesttype") == "0" else "0"})
    return None


def _not(node: Tree) -> Tree:
    return ("{", "BOOLEXPR", ((":boolop", ("not",)), (":args", (("(", (node,)),))))


def _with(node: Tree, changed: Mapping[str, Tree]) -> Tree:
    return (
        node[0],
        node[1],
        tuple((name, (changed[name],) if name in changed else values) for name, values in node[2]),
    )
