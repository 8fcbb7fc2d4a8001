"""`refold.oldest_unread` against the cursor's own rule, for cursors of every shape."""

from __future__ import annotations

from random import Random
from typing import Any

import psycopg

from refold import append
from refold.model.stream.cursor import LAST_ORDINAL, Cursor, Key, Snapshot
from tests.support.making import events

Connection = psycopg.Connection[Any]


def snapshot(random: Random, txids: list[int], within: Snapshot | None = None) -> Snapshot:
    """A snapshot in which some of the transactions are open; a superset of another, if one is given."""
    xmax = random.choice([*txids, txids[-1] + 1])
    if within is not None:
        xmax = max(xmax, within.xmax)
    open_ = [
        txid for txid in txids if txid < xmax and random.random() < 0.4 and not (within and within.visible(txid))
    ]  # fmt: skip
    return Snapshot(min([*open_, xmax]), xmax, tuple(open_))


def test_it_is_the_first_that_the_cursor_has_not_applied(conn: Connection) -> None:
    for number in range(6):
        append(conn, events(3, f"{number}-"))
        conn.commit()
    log = conn.execute("SELECT txid::text::bigint, position, event_id FROM refold.events ORDER BY 1, 2").fetchall()
    keys = {event_id: Key(txid, position, LAST_ORDINAL) for txid, position, event_id in log}
    txids = sorted({key.txid for key in keys.values()})
    random = Random(5)
    shapes = set()
    for _ in range(400):
        done = snapshot(random, txids)
        cursor = Cursor(done)
        if random.random() < 0.7:
            target = snapshot(random, txids, done)
            read = [key for key in keys.values() if target.visible(key.txid) and not done.visible(key.txid)]
            cursor = Cursor(done, target, random.choice(read) if read and random.random() < 0.9 else None)
        progress = cursor.progress or (None, None)
        row = conn.execute(
            "SELECT event_id FROM refold.oldest_unread("
            "%s::pg_snapshot, %s::pg_snapshot, %s::text::xid8, %s::text::bigint)",
            (
                str(done),
                None if cursor.target is None else str(cursor.target),
                *(None if part is None else str(part) for part in progress[:2]),
            ),
        ).fetchone()
        unread = [event_id for event_id, key in keys.items() if not cursor.applied(key)]
        assert (row and row[0]) == (unread[0] if unread else None), cursor
        counted = conn.execute(
            "SELECT events, exact FROM refold.unread("
            "%s::pg_snapshot, %s::pg_snapshot, %s::text::xid8, %s::text::bigint)",
            (
                str(done),
                None if cursor.target is None else str(cursor.target),
                *(None if part is None else str(part) for part in progress[:2]),
            ),
        ).fetchone()
        assert counted == (len(unread), True), cursor
        shapes.add((cursor.target is None, cursor.progress is None, bool(unread)))
    assert len(shapes) >= 5
