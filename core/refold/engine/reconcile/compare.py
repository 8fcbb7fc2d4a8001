"""Differences between a table and its query, kept in a temporary table so that nothing is held in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import psycopg

from refold.engine.reconcile.nameless import repairs_are_nameless
from refold.engine.reconcile.result import Difference, ReconcileReport, bare_name
from refold.engine.reconcile.scope import Scope
from refold.model.upkeep.statements import Relation
from refold.postgres.rows import exact
from refold.store.builds.build import Build

SHOWN = 1_000
"""Most findings of a table that a report holds with their rows."""

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
    """Store the rows on which table and query differ in the temporary table, and return their number.

    Args:
        conn: the caller's transaction, at whose end the temporary table is dropped.
        relation: the table to compare.
        scope: the keys to compare.
        parameters: the cursor as of which to compare, and the parameters of the scope.
    """
    query = relation.differences(scope.stream, scope.table)
    conn.execute(f"DROP TABLE IF EXISTS {FOUND}".encode())
    # The client binds the parameters: CREATE TABLE AS takes none.
    with psycopg.ClientCursor(conn) as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE found ON COMMIT DROP AS\n{query}".encode(), dict(parameters))
        return cursor.rowcount


def hashes(conn: psycopg.Connection) -> list[int]:
    """Return the hashes of the keys that differ."""
    return [int(value) for (value,) in conn.execute(f"SELECT DISTINCT hash FROM {FOUND}".encode()).fetchall()]


def slices(conn: psycopg.Connection) -> set[int]:
    """Return the slices of the rows that differ."""
    return {int(number) for (number,) in conn.execute(f"SELECT DISTINCT slice FROM {FOUND}".encode()).fetchall()}


def differences(conn: psycopg.Connection, build: Build, relation: Relation, *, healed: bool) -> ReconcileReport:
    """Return the differences by key: the first ones with their rows, and the number of each kind."""
    name = bare_name(relation.table)
    rows = exact(conn.cursor()).execute(f"{_BY_KEY} ORDER BY key LIMIT {SHOWN}".encode()).fetchall()
    counts = conn.execute(f"SELECT kind, count(*) FROM ({_BY_KEY}) AS k GROUP BY kind".encode()).fetchall()
    return ReconcileReport(
        [
            Difference(build.projection, name, kind, key, _single(before), _single(after), healed)
            for key, kind, before, after in rows
        ],
        Counter({(build.projection, name, kind): int(number) for kind, number in counts}),
    )


def record(conn: psycopg.Connection, build: Build, relation: Relation) -> None:
    """Insert the differences into `refold.repairs`, in the transaction that heals them."""
    what = (
        "'{}'::jsonb, NULL, NULL"
        if repairs_are_nameless()
        else "key, CASE jsonb_array_length(before) WHEN 1 THEN before -> 0 ELSE before END,"
        " CASE jsonb_array_length(after) WHEN 1 THEN after -> 0 ELSE after END"
    )
    conn.execute(
        f"""
        INSERT INTO refold.repairs (build_id, projection, relation, kind, key, before, after)
        SELECT %s, %s, %s, kind, {what}
        FROM ({_BY_KEY}) AS found
        """.encode(),
        (build.build_id, build.projection, bare_name(relation.table)),
    )


def _single(rows: list[object] | None) -> object:
    return rows[0] if rows is not None and len(rows) == 1 else rows
