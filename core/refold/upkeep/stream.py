"""Reading a stream: the page, and the part of it that a cursor has applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LOG_TABLE = "refold.events"


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

    def page(self, columns: Sequence[str]) -> str:
        """The next rows in order of their coordinates, at most `limit`.

        Two branches with an ORDER BY and LIMIT each: as a single OR the predicate cannot use the index
        under a generic plan (400 ms a poll at 2 million rows, against 1). The first branch are transactions
        that were in progress at `done`; all of them are older than the second's.
        """
        carried = [column for column in columns if column not in ("txid", "position", "ordinal")]
        names = ", ".join(["txid", "position", "ordinal" if self.ordinal else "0 AS ordinal", *carried])
        within = (
            f"pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)\n"
            f"           AND ({self.coordinates}) > {self.bound('after')}\n"
            f"           AND ({self.coordinates}) <= {self.bound('upto')}"
        )
        return (
            f"page AS MATERIALIZED (\n"
            f"    SELECT * FROM (\n"
            f"        (SELECT {names}\n"
            f"         FROM {self.table}\n"
            f"         WHERE txid = ANY (%(open)s::xid8[])\n"
            f"           AND {within}\n"
            f"         ORDER BY {self.coordinates} LIMIT %(limit)s::bigint)\n"
            f"        UNION ALL\n"
            f"        (SELECT {names}\n"
            f"         FROM {self.table}\n"
            f"         WHERE txid >= %(from)s::xid8 AND txid < %(to)s::xid8\n"
            f"           AND {within}\n"
            f"         ORDER BY {self.coordinates} LIMIT %(limit)s::bigint)\n"
            f"    ) AS unread\n"
            f"    ORDER BY txid, position, ordinal LIMIT %(limit)s::bigint\n"
            f")"
        )

    def applied(self) -> str:
        """Condition on a row: the cursor (parameters done, target, progress) says that it was applied."""
        return (
            f"(pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)\n"
            f"     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)"
            f" AND ({self.coordinates}) <= {self.bound('progress')}))"
        )

    def run(self) -> str:
        """Condition on a row: it belongs to this step of a first load, which starts from nothing."""
        return (
            f"pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)\n"
            f"  AND ({self.coordinates}) > {self.bound('after')}"
            f" AND ({self.coordinates}) <= {self.bound('upto')}"
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

LAST_OF_PAGE = """\
SELECT counted.events, last.txid::text::bigint AS txid, last.position, last.ordinal
FROM (SELECT count(*) AS events FROM page) AS counted
LEFT JOIN (SELECT txid, position, ordinal FROM page
           ORDER BY txid DESC, position DESC, ordinal DESC LIMIT 1) AS last ON true"""
