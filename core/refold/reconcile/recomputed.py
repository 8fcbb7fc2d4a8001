"""What a transform's table must hold: computed again by the function, a range of coordinates at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from refold.builds.upkeeper import Upkeeper
from refold.cursor import LAST_ORDINAL, Key
from refold.projections.identifiers import ident
from refold.reconcile.scope import Scope
from refold.upkeep.statements import EVERYTHING
from refold.upkeep.transform import EXPECTED, applied_rows
from refold.worker.page import key_parameters
from refold.worker.write_rows import write_rows

CHUNK = 20_000
"""Rows of the stream in one range."""
_FIRST = Key(0, 0, -1)
_LAST = Key(2**63 - 1, 2**63 - 1, LAST_ORDINAL)


@dataclass(frozen=True, slots=True)
class Range:
    """The log's coordinates from just after one key up to another.

    Args:
        after: the key before it.
        upto: its last key; everything behind it, for the last range.
    """

    after: Key
    upto: Key

    def scope(self, since: bool) -> Scope:
        """The table's rows of this range; with `since`, of the recomputed events only."""
        within = (
            "(txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)"
            " AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint)"
        )
        if since:
            within += " AND (txid, position) IN (SELECT txid, position FROM pg_temp.recomputed_events)"
        return Scope(EVERYTHING, within)

    def parameters(self) -> dict[str, str]:
        return {**key_parameters("after", self.after), **key_parameters("upto", self.upto)}


EVERYWHERE = Range(_FIRST, _LAST)


def ranges(
    conn: psycopg.Connection,
    keeper: Upkeeper,
    parameters: dict[str, str],
    since: bool,
    within: Range = EVERYWHERE,
) -> Iterator[Range]:
    """Recomputes the stream range by range; at each, the expected rows are in a temporary table.

    Args:
        conn: the caller's snapshot, or a transaction that holds the build's lock.
        keeper: the transform's build.
        parameters: its cursor, and `since`.
        since: only events since that parameter.
        within: only this part; it may hold more events than when it was found, and is cut into ranges again.
    """
    assert keeper.transform is not None
    query = applied_rows(keeper.transform, keeper.stream, since=since).encode()
    after = within.after
    while True:
        bounds = Range(after, within.upto).parameters() | {"limit": str(CHUNK)}
        with conn.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(query, parameters | bounds).fetchall()
        fill(conn, keeper, rows)
        if len(rows) < CHUNK:
            yield Range(after, within.upto)
            return
        upto = _key(rows[-1])
        yield Range(after, upto)
        after = upto


AT = "(txid, position) IN (SELECT * FROM unnest(%(txids)s::xid8[], %(positions)s::bigint[]))"
"""Condition on a row: it comes from one of the log events in the parameters of `events_parameters`."""


def events_parameters(events: Iterable[tuple[int, int]]) -> dict[str, str]:
    """Log events, as (txid, position), for the condition `AT`."""
    txids, positions = zip(*events, strict=True)
    return {
        "txids": "{" + ",".join(map(str, txids)) + "}",
        "positions": "{" + ",".join(map(str, positions)) + "}",
    }


def fill_events(conn: psycopg.Connection, keeper: Upkeeper, parameters: dict[str, str]) -> None:
    """Recomputes what some log events become, as far as the cursor has applied them."""
    assert keeper.transform is not None
    with conn.cursor(row_factory=dict_row) as cursor:
        query = applied_rows(keeper.transform, keeper.stream, since=False, condition=AT)
        fill(conn, keeper, cursor.execute(query.encode(), parameters).fetchall())


def fill(conn: psycopg.Connection, keeper: Upkeeper, rows: list[dict[str, Any]]) -> None:
    """Puts the rows that the function makes of these events into the temporary table of expectations."""
    assert keeper.transform is not None
    relation = keeper.statements.relations[0]
    columns = ", ".join(map(ident, relation.columns))
    conn.execute(f"DROP TABLE IF EXISTS {EXPECTED}, pg_temp.recomputed_events".encode())
    conn.execute(f"CREATE TEMPORARY TABLE expected_rows (LIKE {relation.table}) ON COMMIT DROP".encode())
    conn.execute(b"CREATE TEMPORARY TABLE recomputed_events (txid xid8, position bigint) ON COMMIT DROP")
    write_rows(conn, f"COPY {EXPECTED} ({columns}) FROM STDIN", keeper.transform.rows(rows))
    write_rows(
        conn,
        "COPY pg_temp.recomputed_events FROM STDIN",
        ((row["txid"], row["position"]) for row in rows),
    )


def _key(row: dict[str, Any]) -> Key:
    return Key(row["txid"], row["position"], LAST_ORDINAL)
