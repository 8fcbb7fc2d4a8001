"""SQL that reads a stream: the next page, and the rows that a cursor has applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refold.model.sql_text import ident, in_order, indent

LOG_TABLE = "refold.events"
ALIVE = "event_id <> ALL (%(dead)s::text[])"
"""Condition on a row: it is not a dead letter of the build. Pages need it only for events that were applied before."""

_UPTO = "(SELECT txid::text::bigint FROM upto__) AS txid, (SELECT position FROM upto__), (SELECT ordinal FROM upto__)"


@dataclass(frozen=True, slots=True)
class Page:
    """The SQL with which a statement reads a page.

    Args:
        rows: the query for the rows, in order.
        source: the CTEs `page` (the rows) and `upto__` (the last key of the page).
        coordinates: a relation with the position and ordinal of the rows.
        events: an expression for the number of rows.
    """

    rows: str
    source: str
    coordinates: str
    events: str

    @property
    def answer(self) -> str:
        """Return the final SELECT of the statement: the number of rows of the page, and its last key."""
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
        """Return the parameters of a key as a row, to compare the coordinates with.

        Args:
            name: the prefix of the parameters, see `key_parameters`.
        """
        parts = [f"%({name}_txid)s::xid8", f"%({name}_position)s::bigint"]
        if self.ordinal:
            parts.append(f"%({name}_ordinal)s::integer")
        return "(" + ", ".join(parts) + ")"

    def page(self, columns: Sequence[str]) -> Page:
        """Return the SQL for the next rows in order of their coordinates, at most `limit`.

        Each of the two branches has an ORDER BY and a LIMIT: as a single OR, the predicate cannot use the index
        under a generic plan (400 ms a poll at 2 million rows, against 1). The first branch reads transactions
        that were in progress at `done`; they are all older than those of the second. The second has a single
        comparison on each side (`from`, `to`): with two lower bounds the index scan might start at the lower one, and
        an empty poll would read the whole log (40 ms for a million events).

        Args:
            columns: the columns to read of each row, besides its coordinates.
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
        """Return the SQL for a page in the middle of a backlog, where every transaction between the bounds has ended.

        The page is then one range of the index, and no row needs a check of visibility. The end of the page is found
        first, by an index-only scan: that costs less than to sort and materialize the rows.

        Args:
            columns: the columns to read of each row, besides its coordinates.
            uses: how often the statement reads the page; if once, its rows are not materialized.
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
        # The bound on txid is implied by the others; it tells the planner that the rows are few.
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
            # An index-only scan: to read the page itself twice, Postgres would have to materialize it.
            f"(\n    SELECT position, {'ordinal' if self.ordinal else '0 AS ordinal'}\n{indent(within)}\n) AS page",
            "CASE WHEN (SELECT full_page FROM upto__) THEN %(limit)s::bigint ELSE (SELECT count(*) FROM page) END",
        )

    def _carried(self, columns: Sequence[str]) -> str:
        carried = [ident(column) for column in columns if column not in ("txid", "position", "ordinal")]
        return ", ".join(["txid", "position", "ordinal" if self.ordinal else "0 AS ordinal", *carried])

    def applied(self) -> str:
        """Return the condition that a row was applied according to the cursor (parameters done, target, progress)."""
        return f"{self.passed()}\n  AND {ALIVE}"

    def passed(self) -> str:
        """Return the condition that the cursor has passed a row, be it applied or a dead letter."""
        return (
            f"(pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)\n"
            f"     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)"
            f" AND ({self.coordinates}) <= {self.bound('progress')}))"
        )

    @property
    def seen(self) -> str:
        """Return the condition that a row's transaction has ended in the target; mostly one comparison decides."""
        return "(txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))"

    def run(self) -> str:
        """Return the condition that a row belongs to this step of a first load, which starts with an empty table."""
        return (
            f"{self.seen} AND {ALIVE}\n"
            f"  AND (%(whole)s::boolean OR\n"
            f"       (({self.coordinates}) > {self.bound('after')}"
            f" AND ({self.coordinates}) <= {self.bound('upto')}))"
        )

    def known(self, columns: str, condition: str) -> str:
        """Return the query for the rows of a key as of the end of a page, whose last coordinates are in `upto__`.

        OFFSET 0 lets the index find the rows, and prevents that the projection's expressions are evaluated for others.

        Args:
            columns: the columns to read of each row, as SQL.
            condition: the condition that selects the key.
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
        """Return the conditions that a row belongs to this step of a first load, and to this or any later step.

        It is for a first load in steps by the hash of the key.

        Args:
            key_hash: the SQL of the key's hash over a row of the stream.
        """
        part = f"({key_hash} & 2147483647) %% %(steps)s::integer"
        return (
            f"{self.seen} AND {ALIVE}\n  AND (%(steps)s::integer = 1 OR {part} = %(step)s::integer)",
            in_order(self.run(), f"(%(steps)s::integer = 1 OR {part} >= %(step)s::integer)"),
        )

    def keys_left(self, key_hash: str) -> str:
        """Return the query for the key hashes in the steps that are left of a first load by the key's hash."""
        return f"SELECT DISTINCT {key_hash}\nFROM {self.table}\nWHERE {self.ranges(key_hash)[1]}"

    def of_keys(self, key_hash: str) -> str:
        """Return the condition that a row belongs to this step of a first load, and its key to the parameter `keys`."""
        return in_order(self.run(), f"{key_hash} IN (SELECT unnest(%(keys)s::bigint[]))")

    def events_of_keys(self, key_hash: str) -> str:
        """Return the query for the events of the keys in the parameter `keys`, in order: id and coordinates."""
        ordinal = "ordinal" if self.ordinal else "0"
        return (
            f"SELECT event_id, txid::text::bigint, position, {ordinal}\n"
            f"FROM {self.table}\nWHERE {self.of_keys(key_hash)}\nORDER BY {self.coordinates}"
        )

    def boundary(self) -> str:
        """Return the query for the last key of the next step of a first load; no row if fewer than `limit` are left."""
        ordinal = "ordinal" if self.ordinal else "2147483647"
        return (
            f"SELECT txid::text::bigint, position, {ordinal}\n"
            f"FROM {self.table}\n"
            f"WHERE {self.run()}\n"
            f"ORDER BY {self.coordinates} OFFSET %(limit)s::bigint - 1 LIMIT 1"
        )


LOG_STREAM = Stream(LOG_TABLE, ordinal=False)
