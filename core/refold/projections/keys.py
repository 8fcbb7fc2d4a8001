"""The declared key of a recompute projection: where it stands, and whether the query falls apart by it."""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlglot import exp

from refold.errors import DefinitionError

_DECLARATION = re.compile(r"^\s*--\s*key\s*:\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)


def declared_key(source: str) -> tuple[str, ...] | None:
    """The columns named in a comment line `-- key: a, b`, or None."""
    match = _DECLARATION.search(source)
    return tuple(part.strip() for part in match[1].split(",")) if match else None


def check_recompute_key(
    query: exp.Select,
    key: tuple[str, ...],
    stream_columns: tuple[str, ...],
    error: Callable[[str, exp.Expr | None, str | None], DefinitionError],
) -> None:
    """Checks that the rows of one key depend on the events of that key alone.

    That holds when the key is a column of the stream, handed through every level of the query unchanged, and
    every level groups, partitions, de-duplicates and joins by it.

    Raises:
        DefinitionError: it does not hold, or cannot be seen to hold.
    """
    for name in key:
        if name not in stream_columns:
            raise error(
                f"the declared key {name} is not a column of the stream",
                query,
                "Declare a column of the stream, and hand it through unchanged.",
            )
    for select in query.find_all(exp.Select):
        outputs = {item.alias_or_name: item.unalias() for item in select.expressions}
        starred = any(item.is_star for item in select.expressions)
        for name in key:
            node = outputs.get(name)
            if not (starred and node is None) and not (isinstance(node, exp.Column) and node.name == name):
                raise error(
                    f"this level does not hand the key {name} through",
                    select,
                    f"Select {name} at every level.",
                )
        group = select.args.get("group")
        if group is not None:
            terms = {term.name for term in group.expressions if isinstance(term, exp.Column)}
            terms |= {
                select.expressions[int(term.this) - 1].alias_or_name
                for term in group.expressions
                if isinstance(term, exp.Literal) and not term.is_string
            }
            _require(key, terms, "GROUP BY", select, error)
        elif any(_own(aggregate) is select for aggregate in select.find_all(exp.AggFunc)):
            raise error(
                "an aggregate without GROUP BY mixes the events of all keys",
                select,
                f"GROUP BY {', '.join(key)}.",
            )
        for window in select.find_all(exp.Window):
            parts = {
                part.name for part in window.args.get("partition_by") or [] if isinstance(part, exp.Column)
            }
            _require(key, parts, "PARTITION BY", window, error)
        for join in select.args.get("joins") or []:
            using = {identifier.name for identifier in join.args.get("using") or []}
            on = join.args.get("on")
            if on is not None:
                using |= {
                    equal.left.name
                    for equal in on.find_all(exp.EQ)
                    if isinstance(equal.left, exp.Column)
                    and isinstance(equal.right, exp.Column)
                    and equal.left.name == equal.right.name
                }
            _require(key, using, "the join", join, error)


def _own(aggregate: exp.Expr) -> exp.Expr | None:
    """The SELECT whose groups the aggregate works on; None for a window function."""
    if aggregate.find_ancestor(exp.Window) is not None:
        return None
    return aggregate.find_ancestor(exp.Select)


def _require(
    key: tuple[str, ...],
    present: set[str],
    clause: str,
    node: exp.Expr,
    error: Callable[[str, exp.Expr | None, str | None], DefinitionError],
) -> None:
    for name in key:
        if name not in present:
            raise error(
                f"{clause} lacks the key {name}, so rows would depend on the events of other keys",
                node,
                f"Add {name} to {clause}.",
            )
