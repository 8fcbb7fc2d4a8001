"""The lines of a query to which the findings of Postgres refer. Pure.

Postgres finds the function and the column; the author's text has the lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import sqlglot
from sqlglot import TokenType, exp

from refold.engine.verify import parse_tree
from refold.engine.verify.parse_tree import Catalog, Tree
from refold.model.projection.definition import Definition
from refold.model.projection.reading import Reading, reading
from refold.model.projection.sqlglot_compat import row_sql

_CALLS = (":function", ":aggfnoid", ":winfnoid", ":funcid", ":opfuncid")
"""Fields of a node that hold the function it calls."""


def of_column(definition: Definition, name: str, written: str | None = None) -> int | None:
    """Return the line that defines a column of a build's table.

    Args:
        definition: the projection.
        name: the column; a part that is kept for an aggregate has the line of the aggregate.
        written: SQL of a part of its expression, to find the line of that part.

    Returns:
        The line; None for a transform, and for a column that refold adds.
    """
    read = _reading(definition)
    node = None if read is None else _output(definition, read, name)
    if read is None or node is None:
        return None
    same = (part for part in node.walk() if written is not None and row_sql(part) == written)
    return read.line(next(same, node))


def of_call(definition: Definition, tree: str, oid: str, name: str, *, view: bool = False) -> int | None:
    """Return the line on which a function is called.

    Args:
        definition: the projection.
        tree: `pg_rewrite.ev_action` of a view of the generated SQL.
        oid: oid of the function.
        name: name of the function; the text lacks it if an operator or a cast calls the function.
        view: whether the SQL is that of the metric's view, in which HAVING has become WHERE.

    Returns:
        The line; None for a transform, and for a call without a name in WITH or in a subquery.
    """
    read = _reading(definition)
    if read is None:
        return None
    node = _calling(definition, read, tree, oid, view=view)
    named = _named(definition.source, name)
    if node is None:
        return named[0] if named else None
    lines = [part.meta["line"] for part in node.walk() if "line" in part.meta]
    within = [line for line in named if lines and min(lines) <= line <= max(lines)]
    if within or len(named) == 1:
        return (within or named)[0]
    return read.line(node)


def _reading(definition: Definition) -> Reading | None:
    if definition.transform is not None:
        return None
    plan = definition.plan
    return reading(definition.name, definition.source, plan.stream, plan.reads, definition.path)


def _calling(definition: Definition, read: Reading, tree: str, oid: str, *, view: bool) -> exp.Expr | None:
    """Return the part of the query that calls a function; None within WITH or FROM."""
    [query] = parse_tree.read(tree, Catalog({}, {}), {})[1]
    for entry in parse_tree.field(query, ":targetList")[1]:
        if oid in _called(entry):
            name = re.sub(r"\\(.)", r"\1", parse_tree.field(entry, ":resname"))
            return _output(definition, read, name)
    for field, clause in ((":jointree", "HAVING" if view else "WHERE"), (":havingQual", "HAVING")):
        if oid in _called(parse_tree.field(query, field)):
            return read.parts.get(clause)
    return None


def _called(tree: Tree) -> Iterator[str]:
    for node in parse_tree.nodes(tree):
        yield from (values[0] for field, values in node[2] if field in _CALLS)


def _output(definition: Definition, read: Reading, name: str) -> exp.Expr | None:
    """Return the output of the query that equals a column of a build's table, or is computed from it."""
    if name in read.parts:
        return read.parts[name]
    word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
    return next((read.parts.get(one.name) for one in definition.plan.columns if word.search(one.sql)), None)


def _named(source: str, name: str) -> list[int]:
    """Return the lines on which a function is called by its name."""
    tokens = sqlglot.tokenize(source, read="postgres")
    return [
        token.line
        for token, behind in pairwise(tokens)
        if token.text.lower() == name and behind.token_type is TokenType.L_PAREN
    ]
