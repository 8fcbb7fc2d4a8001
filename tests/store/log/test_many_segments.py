"""However many segments the log has: who appends, and who looks in vain, touches the last of them alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from random import Random
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.recovery.coordinates import draw_from_the_end
from refold.model.stream.cursor import Snapshot
from refold.postgres.connect import connect
from refold.postgres.session import PAGES
from refold.service.worker.loop import Worker
from refold.service.worker.missed_notifications import first_missed
from refold.service.worker.pending import builds_with_work
from refold.store.log.seal import note
from refold.store.schema.cluster import inspect_cluster
from tests.support.explained import explained
from tests.support.law import deploy_project
from tests.support.live import SHOP
from tests.support.making import events, small_segments

Connection = psycopg.Connection[Any]

SIZE = 16_384
"""Positions in a segment: one slice."""
FEW, MANY = 6, 330


def lengthen(admin: Connection, segments: int) -> None:
    """Makes the log so many segments long, with an event in each."""
    row = admin.execute(f"SELECT last_value / {SIZE} FROM refold.events_position".encode()).fetchone()
    assert row is not None
    for number in range(row[0], segments):
        admin.execute("SELECT setval('refold.events_position', %s)", (number * SIZE + 1,))
        append(admin, events(1, f"long{number}-"))
        # Unused positions around a former end look like a batch that found too little room.
        admin.execute("DELETE FROM refold.log_ends")
        # Else the next position would find none, and the log prepare for a batch as long as that.
        admin.execute("SELECT refold.ensure_segments()")
    counted = admin.execute("SELECT count(*) FROM refold.segments").fetchone()
    assert counted is not None and segments <= counted[0] <= segments + 3


@pytest.fixture
def worker(database_url: str) -> Iterator[Connection]:
    with connect(database_url, "refold_worker", autocommit=True, settings=PAGES) as conn:
        yield conn


def cost(conn: Connection, act: Callable[[], object]) -> tuple[int, int]:
    """The locks that something takes on tables and indexes, and the pages that it reads, when it is done again."""
    act()
    with conn.transaction(force_rollback=True):
        act()
        row = conn.execute(
            "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'"
        ).fetchone()
    assert row is not None
    with explained(conn) as plans:
        act()
    # What a function runs is in the plan of its caller too.
    return int(row[0]), max((plan.buffers for plan in plans), default=0)


@pytest.mark.slow
def test_it_costs_the_same(admin: Connection, database_url: str, worker: Connection) -> None:
    small_segments(admin, SIZE)
    deploy_project(database_url, SHOP)
    numbers = count()
    figures: list[dict[str, tuple[int, int]]] = []
    for length in (FEW, MANY):
        lengthen(admin, length)
        note(worker)
        append(admin, events(3, f"last{length}-"))
        Worker(database_url, SHOP).run(drain=True)
        assert builds_with_work(worker) == []
        flag = worker.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert flag is not None
        acts: dict[str, tuple[Connection, Callable[[], object]]] = {
            "append": (admin, lambda: append(admin, events(1, f"more{next(numbers)}-"))),
            "room": (worker, lambda: worker.execute("SELECT refold.ensure_segments()")),
            "look": (worker, partial(builds_with_work, worker)),
            "cluster": (worker, partial(inspect_cluster, worker)),
            "wake-up": (worker, partial(first_missed, worker, flag[0])),
            "marks": (worker, partial(note, worker)),
        }
        figures.append({name: cost(conn, act) for name, (conn, act) in acts.items()})
    few, many = figures
    # What a session has to look up in the catalog once more depends on what others have changed there.
    assert [name for name, (locks, _) in many.items() if locks > few[name][0] + 3] == []
    # An index of the catalog is a level deeper.
    assert [name for name, (_, pages) in many.items() if pages > few[name][1] + 12] == []
    assert max(locks for locks, _ in many.values()) < 60


UNREAD = """
SELECT refold.has_unread(%(done)s::pg_snapshot, refold.last_txid()),
       EXISTS (SELECT FROM refold.events WHERE NOT pg_visible_in_snapshot(txid, %(done)s::pg_snapshot))
"""
BROKEN_MARKS = """
SELECT e.txid, e.position FROM refold.events AS e
WHERE e.position < refold.positions_since(e.txid) OR (SELECT refold.last_txid()) < e.txid
"""


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (1, 2))])
def test_no_event_is_below_the_marks(
    producers: Callable[..., Connection], admin: Connection, worker: Connection, seed: int
) -> None:
    """Transactions that stay open while the log goes on, and commit late or never."""
    # So many ahead that nobody makes one, which takes a lock until the end of his transaction.
    admin.execute("UPDATE refold.settings SET segments_ahead = 70")
    small_segments(admin, SIZE)
    random = Random(seed)
    writers = [producers() for _ in range(4)]
    open_: set[int] = set()
    dones: list[str] = []
    answers = set()
    for step in range(100):
        number = random.randrange(4)
        what = random.choice(["append", "append", "end", "on", "note", "look"])
        if what == "append":
            append(writers[number], events(2, f"{step}-"))
            open_.add(number)
        elif what == "end" and number in open_:
            random.choice([writers[number].commit, writers[number].commit, writers[number].rollback])()
            open_.discard(number)
        elif what == "on":
            # The log goes on by a slice or two.
            admin.execute(
                "SELECT setval('refold.events_position', last_value + %s) FROM refold.events_position",
                (random.choice([SIZE, 2 * SIZE]),),
            )
        elif what == "note":
            note(worker)
        row = admin.execute("SELECT pg_current_snapshot()::text").fetchone()
        assert row is not None
        dones.append(str(Snapshot.parse(row[0])))
        for done in random.sample(dones, min(len(dones), 2)):
            said, found = worker.execute(UNREAD, {"done": done}).fetchone() or (None, True)
            assert said == found
            answers.add(said)
    assert admin.execute(BROKEN_MARKS).fetchall() == []
    assert answers == {True, False}
    marked = admin.execute("SELECT count(DISTINCT passed) FROM refold.sealed_slices").fetchone()
    assert marked is not None and marked[0] > 2


def test_a_sequence_that_was_behind_takes_the_marks_with_it(admin: Connection, worker: Connection) -> None:
    """After a restore without its value: whoever appends before `refold recover` draws positions of passed slices."""
    admin.execute("UPDATE refold.settings SET segments_ahead = 10")
    small_segments(admin, SIZE)
    admin.execute("SELECT setval('refold.events_position', %s)", (5 * SIZE,))
    append(admin, events(1))
    note(worker)
    admin.execute("SELECT setval('refold.events_position', 10)")
    append(admin, events(1, "low"))
    assert len(admin.execute(BROKEN_MARKS).fetchall()) == 1
    draw_from_the_end(worker)
    assert admin.execute(BROKEN_MARKS).fetchall() == []
