"""The first load (backfill) of a build: set-based, in large steps, resumable, without indexes where they would slow it.

No reader uses the table before it is loaded, and the cursor's run (done = nothing, target = T) prevents counting
an event twice. So the indexes of the keys can be created after the rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg

from refold.engine.apply import archived
from refold.engine.apply.page import Apply, upstream_cursor, write_isolating_failures, write_read
from refold.engine.apply.take_over import start
from refold.engine.archive.sources import PORTION, Sources
from refold.engine.isolate.by_key import culprits_of_keys
from refold.engine.isolate.prefix import first_culprit
from refold.engine.isolate.search import Culprit, Portion, sift
from refold.model.stream.cursor import EMPTY, Cursor, Key, Read
from refold.model.stream.page_sql import LOG_TABLE
from refold.model.stream.parameters import LAST, cursor_parameters, read_parameters
from refold.postgres.failpoints import failpoint
from refold.postgres.rows import one_row
from refold.postgres.session import plan_freely
from refold.postgres.sqlstate import caused_by_event
from refold.store.builds import read_checksums as reads
from refold.store.builds.build import BY_KEY, Build, by_id, lock, move
from refold.store.builds.checksums import take
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.builds.dead_letters import DeadLetterBudget, excluded_event_ids, quarantine
from refold.store.builds.first_load import start_over

STEP = 2_000_000
"""Rows of the stream in one step (merge, members, facts)."""
TRANSFORM_STEP = 20_000
"""Rows in one step of a transform."""
CULPRITS_S = 30.0
"""Seconds after which a load that has found failing events commits them as dead letters."""
BUCKET = 10_000_000
"""Rows of the stream for each hash range of the key (recompute)."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The outcome of a step of a load.

    Args:
        events: rows of the stream that were read.
        finished: whether the load is complete; the build takes pages from then on.
        total: estimated rows that the whole load reads.
    """

    events: int
    finished: bool
    total: int


@dataclass(frozen=True, slots=True)
class Thaw:
    """What a load needs to read purged events.

    Args:
        compiler: makes the SQL that reads thawed events.
        sources: reads the archive.
    """

    compiler: Compiler
    sources: Sources


def load_step(
    conn: psycopg.Connection,
    compiled: CompiledBuild,
    *,
    step: int = STEP,
    bucket: int = BUCKET,
    thaw: Thaw | None = None,
) -> Loaded | None:
    """Do the next step of a build's first load, in a transaction of its own.

    Args:
        conn: a worker's connection, in autocommit mode.
        compiled: the build's SQL.
        step: most rows of the stream in the step, for kinds of upkeep that read it in order.
        bucket: rows of the stream in each hash range of the key, for the other kinds.
        thaw: reads purged events, for a build that needs them and has nobody to take its base from.

    Returns:
        The outcome; None if another worker holds the build, or its upstream is not loaded yet.

    Raises:
        BuildError: too many events of the build fail.
        Unreadable: the archive does not have purged events as it was proved to.
    """
    try:
        return _load_step(conn, compiled, step, bucket, thaw, careful=False)
    except Exception as error:
        if not caused_by_event(error):
            raise
        failure = error
    if compiled.plan.upkeep in BY_KEY:
        return _quarantine_culprits(conn, compiled, failure)
    return _load_step(conn, compiled, step, bucket, thaw, careful=True)


def _load_step(
    conn: psycopg.Connection, compiled: CompiledBuild, step: int, bucket: int, thaw: Thaw | None, *, careful: bool
) -> Loaded | None:
    with conn.transaction():
        build = _locked(conn, compiled)
        if build is None:
            return None
        started = time.perf_counter()
        target = build.cursor.target or upstream_cursor(conn, build).done
        total = _estimate(conn, compiled)
        dead = excluded_event_ids(conn, build)
        plan_freely(conn)
        archive = None if thaw is None else archived.left(conn, compiled, build)
        if build.based and not build.load_step and archive is None:
            start(conn, compiled, build, judged=thaw is not None)
        if archive is not None and thaw is not None:
            part = partial(_load_part, conn, build, dead, careful)
            run = Cursor(EMPTY, target)
            most = PORTION if compiled.transform else step
            events = archived.load(conn, thaw.compiler, thaw.sources, build, archive, run, most, part)
            cursor, finished, total = run, False, total + archive.total
        elif compiled.plan.upkeep in BY_KEY:
            events, cursor, finished = _load_bucket(conn, compiled, build, Cursor(EMPTY, target), total, bucket, dead)
        else:
            run = Cursor(EMPTY, target, build.cursor.progress)
            if compiled.transform is not None:
                apply = write_isolating_failures if careful else write_read
                events, cursor, finished = _load_function(conn, compiled, build, run, min(TRANSFORM_STEP, step), apply)
            elif careful:
                events, cursor, finished = _load_carefully(conn, compiled, build, run, step, dead)
            else:
                events, cursor, finished = _load_range(conn, compiled, run, step, total, dead)
        failpoint("load_rows")
        if finished:
            for index in compiled.statements.indexes:
                conn.execute(index.encode())
            # Only the table that analysts query: no plan uses the statistics of the sets behind it.
            conn.execute(f"ANALYZE {compiled.statements.relations[0].table}".encode())
            take(conn, compiled.build_id, compiled.statements.kept)
            # Read the dead letters again: this step may have added some.
            reads.take(
                conn, compiled, cursor_parameters(cursor, excluded_event_ids(conn, by_id(conn, compiled.build_id)))
            )
            failpoint("load_indexes")
        # A load by SQL does not count the rows that it reads, and the statistics hold no estimates.
        counted = events if compiled.transform else 0
        spent = (time.perf_counter() - started) * 1000 if compiled.transform else 0.0
        move(conn, build, cursor, events=counted, milliseconds=spent)
        conn.execute(
            "UPDATE refold.builds SET loaded = %s, load_step = load_step + 1 WHERE build_id = %s",
            (finished, build.build_id),
        )
    return Loaded(events, finished, total)


def _load_part(
    conn: psycopg.Connection,
    build: Build,
    dead: list[str],
    careful: bool,
    compiled: CompiledBuild,
    run: Cursor,
    rows: int,
) -> tuple[int, Cursor, bool]:
    """Load the next rows of thawed events."""
    if compiled.transform is not None:
        apply = write_isolating_failures if careful else write_read
        return _load_function(conn, compiled, build, run, TRANSFORM_STEP, apply)
    if careful:
        return _load_carefully(conn, compiled, build, run, rows, dead)
    return _load_range(conn, compiled, run, rows, rows, dead)


def _locked(conn: psycopg.Connection, compiled: CompiledBuild) -> Build | None:
    """Lock a build and return it; None if it is loaded, held by another worker, or its upstream is not ready."""
    build = lock(conn, compiled.build_id)
    if build is None or build.loaded or build.upstream_id != compiled.upstream_id or build.based != compiled.based:
        return None
    if build.retained != compiled.retained:
        return None
    if build.upstream_id is not None and not by_id(conn, build.upstream_id).loaded:
        return None
    return build


def _quarantine_culprits(conn: psycopg.Connection, compiled: CompiledBuild, failure: Exception) -> Loaded | None:
    """Find the events that fail in the rest of the load, and make them dead letters, which the next step leaves out.

    Raises:
        Exception: the failure itself, if no single event causes it.
    """
    with conn.transaction():
        build = _locked(conn, compiled)
        if build is None:
            return None
        target = build.cursor.target or upstream_cursor(conn, build).done
        plan_freely(conn)
        dead = excluded_event_ids(conn, build)
        budget = DeadLetterBudget.for_page(conn, build, _estimate(conn, compiled))
        culprits: list[Culprit] = []
        portion = Portion(culprits, seconds=CULPRITS_S)
        ranges = {"steps": str(build.load_steps or 1), "step": str(build.load_step)}

        def parameters(upto: Key = LAST) -> dict[str, str]:
            return read_parameters(Read(EMPTY, target, None, None if upto == LAST else upto), 0, dead) | ranges

        def blame(culprit: Culprit) -> None:
            budget.spend(culprit.error)
            culprits.append(culprit)
            dead.append(culprit.event_id)

        def evaluate(cursor: Cursor) -> None:
            _execute(conn, compiled.statements.probe, parameters(cursor.progress or LAST))

        def evaluate_keys(keys: Sequence[int], upto: Key) -> None:
            hashes = "{" + ",".join(map(str, keys)) + "}"
            _execute(conn, compiled.statements.probe_keys, parameters(upto) | {"keys": hashes})

        def search() -> None:
            for culprit in culprits_of_keys(conn, compiled, parameters, evaluate_keys):
                blame(culprit)
                if portion.enough():
                    break
            if not culprits:
                # No key fails by itself; for example, the expression of the key cannot be evaluated.
                found = first_culprit(conn, compiled, Cursor(EMPTY, target, LAST), dead, evaluate)
                if found is not None:
                    blame(found[1])

        search()
        if not culprits and build.load_step:
            # A value that is too large for an index fails only after the last range, and any earlier range may have
            # written it.
            start_over(conn, build)
            ranges |= {"step": "0"}
            search()
        if not culprits:
            raise failure
        quarantine(conn, build, culprits, beyond=budget.beyond)
    return Loaded(0, False, 0)


def _load_function(
    conn: psycopg.Connection, compiled: CompiledBuild, build: Build, run: Cursor, step: int, apply: Apply
) -> tuple[int, Cursor, bool]:
    """Run the transform on the next rows."""
    assert run.target is not None
    # The end of the load computes the checksums of all rows, when there is an index to find them by.
    bare = replace(compiled, statements=replace(compiled.statements, checksums=""))
    part = apply(conn, bare, build, Read(EMPTY, run.target, run.progress, None), step)
    if part.full:
        return part.events, Cursor(EMPTY, run.target, part.last), False
    return part.events, Cursor(run.target), True


def _load_range(
    conn: psycopg.Connection, compiled: CompiledBuild, run: Cursor, step: int, total: int, dead: Sequence[str]
) -> tuple[int, Cursor, bool]:
    """Apply the next `step` rows of the stream, or all that are left."""
    assert run.target is not None
    upto = None
    if total > step:
        read = Read(EMPTY, run.target, run.progress, None)
        found = conn.execute(compiled.stream.boundary().encode(), read_parameters(read, step, dead)).fetchone()
        upto = None if found is None else Key(*found)
    bounded = Read(EMPTY, run.target, run.progress, upto)
    statements = compiled.statements.load if run.progress is None else compiled.statements.load_next
    _execute(conn, statements, read_parameters(bounded, step, dead))
    if upto is None:
        return total % step if run.progress else total, Cursor(run.target), True
    return step, Cursor(EMPTY, run.target, upto), False


def _load_carefully(
    conn: psycopg.Connection, compiled: CompiledBuild, build: Build, run: Cursor, step: int, dead: list[str]
) -> tuple[int, Cursor, bool]:
    """Apply the next `step` rows, of which some fail: those become dead letters.

    Raises:
        BuildError: too many events fail.
    """
    assert run.target is not None
    target, at = run.target, run.progress
    stream = compiled.stream

    def row(query: str, limit: int) -> tuple[Any, ...]:
        return one_row(conn, query.encode(), read_parameters(Read(EMPTY, target, at, None), limit, dead))

    counted = row(f"SELECT count(*) FROM (SELECT FROM {stream.table} WHERE {stream.run()} LIMIT %(limit)s) AS r", step)
    rows = int(counted[0])
    budget = DeadLetterBudget.for_page(conn, build, rows)
    culprits: list[Culprit] = []

    def attempt(count: int) -> Exception | None:
        nonlocal at
        found = row(stream.boundary(), count)
        upto = Key(*found)
        statements = compiled.statements.load if at is None else compiled.statements.load_next
        try:
            with conn.transaction():
                _execute(conn, statements, read_parameters(Read(EMPTY, target, at, upto), 0, dead))
                # The next attempt creates temporary tables of the same names.
                conn.execute("DISCARD TEMPORARY")
        except Exception as error:
            if not caused_by_event(error):
                raise
            return error
        at = upto
        return None

    def blame(error: Exception) -> None:
        budget.spend(error)
        ordinal = "ordinal" if stream.ordinal else "0"
        found = row(
            f"SELECT event_id, txid::text::bigint, position, {ordinal} FROM {stream.table}\n"
            f"WHERE {stream.run()} ORDER BY {stream.coordinates} LIMIT 1",
            0,
        )
        event_id, *key = found
        culprits.append(Culprit(event_id, Key(*key), error))
        dead.append(event_id)

    done = sift(rows, attempt=attempt, blame=blame, enough=Portion(culprits).enough)
    quarantine(conn, build, culprits, beyond=budget.beyond)
    if done < rows or rows == step:
        return done, Cursor(EMPTY, target, at), False
    return done, Cursor(target), True


def _load_bucket(
    conn: psycopg.Connection,
    compiled: CompiledBuild,
    build: Build,
    run: Cursor,
    total: int,
    bucket: int,
    dead: Sequence[str],
) -> tuple[int, Cursor, bool]:
    """Evaluate the query for the next hash range of the key."""
    assert run.target is not None
    steps = build.load_steps or max(1, math.ceil(total / bucket))
    if build.load_steps is None:
        conn.execute("UPDATE refold.builds SET load_steps = %s WHERE build_id = %s", (steps, build.build_id))
    read = Read(EMPTY, run.target, None, None)
    parameters = read_parameters(read, 0, dead) | {"steps": str(steps), "step": str(build.load_step)}
    load = compiled.statements.load_apart if dead else compiled.statements.load
    _execute(conn, load, parameters)
    finished = build.load_step + 1 >= steps
    return total // steps, Cursor(run.target) if finished else run, finished


def _execute(conn: psycopg.Connection, statements: Sequence[str], parameters: dict[str, str]) -> None:
    # The client binds the parameters: CREATE TABLE AS takes none, and the planner should see the values.
    with psycopg.ClientCursor(conn) as cursor:
        for statement in statements:
            cursor.execute(statement.encode(), parameters)


def _estimate(conn: psycopg.Connection, compiled: CompiledBuild) -> int:
    """Return an estimate of the rows of the stream, from the planner's statistics and the file sizes.

    The planner assumes at least ten pages for a table that was never vacuumed, even an empty one; each segment that is
    prepared for later events is such a table. So the estimate has bounds: the log has no more events than positions,
    and another stream has no rows without a page.
    """
    table = compiled.stream.table
    (plan,) = one_row(conn, b"EXPLAIN (FORMAT JSON) SELECT 1 FROM " + table.encode())
    rows = int(plan[0]["Plan"]["Plan Rows"])
    bound = (
        "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM refold.events_position"
        if table == LOG_TABLE
        else f"SELECT CASE WHEN pg_relation_size('{table}') = 0 THEN 0 ELSE {rows} END"
    )
    most = one_row(conn, bound.encode())
    return min(rows, int(most[0]))
