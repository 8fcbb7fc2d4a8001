"""`refold.oldest_unread` against the cursor's own rule, for cursors of every shape."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.apply.step import StepRunner
from refold.model.stream.cursor import LAST_ORDINAL, Cursor, Key, Snapshot
from refold.store.builds.build import kept
from refold.store.builds.compiled import Compiler
from tests.support.law import worker_connection
from tests.support.live import SHOP
from tests.support.making import events, small_segments

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


@pytest.mark.slow
def test_the_first_come_from_few_segments_in_the_right_order(
    admin: Connection, producers: Callable[..., Connection]
) -> None:
    """Also where a transaction that began early wrote its last events much later."""
    small_segments(admin, 5)
    # So that no writer has to make room, and keeps the others waiting until it commits.
    admin.execute("UPDATE refold.settings SET segments_ahead = 10")
    admin.execute("SELECT refold.ensure_segments()")
    random = Random(7)
    writers = [producers() for _ in range(4)]
    for number in range(120):
        writer = random.choice(writers)
        append(writer, events(random.randint(1, 4), f"{number}-"))
        if random.random() < 0.6:
            writer.commit()
        admin.execute("SELECT refold.ensure_segments()")
    for writer in writers:
        writer.commit()
    marks = admin.execute("SELECT count(DISTINCT ended) FROM refold.log_ends").fetchone()
    assert marks is not None and marks[0] > 5
    log = admin.execute("SELECT txid::text::bigint, position FROM refold.events ORDER BY 1, 2").fetchall()
    for _ in range(300):
        since, most = random.choice(log)[0] - random.randint(0, 1), random.choice([1, 3, 10, 50, 1000])
        found = admin.execute(
            "SELECT txid::text::bigint, position FROM refold.first_unread(%s::pg_snapshot, NULL, NULL, NULL, %s)",
            (f"{since}:{since}:", most),
        ).fetchall()
        assert found == [one for one in log if one[0] >= since][:most]


@pytest.mark.live("shop")
def test_all_builds_at_once_are_as_each_for_itself(
    admin: Connection, database_url: str, producers: Callable[..., Connection]
) -> None:
    random = Random(3)
    open_ = producers()
    with worker_connection(database_url) as worker:
        runner = StepRunner(worker, Compiler(SHOP))
        compared = 0
        for number in range(25):
            if number % 5 == 1:
                append(open_, events(2, f"open{number}-"))
            append(admin, events(random.randint(0, 70), f"{number}-"))
            if number % 5 == 3:
                open_.commit()
            for build in kept(worker):
                if random.random() < 0.4:
                    runner.step(build)
            together = worker.execute("SELECT build_id, events, oldest, exact FROM refold.unread_now()").fetchall()
            each = worker.execute(
                "SELECT b.build_id, u.events, u.oldest, u.exact FROM refold.builds_now AS b CROSS JOIN LATERAL"
                " refold.unread(b.done, b.target, b.progress_txid, b.progress_position) AS u WHERE b.state = 'live'"
            ).fetchall()
            assert sorted(together) == sorted(each)
            compared += len({row[1:] for row in each})
        assert compared > 50
