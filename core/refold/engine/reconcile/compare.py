"""Differences between a table and its query, kept in a temporary table so that nothing is held in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import psycopg

from refold.engine.reconcile.result import Difference, ReconcileReport, bare_name
from refold.engine.reconcile.scope import Scope
from refold.model.upkeep.statements import Relation
from refold.store.builds.build import Build

SHOWN = 1_000
"""Findings of a table that a report carries with their rows."""

FOUND = "pg_temp.found"

_BY_KEY = f"""
    SELECT
        key,
        CASE WHEN count(*) FILTER (WHERE side = 'actual') = 0 THEN 'missing'
             WHEN count(*) FILTER (WHERE side = 'expected') = 0 THEN 'orphan'
             ELSE 'drifted' END AS kind,
        jsonb_agg(row) FILTER (WHERE side = 'actual') AS before,
        jsonb_agg(row) FILTER (WHERE side = 'expected') AS after
    FROM {FOUND}
    GROUP BY key
"""


def compare(conn: psycopg.Connection, relation: Relation, scope: Scope, parameters: Mapping[str, str]) -> int:
    """Puts the rows on which table and query differ into the temporary table; returns how many.

    Args:
        conn: the caller's transaction; the temporary table goes with it.
        relation: which table.
        scope: which keys.
        parameters: the cursor, as of which it is compared, and what the scope needs.
    """
    query = relation.differences(scope.stream, scope.table)
    conn.execute(f"DROP TABLE IF EXISTS {FOUND}".encode())
    # Bound by the client: CREATE TABLE AS takes no parameters.
    with psycopg.ClientCursor(conn) as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE found ON COMMIT DROP AS\n{query}".encode(), dict(parameters))
        return cursor.rowcount


def hashes(conn: psycopg.Connection) -> list[int]:
    """The hashes of the keys that differ."""
    return [int(value) for (value,) in conn.execute(f"SELECT DISTINCT hash FROM {FOUND}".encode()).fetchall()]


def slices(conn: psycopg.Connection) -> set[int]:
    """The slices that the rows which differ are in."""
    return {int(number) for (number,) in conn.execute(f"SELECT DISTINCT slice FROM {FOUND}".encode()).fetchall()}


def differences(conn: psycopg.Connection, build: Build, relation: Relation, *, healed: bool) -> ReconcileReport:
    """Return the differences by key: the first of them with their rows, and how many there are of each kind."""
    name = bare_name(relation.table)
    rows = conn.execute(f"{_BY_KEY} ORDER BY key LIMIT {SHOWN}".encode()).fetchall()
    counts = conn.execute(f"SELECT kind, count(*) FROM ({_BY_KEY}) AS k GROUP BY kind".encode()).fetchall()
    return ReconcileReport(
        [
            Difference(build.projection, name, kind, key, _single(before), _single(after), healed)
            for key, kind, before, after in rows
        ],
        Counter({(build.projection, name, kind): int(number) for kind, number in counts}),
    )


def record(conn: psycopg.Connection, build: Build, relation: Relation) -> None:
    """Writes the differences to `refold.repairs`, in the transaction that heals them."""
    conn.execute(
        f"""
        INSERT INTO refold.repairs (build_id, projection, relation, kind, key, before, after)
        SELECT %s, %s, %s, kind, key,
               CASE jsonb_array_length(before) WHEN 1 THEN before -> 0 ELSE before END,
               CASE jsonb_array_length(after) WHEN 1 THEN after -> 0 ELSE after END
        FROM ({_BY_KEY}) AS found
        """.encode(),
        (build.build_id, build.projection, bare_name(relation.table)),
    )


def _single(rows: list[object] | None) -> object:
    return rows[0] if rows is not None and len(rows) == 1 else rows
