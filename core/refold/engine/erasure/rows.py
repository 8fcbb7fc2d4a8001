"""Statements that change the events of an erasure, in the log or a table with its columns, and their ids elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from refold.store.erasures import Erasure, Mode
from refold.store.log.seal import SliceChecksum, checksums

_OWN = "refold.erased_events AS x WHERE x.erasure_id = %(erasure)s AND NOT x.mention AND x.position = e.position"
"""The end of a statement on the person's own events."""


class Mine:
    """Events by their positions, as a condition with bounds that an index knows."""

    def __init__(self, positions: Sequence[int]) -> None:
        self.positions = sorted(positions)
        self._low, self._high = (self.positions[0], self.positions[-1]) if self.positions else (0, -1)
        self.condition = self.of("")

    def of(self, table: str) -> str:
        """Return the condition for rows of a table that a statement calls so."""
        position = f"{table}.position" if table else "position"
        listed = ",".join(map(str, self.positions))
        return f"({position} BETWEEN {self._low} AND {self._high} AND {position} = ANY ('{{{listed}}}'::bigint[]))"

    def checksums(self, conn: psycopg.Connection) -> dict[int, SliceChecksum]:
        """Return the checksums of just these events, by slice."""
        return checksums(conn, rows_of=f"(SELECT * FROM refold.events WHERE {self.condition}) AS mine")


def parameters_of_change(erasure: Erasure, token: str, ids: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of `change_rows`; its arguments are those of an erasure, and new ids by the old ones."""
    return {
        "erasure": erasure.erasure_id,
        "token": token,
        "keeps": erasure.keeps,
        "fields": erasure.fields,
        "macs": erasure.macs,
        "old": list(ids),
        "new": list(ids.values()),
    }


def change_rows(
    conn: psycopg.Connection, table: str, mode: Mode, known: Mapping[str, Any], positions: Sequence[int]
) -> None:
    """Change or remove the events at some positions of the log, or of a table with its columns.

    Args:
        conn: may change the table; the caller's transaction.
        table: the table.
        mode: what becomes of the person's own events.
        known: what `parameters_of_change` returns.
        positions: where the events stand.
    """
    mine = Mine(positions)
    if mode == "delete":
        conn.execute(f"DELETE FROM {table} AS e USING {_OWN} AND {mine.of('e')}".encode(), known)
    else:
        conn.execute(
            f"""
            UPDATE {table} AS e
            SET user_id = %(token)s,
                metadata = coalesce((SELECT jsonb_object_agg(f, e.metadata -> f) FROM unnest(%(keeps)s::text[]) AS f
                                     WHERE e.metadata ? f), '{{}}')
            FROM {_OWN} AND {mine.of("e")}
            """.encode(),
            known,
        )
    conn.execute(
        f"""
        UPDATE {table} AS e SET metadata = e.metadata || m.named
        FROM (
            SELECT o.position, o.txid, jsonb_object_agg(u.field, to_jsonb(%(token)s::text)) AS named
            FROM {table} AS o
            JOIN unnest(%(fields)s::text[], %(macs)s::bytea[]) AS u (field, mac)
                ON refold.erasure_mac(o.metadata ->> u.field) = u.mac
            WHERE {mine.of("o")}
            GROUP BY o.position, o.txid
        ) AS m
        WHERE e.position = m.position AND e.txid = m.txid AND {mine.of("e")}
        """.encode(),
        known,
    )
    conn.execute(
        f"UPDATE {table} AS e SET event_id = u.new FROM unnest(%(old)s::text[], %(new)s::text[]) AS u (old, new)"
        f" WHERE e.event_id = u.old AND {mine.of('e')}".encode(),
        known,
    )


def rename(conn: psycopg.Connection, ids: Mapping[str, str]) -> None:
    """Put new ids in the place of those that held the person, in all tables but the log.

    Args:
        conn: acts as refold_owner, with `refold.restoring`; the caller's transaction.
        ids: new ids by the old ones.
    """
    for table in ("event_ids", "dead_letters", "violations", "lost_events"):
        conn.execute(
            f"UPDATE refold.{table} AS t SET event_id = u.new"
            " FROM unnest(%s::text[], %s::text[]) AS u (old, new) WHERE t.event_id = u.old".encode(),
            (list(ids), list(ids.values())),
        )


def add_new_ids(conn: psycopg.Connection, ids: Mapping[str, int]) -> None:
    """Add new ids of purged events to the ledger, where the cold ledger has the former ones.

    Args:
        conn: acts as refold_owner, with `refold.restoring`; the caller's transaction.
        ids: positions by the new ids.
    """
    added = conn.execute(
        "INSERT INTO refold.event_ids (event_id, digest, position)"
        " SELECT n.event_id, 0, n.position FROM unnest(%s::text[], %s::bigint[]) AS n (event_id, position)"
        " ON CONFLICT DO NOTHING RETURNING position",
        (list(ids), list(ids.values())),
    ).fetchall()
    # The next step of `refold.chill_step` copies them.
    conn.execute(
        "UPDATE refold.cold_ranges AS r SET released_to = r.lower_position WHERE EXISTS ("
        "SELECT FROM unnest(%s::bigint[]) AS n (position)"
        " WHERE n.position >= r.lower_position AND n.position < r.upper_position)",
        ([position for (position,) in added],),
    )


def silence(conn: psycopg.Connection, positions: Sequence[int], ids: Sequence[str]) -> None:
    """Let whatever comes under the ids of purged events be a duplicate, in the ledger and in the cold one.

    Args:
        conn: acts as refold_owner; the caller's transaction.
        positions: where the events stood.
        ids: their ids.
    """
    # As whoever moves ids to the cold ledger does, before any of these ids.
    conn.execute("LOCK TABLE refold.cold_ids IN SHARE ROW EXCLUSIVE MODE")
    conn.execute("SET LOCAL refold.restoring = on")
    conn.execute(f"UPDATE refold.event_ids SET digest = 0 WHERE {Mine(positions).condition}".encode())
    conn.execute("SELECT refold.silence_ids(%s)", (list(ids),))
    conn.execute("SET LOCAL refold.restoring = off")
