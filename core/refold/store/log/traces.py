"""Which sampled traces appended the events of a page, and where an event's trace is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import psycopg

from refold.model.stream.cursor import Key, Read
from refold.model.stream.page_sql import Stream
from refold.model.stream.parameters import read_parameters
from refold.tracing import CONTEXTS, Context


class Failed(NamedTuple):
    """A row of a page that became a dead letter: its key in the stream, and the type of its error."""

    key: Key
    error: str


@dataclass(frozen=True, slots=True)
class Traced:
    """The sampled traces of a page.

    Args:
        contexts: by the coordinates of their events, at most CONTEXTS.
        more: whether there are further ones.
    """

    contexts: Sequence[Context] = ()
    more: bool = False


def _of_page(stream: Stream) -> str:
    """Return the query for the contexts of a page, with the page's own parameters.

    Its bounds are those of the page (`Stream.page`): a transaction that was open when the target was taken and has
    committed since is no part of it. The rows of each context are counted within them, because a page may end within a
    statement, and a stream may lack rows of some events.
    """
    columns = "txid, position, first_position, events, trace_id, span_id"

    def branch(condition: str, low: str, high: str) -> str:
        # `>=`: the page may begin within the rows of the last event.
        return (
            f"(SELECT {columns} FROM refold.traces\n"
            f" WHERE {condition} AND {stream.seen}\n"
            f"   AND (txid, position) >= (%({low}_txid)s::xid8, %({low}_position)s::bigint)\n"
            f"   AND (txid, first_position) <= (%({high}_txid)s::xid8, %({high}_position)s::bigint)\n"
            f" ORDER BY txid, position LIMIT %(limit)s::bigint)"
        )

    coordinates = ", ".join(f"s.{name}" for name in stream.coordinates.split(", "))
    counted = (
        f"SELECT count(*) AS events FROM {stream.table} AS s\n"
        f"WHERE s.txid = t.txid AND s.position BETWEEN t.first_position AND t.position\n"
        f"  AND ({coordinates}) > {stream.bound('after')} AND ({coordinates}) <= {stream.bound('upto')}"
    )
    return (
        f"SELECT t.txid::text::bigint, t.first_position, t.position, t.trace_id, t.span_id, c.events\n"
        f"FROM (\n"
        f"{branch('txid = ANY (%(open)s::xid8[])', 'after', 'upto')}\n"
        f"UNION ALL\n"
        f"{branch('txid <= %(to_txid)s::xid8', 'from', 'to')}\n"
        f"ORDER BY txid, position LIMIT %(limit)s::bigint) AS t\n"
        f"CROSS JOIN LATERAL ({counted}) AS c\n"
        f"ORDER BY t.txid, t.position"
    )


def of_page(conn: psycopg.Connection, stream: Stream, read: Read, failed: Sequence[Failed]) -> Traced:
    """Return the contexts of the rows that a page has applied, in its transaction.

    Args:
        conn: the page's transaction.
        stream: what the page reads.
        read: the rows that it read; its `upto` is the page's last key.
        failed: those that became dead letters.
    """
    rows = conn.execute(_of_page(stream).encode(), read_parameters(read, CONTEXTS + 1), prepare=True).fetchall()
    found = []
    for txid, first, last, trace_id, span_id, events in rows[:CONTEXTS]:
        if events:
            errors = [one.error for one in failed if one.key.txid == txid and first <= one.key.position <= last]
            error = errors[-1] if errors else None
            found.append(Context(trace_id.int, span_id % 2**64, events, len(errors), error))
    return Traced(found, len(rows) > CONTEXTS)


def of_event(conn: psycopg.Connection, key: Key) -> Context | None:
    """Return the context that appended an event; None if it was in no sampled trace, or long ago."""
    row = conn.execute(
        "SELECT trace_id, span_id, events FROM refold.traces"
        " WHERE txid = %s::text::xid8 AND position >= %s AND first_position <= %s ORDER BY position LIMIT 1",
        (str(key.txid), key.position, key.position),
    ).fetchone()
    return None if row is None else Context(row[0].int, row[1] % 2**64, row[2])
