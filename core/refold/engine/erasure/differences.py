"""What an erasure changed in the metrics: numbers of rows and sums, and no row, for rows hold people."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal

import psycopg

_EXACT = Context(prec=200_000)
"""More digits than a numeric of Postgres has; by default a sum is rounded to 28."""
Metrics = dict[str, dict[str, dict[str, str | int]]]
"""By projection and table: rows by kind of difference, and by how much the sum of each column of numbers changed."""

_ROWS = """
SELECT projection, relation, kind, count(*) FROM refold.repairs
WHERE repair_id > %(last)s AND build_id = ANY (%(builds)s) GROUP BY 1, 2, 3
"""
# Rows of events have numbers that say where they come from. A number of the key may be a person's.
_SUMS = """
SELECT r.projection, r.relation, n.name, sum(n.value) AS difference
FROM refold.repairs AS r
CROSS JOIN LATERAL (VALUES (r.after, 1), (r.before, -1)) AS side (rows, sign)
CROSS JOIN LATERAL jsonb_array_elements(
    CASE jsonb_typeof(side.rows)
        WHEN 'array' THEN side.rows WHEN 'object' THEN jsonb_build_array(side.rows) ELSE '[]' END
) AS row
CROSS JOIN LATERAL (
    SELECT p.key AS name, side.sign * (p.value #>> '{}')::numeric AS value
    FROM jsonb_each(row) AS p WHERE jsonb_typeof(p.value) = 'number' AND NOT r.key ? p.key
) AS n
WHERE r.repair_id > %(last)s AND r.build_id = ANY (%(builds)s) AND NOT row ? 'event_id'
GROUP BY 1, 2, 3 HAVING sum(n.value) <> 0
"""


def taken_from_repairs(conn: psycopg.Connection, last: int, builds: Sequence[int]) -> Metrics:
    """Return what was healed since a repair, and delete the records of it: they hold the rows as they were.

    Args:
        conn: acts as refold_worker, in the transaction that has healed; its login may act as refold_owner.
        last: number of the last repair from before.
        builds: the builds whose locks it holds.
    """
    known = {"last": last, "builds": list(builds)}
    found: Metrics = {}
    for projection, relation, kind, rows in conn.execute(_ROWS, known).fetchall():
        found.setdefault(projection, {}).setdefault(relation, {})[kind] = int(rows)
    for projection, relation, name, difference in conn.execute(_SUMS, known).fetchall():
        found[projection][relation][f"sum({name})"] = str(difference)
    conn.execute("SET LOCAL ROLE refold_owner")
    conn.execute("DELETE FROM refold.repairs WHERE repair_id > %(last)s AND build_id = ANY (%(builds)s)", known)
    conn.execute("SET LOCAL ROLE refold_worker")
    return found


def together(one: Metrics, other: Metrics) -> Metrics:
    """Return the differences of two portions as one. Pure."""
    result: Metrics = {
        projection: {name: dict(told) for name, told in tables.items()} for projection, tables in one.items()
    }
    for projection, tables in other.items():
        for name, told in tables.items():
            into = result.setdefault(projection, {}).setdefault(name, {})
            for what, number in told.items():
                was = into.get(what, 0)
                into[what] = (
                    was + number
                    if isinstance(was, int) and isinstance(number, int)
                    else str(_EXACT.add(Decimal(was), Decimal(number)))
                )
    return result
