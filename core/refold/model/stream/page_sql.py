"""Reading a stream: the page, and the part of it that a cursor has applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refold.model.sql_text import ident, in_order, indent

LOG_TABLE = "refold.events"
ALIVE = "event_id <> ALL (%(dead)s::text[])"
"""Condition on a row: it is none of the build's dead letters. Pages need it only where they read behind the cursor."""

_UPTO = "(SELECT txid::text::bigint FROM upto__) AS txid, (SELECT position FROM upto__), (SELECT ordinal FROM upto__)"


@dataclass(frozen=True, slots=True)
class Page:
    """How a statement reads a page.

    Args:
        rows: the rows themselves, in order.
        source: the CTEs `page` (the rows) and `upto__` (the key that closes the page).
        coordinates: a relation with the rows' position and ordinal.
        events: how many rows the page has, as an expression.
    """

    rows: str
    source: str
    coordinates: str
    events: str

    @property
    def answer(self) -> str:
        """The statement's SELECT: how many rows the page has, and its last key."""
        return f"SELECT {self.events} AS events,\n       {_UPTO}"


@dataclass(frozen=True, slots=True)
class Stream:
    """A relation whose rows carry the coordinates of log events.

    Args:
        table: its qualified name.
        ordinal: whether one log event can have several rows there (every stream but the log).
    """

    table: str
    ordinal: bool

    @property
    def coordinates(self) -> str:
        return "txid, position, ordinal" if self.ordinal else "txid, position"

    def bound(self, name: str) -> str:
        """Three parameters as a row to compare the coordinates with."""
        parts = [f"%({name}_txid)s::xid8", f"%({name}_position)s::bigint"]
        if self.ordinal:
            parts.append(f"%({name}_ordinal)s::integer")
        return "(" + ", ".join(parts) + ")"

    def page(self, columns: Sequence[str]) -> Page:
        """The next rows in order of their coordinates, at most `limit`.

        Two branches with an ORDER BY and LIMIT each: as a single OR the predicate cannot use the index
        under a generic plan (400 ms a poll at 2 million rows, against 1). The first branch are transactions
        that were in progress at `done`; all of them are older than the second's. The second's range is one
        comparison on each side (`from`, `to`): of two lower bounds the index would start at either one, and
        an empty poll would go through all of the log (40 ms for a million events).
        """
        names = self._carried(columns)

        def between(low: str, high: str) -> str:
            return f"({self.coordinates}) > {self.bound(low)}\n       AND ({self.coordinates}) <= {self.bound(high)}"

        rows = (
            f"SELECT * FROM (\n"
            f"    (SELECT {names}\n"
            f"     FROM {self.table}\n"
            f"     WHERE txid = ANY (%(open)s::xid8[]) AND {self.seen}\n"
            f"       AND {between('after', 'upto')}\n"
            f"     ORDER BY {self.coordinates} LIMIT %(limit)s::bigint)\n"
            f"    UNION ALL\n"
            f"    (SELECT {names}\n"
            f"     FROM {self.table}\n"
            f"     WHERE {between('from', 'to')} AND {self.seen}\n"
            f"     ORDER BY {self.coordinates} LIMIT %(limit)s::bigint)\n"
            f") AS unread\n"
            f"ORDER BY {self.coordinates} LIMIT %(limit)s::bigint"
        )
        descending = ", ".join(f"{name} DESC" for name in self.coordinates.split(", "))
        return Page(
            rows,
            f"page AS MATERIALIZED (\n{indent(rows)}\n),\n"
            f"upto__ AS MATERIALIZED (\n"
            f"    SELECT txid, position, ordinal FROM page ORDER BY {descending} LIMIT 1\n"
            f")",
            "page",
            "(SELECT count(*) FROM page)",
        )

    def settled_page(self, columns: Sequence[str], *, uses: int = 1) -> Page:
        """The same in the middle of a backlog, where every transaction between the bounds is over.

        Then one range of the index holds the page, and nothing has to be checked row by row. Its end is found
        first, in the index alone: that costs less than to put the rows in order and aside.

        Args:
            columns: what is read of each row.
            uses: how often the statement reads the page; used once, its rows need not be put aside.
        """
        names = self._carried(columns)
        after = f"({self.coordinates}) > {self.bound('after')}"
        ordinal = "ordinal" if self.ordinal else "0"
        end = (
            f"(SELECT txid, position, {ordinal} AS ordinal, true AS full_page\n"
            f" FROM {self.table}\n"
            f" WHERE {after}\n"
            f"   AND ({self.coordinates}) <= {self.bound('upto')}\n"
            f" ORDER BY {self.coordinates} OFFSET %(limit)s::bigint - 1 LIMIT 1)\n"
            f"UNION ALL\n"
            f"SELECT %(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer, false\n"
            f"ORDER BY full_page DESC LIMIT 1"
        )
        upto = ", ".join(f"(SELECT {name} FROM upto__)" for name in self.coordinates.split(", "))
        # The bound on txid alone is implied; it tells the planner that these are few rows.
        within = (
            f"FROM {self.table}\nWHERE {after}\n"
            f"  AND ({self.coordinates}) <= ({upto})\n  AND txid <= (SELECT txid FROM upto__)"
        )
        kept = "NOT MATERIALIZED" if uses == 1 else "MATERIALIZED"
        return Page(
            f"SELECT {names}\n"
            f"FROM {self.table}\n"
            f"WHERE {after}\n"
            f"  AND ({self.coordinates}) <= {self.bound('upto')}\n"
            f"ORDER BY {self.coordinates} LIMIT %(limit)s::bigint",
            f"upto__ AS MATERIALIZED (\n{indent(end)}\n),\npage AS {kept} (\n    SELECT {names}\n{indent(within)}\n)",
            # From the index alone, where the page itself would have to be put aside to be read twice.
            f"(\n    SELECT position, {'ordinal' if self.ordinal else '0 AS ordinal'}\n{indent(within)}\n) AS page",
            "CASE WHEN (SELECT full_page FROM upto__) THEN %(limit)s::bigint ELSE (SELECT count(*) FROM page) END",
        )

    def _carried(self, columns: Sequence[str]) -> str:
        carried = [ident(column) for column in columns if column not in ("txid", "position", "ordinal")]
        return ", ".join(["txid", "position", "ordinal" if self.ordinal else "0 AS ordinal", *carried])

    def applied(self) -> str:
        """Condition on a row: the cursor (parameters done, target, progress) says that it was applied."""
        return (
            f"(pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)\n"
            f"     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)"
            f" AND ({self.coordinates}) <= {self.bound('progress')}))\n"
            f"  AND {ALIVE}"
        )

    @property
    def seen(self) -> str:
        """Condition on a row: its transaction is over in the target; for most rows one comparison tells."""
        return "(txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))"

    def run(self) -> str:
        """Condition on a row: it belongs to this step of a first load, which starts from nothing."""
        return (
            f"{self.seen} AND {ALIVE}\n"
            f"  AND (%(whole)s::boolean OR\n"
            f"       (({self.coordinates}) > {self.bound('after')}"
            f" AND ({self.coordinates}) <= {self.bound('upto')}))"
        )

    def known(self, columns: str, condition: str) -> str:
        """The rows of a key as of the end of a page, whose last key is in `upto__`.

        OFFSET 0: the index finds them, and what else the projection says is not evaluated for other rows.

        Args:
            columns: what is read of each row.
            condition: which key.
        """
        upto = f"(SELECT {self.coordinates} FROM upto__)"
        return (
            f"SELECT {columns} FROM {self.table}\n"
            f"WHERE {condition} AND {ALIVE}\n"
            f"  AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)\n"
            f"       OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND ({self.coordinates}) <= {upto}))\n"
            f"OFFSET 0"
        )

    def ranges(self, key_hash: str) -> tuple[str, str]:
        """Conditions on a row where a first load goes by ranges of its key's hash: in this step, and in those left."""
        part = f"({key_hash} & 2147483647) %% %(steps)s::integer"
        return (
            f"{self.seen} AND {ALIVE}\n  AND (%(steps)s::integer = 1 OR {part} = %(step)s::integer)",
            in_order(self.run(), f"(%(steps)s::integer = 1 OR {part} >= %(step)s::integer)"),
        )

    def keys_left(self, key_hash: str) -> str:
        """The hashes of the keys of which a step of such a load is left."""
        return f"SELECT DISTINCT {key_hash}\nFROM {self.table}\nWHERE {self.ranges(key_hash)[1]}"

    def of_keys(self, key_hash: str) -> str:
        """Condition on a row: it belongs to this step of a first load, and to a key in the parameter `keys`."""
        return in_order(self.run(), f"{key_hash} IN (SELECT unnest(%(keys)s::bigint[]))")

    def events_of_keys(self, key_hash: str) -> str:
        """The events of such keys, in order: id and coordinates."""
        ordinal = "ordinal" if self.ordinal else "0"
        return (
            f"SELECT event_id, txid::text::bigint, position, {ordinal}\n"
            f"FROM {self.table}\nWHERE {self.of_keys(key_hash)}\nORDER BY {self.coordinates}"
        )

    def boundary(self) -> str:
        """The key that ends the next step of a first load, `limit` rows on; no row when fewer are left."""
        ordinal = "ordinal" if self.ordinal else "2147483647"
        return (
            f"SELECT txid::text::bigint, position, {ordinal}\n"
            f"FROM {self.table}\n"
            f"WHERE {self.run()}\n"
            f"ORDER BY {self.coordinates} OFFSET %(limit)s::bigint - 1 LIMIT 1"
        )


LOG_STREAM = Stream(LOG_TABLE, ordinal=False)
