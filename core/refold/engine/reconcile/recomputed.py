"""The rows that a transform's table must hold, computed again by the function, a slice at a time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from itertools import islice

import psycopg

from refold.engine.apply.copy_rows import write_rows
from refold.engine.apply.decoding import decoded
from refold.engine.apply.page import alive
from refold.model.sql_text import ident
from refold.model.upkeep.transform import EXPECTED, applied_rows
from refold.store.builds.compiled import CompiledBuild

TOGETHER = 100
"""Most rows of the stream in memory: an event may have a megabyte."""
AMONG_THEM = "(txid, position) IN (SELECT txid, position FROM pg_temp.recomputed_events)"
"""Condition on a row of the table: its event was recomputed."""


def recompute(
    conn: psycopg.Connection,
    compiled: CompiledBuild,
    parameters: Mapping[str, str],
    condition: str,
    *,
    since: bool = False,
) -> None:
    """Compute the rows that the function returns for some events, and store them in the temporary table `EXPECTED`.

    Args:
        conn: the caller's snapshot, or a transaction that holds the build's lock.
        compiled: the transform's build.
        parameters: the cursor of the build, which limits the events, and `since`.
        condition: condition on the rows of the stream, for a few slices.
        since: whether to compute only events since the parameter `since`.
    """
    assert compiled.transform is not None
    query = applied_rows(compiled.transform, compiled.stream, since=since, condition=condition)
    relation = compiled.statements.relations[0]
    columns = ", ".join(map(ident, relation.columns))
    conn.execute(f"DROP TABLE IF EXISTS {EXPECTED}, pg_temp.recomputed_events".encode())
    conn.execute(f"CREATE TEMPORARY TABLE expected_rows (LIKE {relation.table}) ON COMMIT DROP".encode())
    conn.execute(b"CREATE TEMPORARY TABLE recomputed_events (txid xid8, position bigint) ON COMMIT DROP")
    # Close the generator at once, also if the function fails. Its server cursor ends with the savepoint; if the garbage
    # collector closed it later, the transaction of that moment would fail.
    with closing(decoded(conn, query, parameters, portion=TOGETHER)) as rows:
        while page := list(islice(rows, TOGETHER)):
            # Compute all rows before the COPY, as in a page: a process frozen in the function would hold its locks.
            expected = list(compiled.transform.rows(alive(conn, page)))
            write_rows(conn, f"COPY {EXPECTED} ({columns}) FROM STDIN", expected)
            events = [(row["txid"], row["position"]) for row in page]
            write_rows(conn, "COPY pg_temp.recomputed_events FROM STDIN", events)
