"""The rows that a transform makes of one event, made again by its function, without any table."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from refold.engine.apply.copy_rows import texts
from refold.engine.apply.decoding import decoded
from refold.errors import BuildError
from refold.model.projection.failure import FunctionFailed
from refold.model.sql_text import ident
from refold.model.stream.copy_text import quoted
from refold.model.upkeep.statements import Relation
from refold.model.upkeep.transform import applied_rows
from refold.store.builds.compiled import CompiledBuild


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A transform's table whose expected rows are parameters.

    Args:
        relation: the table.
        parameters: the rows.
    """

    relation: Relation
    parameters: dict[str, str]


def recomputed(
    conn: psycopg.Connection,
    compiled: CompiledBuild,
    types: list[str],
    parameters: Mapping[str, Any],
    condition: str,
    event_id: str,
) -> Recomputed:
    """Return a transform's table with the row of this id that the function makes, if it makes one.

    Args:
        conn: the caller's snapshot.
        compiled: the transform's build.
        types: the types of the table's columns, as SQL.
        parameters: the cursor of the build, which limits the events, and those of the condition.
        condition: the condition on rows of the stream that selects the event.
        event_id: the id of the row.

    Raises:
        BuildError: the function fails.
    """
    transform = compiled.transform
    assert transform is not None
    query = applied_rows(transform, compiled.stream, since=False, condition=condition)
    try:
        with closing(decoded(conn, query, parameters)) as rows:
            made = [texts(conn, row) for row in transform.rows(rows) if row[3] == event_id]
    except FunctionFailed as error:
        raise BuildError(
            f"{transform.plan.name} fails today for an event that it has processed: {error}",
            remedy="Correct the function, then run `refold deploy`.",
        ) from error
    relation = compiled.statements.relations[0]
    columns = list(zip(relation.columns, types, strict=True))
    selected = ", ".join(f"c{at}::{kind} AS {ident(name)}" for at, (name, kind) in enumerate(columns))
    arrays = ", ".join(f"%(made_{at})s::text[]" for at in range(len(columns)))
    names = ", ".join(f"c{at}" for at in range(len(columns)))
    source = f"SELECT {selected}\nFROM unnest({arrays}) AS made ({names})"
    return Recomputed(
        replace(relation, expected=lambda scope, table_scope: source),
        {f"made_{at}": _array([row[at] for row in made]) for at in range(len(columns))},
    )


def _array(values: list[str | None]) -> str:
    return "{" + ",".join("NULL" if value is None else quoted(value) for value in values) + "}"
