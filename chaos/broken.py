"""refold broken on purpose, to show that the campaign finds what it is made to find.

`two-transactions`: a page's rows are committed in one transaction, the cursor in the next.
`no-unique`: the ledger lets an id in more than once.
`naive-cursor`: the cursor is one number, and what is below it counts as read, committed or not.
`early-answer`: the HTTP door answers before it commits.
`stale-cursor`: `refold why` keeps the cursor of a build from the first question about it.
`unproved`: a file of the archive is called verified as soon as the store has taken it.
`mark-apart`: a backfill moves its mark in a transaction after the one that gave the log its records.
`canary-left`: a canary that ends leaves its views as they are.
`purge-unproved`: a segment is purged before its file was read back.
`unfolded`: a segment is purged, and the bases of metrics do not have its events.
`forgetful`: an erasure knows nothing of the table of rejected events.
`skips-all`: a sink that is told to skip to a place of its stream lets go of all that waits.
`restored-blind`: nobody compares a segment that is restored with what was sealed.
`rows-stay`: a metric that keeps its newest days only keeps the rows of the others.

`python -m chaos.broken VARIANT worker …` and `… VARIANT serve …` are refold's commands in such a world.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

import psycopg

from refold.cli import main
from refold.engine.apply import page
from refold.engine.apply import step as catch_up
from refold.engine.apply.page import Applied, upstream_cursor, write_read
from refold.engine.archive import restore
from refold.engine.archive.object_store import Content
from refold.engine.archive.write import Archived, Writer
from refold.engine.backfill.run import _give, _Lane, _Stopped
from refold.engine.canary import canary
from refold.engine.erasure import places
from refold.engine.purge import fold, purge
from refold.engine.reconcile.audit import parameters_of
from refold.engine.retain import let_go as retaining
from refold.inspect.lineage import why
from refold.model.stream.cursor import EMPTY, Cursor, Snapshot, advance, next_read
from refold.model.upkeep.statements import Base
from refold.postgres.failpoints import failpoint
from refold.service.http.lane import Lane
from refold.service.http.queue import Entry
from refold.sinks import skip as skipping
from refold.sinks.skip import Skip
from refold.store import archives, file_backfills
from refold.store.archives import Archive
from refold.store.bases import Folded
from refold.store.builds.build import Build, lock, move
from refold.store.builds.compiled import CompiledBuild
from refold.store.file_backfills import FileBackfill
from refold.store.log.seal import sealed

VARIANTS = (
    "two-transactions",
    "no-unique",
    "naive-cursor",
    "early-answer",
    "stale-cursor",
    "unproved",
    "mark-apart",
    "canary-left",
    "purge-unproved",
    "unfolded",
    "forgetful",
    "skips-all",
    "restored-blind",
    "rows-stay",
)
WINDOW_S = 0.05
"""Seconds between the two transactions: what a busy machine makes of no time at all."""
_folded = fold._step
_counted = skipping._counted
LAST = 2**62
"""A transaction that nobody will live to see."""
COMMIT_S = 1.0
"""Seconds that the door takes to commit what it has answered."""


def break_database(conn: psycopg.Connection, variant: str) -> None:
    """Breaks what a variant breaks in the database.

    Args:
        conn: a superuser's, in autocommit mode.
        variant: one of `VARIANTS`.
    """
    if variant == "no-unique":
        conn.execute("ALTER TABLE refold.event_ids DROP CONSTRAINT event_ids_pkey")
        conn.execute("CREATE INDEX ON refold.event_ids (event_id)")


def break_process(variant: str) -> None:
    """Breaks what a variant breaks in this process."""
    if variant == "two-transactions":
        # Where they are looked up by those that call them.
        vars(catch_up)["apply_next_page"] = _page_in_two
    elif variant == "naive-cursor":
        vars(page)["upstream_cursor"] = _everything_below
    elif variant == "early-answer":
        Lane._commit = _answer_first  # type: ignore[method-assign, assignment]
    elif variant == "stale-cursor":
        first: dict[int, dict[str, str]] = {}
        vars(why)["parameters_of"] = lambda conn, build: first.setdefault(build.build_id, parameters_of(conn, build))
    elif variant in ("unproved", "purge-unproved"):
        Writer._prove = _believe  # type: ignore[method-assign, assignment]
        if variant == "purge-unproved":
            vars(purge)["_insist_on_file"] = lambda conn, archive, location: None
    elif variant == "unfolded":
        vars(fold)["_step"] = _fold_nothing
    elif variant == "forgetful":
        vars(places)["PLACES"] = tuple(one for one in places.PLACES if one.table != "refold.rejected")
    elif variant == "mark-apart":
        _Lane._batch = _batch_in_two  # type: ignore[method-assign, assignment]
    elif variant == "skips-all":
        vars(skipping)["_newest_before"] = lambda conn, position: LAST
        vars(skipping)["_counted"] = _count_all
    elif variant == "restored-blind":
        vars(restore)["agree"] = lambda stands, kept: True
    elif variant == "rows-stay":
        vars(retaining)["_delete"] = lambda *_, **__: 0
    elif variant == "canary-left":
        vars(canary)["alone"] = lambda conn, compiler, name: None


def _answer_first(lane: Lane, group: list[Entry]) -> None:
    with lane._session.connection().transaction():
        answers = iter(lane._attempt([offer for entry in group for offer in entry.offers]))
        lane._deliver([(entry, [next(answers) for _ in entry.offers]) for entry in group])
        time.sleep(COMMIT_S)


def _believe(writer: Writer, archive: Archive, sent: Content | None, done: Archived, by: str) -> None:
    with writer._conn.transaction():
        archives.proved(writer._conn, archive, sealed(writer._conn, *archive.slices), None, None)
    writer.complete(done, by)


def _count_all(*arguments: Any) -> Skip:
    # None is behind the position, and has to be delivered nevertheless.
    return replace(_counted(*arguments), others=())


def _fold_nothing(conn: psycopg.Connection, base: Base, build: Build, mark: Folded, step: int) -> Folded:
    moved = _folded(conn, base, build, mark, step)
    conn.execute(base.undo.encode(), {"floor": build.floor, "build": build.build_id})
    return moved


def _batch_in_two(lane: _Lane, conn: psycopg.Connection) -> FileBackfill:
    backfill = file_backfills.read(conn, lane.backfill.backfill_id, lock=True)
    if backfill.state != "running":
        raise _Stopped
    answers = _give(conn, backfill, lane.pace.batch)
    # Past the transaction that the lane has opened.
    conn.execute("COMMIT")
    failpoint("lane_stored")
    conn.execute("BEGIN")
    return file_backfills.step(
        conn, backfill, answers, began_at=lane.began_at, batch=lane.pace.batch, per_second=None, because=None
    )


def _page_in_two(conn: psycopg.Connection, compiled: CompiledBuild, limit: int) -> Applied | None:
    with conn.transaction():
        build = lock(conn, compiled.build_id)
        if build is None or not build.loaded or build.upstream_id != compiled.upstream_id:
            return None
        read = next_read(build.cursor, upstream_cursor(conn, build))
        if read is None:
            return Applied(0, full=False)
        part = write_read(conn, compiled, build, read, limit)
    time.sleep(WINDOW_S)
    with conn.transaction():
        if lock(conn, compiled.build_id) is not None:
            cursor = advance(build.cursor, read, part.last, part.full)
            move(conn, build, cursor, events=part.events, milliseconds=0.0)
    return Applied(part.events, part.full)


def _everything_below(conn: psycopg.Connection, build: Build, *, known: Snapshot = EMPTY) -> Cursor:
    cursor = upstream_cursor(conn, build, known=known)
    return Cursor(Snapshot(cursor.done.xmax, cursor.done.xmax, ()), cursor.target, cursor.progress)


if __name__ == "__main__":
    break_process(sys.argv.pop(1))
    main()
