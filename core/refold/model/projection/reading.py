"""A query as refold reads it, so that Postgres can compare its own reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlglot import exp

from refold.model.projection.equal_values import Choice, made_plain
from refold.model.projection.select import Select, line_of, written


@dataclass(frozen=True, slots=True)
class Reading:
    """A query as sqlglot parsed it.

    Args:
        query: its syntax tree.
        texts: the columns whose equal values are identical.
        choices: the places where the query keeps one of several equal values.
        parts: each output by its name, and the conditions under the names WHERE and HAVING.
    """

    query: exp.Select
    texts: frozenset[str]
    choices: tuple[Choice, ...]
    parts: Mapping[str, exp.Expr]

    @property
    def text(self) -> str:
        """Return the query as SQL, generated from its tree."""
        return written(self.query)

    def plain(self, only: int | None = None) -> str:
        """Return the query as SQL in which choices keep one spelling of equal values.

        Args:
            only: the index of the one choice to rewrite; all of them by default.
        """
        query = self.query.copy()
        made_plain(query, self.texts, only=only)
        return written(query)

    def line(self, node: exp.Expr | None) -> int | None:
        """Return the line of the file on which a part of the query starts; None if it is unknown."""
        return line_of(node)

    def holding(self, word: str) -> exp.Expr | None:
        """Return the first part whose SQL contains a word; None if none does."""
        return next((part for part in self.parts.values() if word in written(part)), None)


def reading(name: str, source: str, stream: str, columns: tuple[str, ...], path: Path | None) -> Reading:
    """Return a query as refold reads it, so that Postgres can compare its own reading.

    Args:
        name: the projection.
        source: the text of its file.
        stream: the stream that it reads.
        columns: the columns of the stream.
        path: the file, for messages; None when the text does not come from a file.
    """
    analysis = Select(name, source, {stream: columns}, path)
    query = analysis.query
    texts = frozenset(analysis.texts())
    parts: dict[str, exp.Expr] = {item.alias_or_name: item for item in query.expressions}
    for clause in ("where", "having"):
        if query.args.get(clause) is not None:
            parts[clause.upper()] = query.args[clause]
    return Reading(query, texts, tuple(made_plain(query.copy(), texts)), parts)
