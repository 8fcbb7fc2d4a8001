"""Releasing a dead letter: applying its event once, to the build and to all its readers.

The event keeps its old coordinates, which the cursors of the build and perhaps of its readers have passed. All of them
are locked, upstream before downstream. `Cursor.applied` of each locked cursor decides: a reader that has passed the
coordinates gets the new rows here; any other reader will read them by itself, and must not get them twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal as OneOf

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from refold import tracing
from refold.engine.apply.page import write_all
from refold.engine.isolate.search import Culprit
from refold.engine.purge import fold
from refold.engine.reconcile.audit import parameters_of
from refold.engine.reconcile.heal import lock_downwards
from refold.engine.reconcile.log_proof import LogProof
from refold.errors import BuildError
from refold.model.sql_text import ident
from refold.model.stream.cursor import EMPTY, LAST_ORDINAL, Key, Read
from refold.model.stream.parameters import key_parameters
from refold.model.stream.slices import POSITION_BITS, position_slice
from refold.model.upkeep import checksums
from refold.model.upkeep.outbox import Outbox
from refold.postgres.sqlstate import caused_by_event
from refold.store import bases
from refold.store.builds.build import BY_KEY, EVENT_GRAIN, Build, by_id, changed
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.builds.dead_letters import DeadLetter, described, excluded_event_ids, moved, quarantine
from refold.store.builds.first_load import start_over
from refold.store.log.traces import of_event
from refold.store.outbox import send
from refold.store.sinks import of_rows

EVERY = 2**31
"""Most rows to write; a key has far fewer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a release.

    Args:
        letter: the dead letter, as it was before.
        answer: `released`; `failed` again; or `ended`, because another session had released or dropped it.
        error: for `failed`, the message of the exception.
    """

    letter: DeadLetter
    answer: OneOf["released", "failed", "ended"]
    error: str | None = None


def release(conn: psycopg.Connection, compiler: Compiler, letter: DeadLetter) -> Outcome:
    """Try the event of a dead letter again, and return the outcome.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of the builds, with the code of transforms.
        letter: the dead letter.

    Raises:
        BuildError: the build is no longer kept, or this process lacks the code of a transform.
        LogDamaged: the event is in a damaged part of the log.
    """
    began = tracing.Moment.now()
    outcome, failure = _release(conn, compiler, letter)
    if tracing.environment.ON and outcome.answer != "ended":
        # It is over, whatever becomes of its span.
        with suppress(psycopg.Error, BuildError):
            _trace(conn, compiler, letter, began, failure)
    return outcome


def _trace(
    conn: psycopg.Connection, compiler: Compiler, letter: DeadLetter, began: tracing.Moment, failure: Exception | None
) -> None:
    build = by_id(conn, letter.build_id)
    context = of_event(conn, letter.key)
    contexts = [] if context is None else [context._replace(events=1)]
    stream = compiler.of(conn, build).plan.stream
    attributes = {"refold.upkeep": build.upkeep, "refold.build": build.build_id}
    what = tracing.Consumed("release", build.projection, stream, attributes, int(failure is None), contexts)
    tracing.consumed(began, replace(what, each=failure is None), failure)


def _release(conn: psycopg.Connection, compiler: Compiler, letter: DeadLetter) -> tuple[Outcome, Exception | None]:
    with conn.transaction():
        conn.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        locked = lock_downwards(conn, by_id(conn, letter.build_id))
        if locked is None:
            raise BuildError(
                f"{letter.table_name} is no longer kept up to date",
                remedy="Its successor has its own dead letters.",
            )
        try:
            with conn.transaction():
                if not _released(conn, letter):
                    return Outcome(letter, "ended"), None
                purged = letter.key.position < locked[0].floor
                if locked[0].upstream_id is None and not purged:
                    LogProof().slices(conn, [letter.key.position >> POSITION_BITS])
                moved(conn, letter.build_id, left_out=-1, waiting=-1)
                _reach(conn, compiler, locked[0], letter.key, locked, _copied(letter) if purged else None)
        except Exception as error:
            if not caused_by_event(error):
                raise
            quarantine(conn, locked[0], [Culprit(letter.event_id, letter.key, error)])
            return Outcome(letter, "failed", described(error)), error
    return Outcome(letter, "released"), None


def drop(conn: psycopg.Connection, letter: DeadLetter, reason: str) -> bool:
    """Drop a dead letter and record the reason; return False if it was no longer waiting.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        letter: the dead letter.
        reason: the reason, which is recorded.
    """
    with conn.transaction():
        conn.execute("SELECT FROM refold.builds WHERE build_id = %s FOR NO KEY UPDATE", (letter.build_id,))
        done = conn.execute(
            "UPDATE refold.dead_letters SET state = 'dropped', reason = %s, ended_at = now(), ended_by = session_user"
            " WHERE dead_letter_id = %s AND state = 'waiting'",
            (reason, letter.dead_letter_id),
        ).rowcount
        moved(conn, letter.build_id, waiting=-done)
    return done > 0


def _copied(letter: DeadLetter) -> str:
    """Return the relation of the event of a dead letter as it was copied before it left the log, as SQL."""
    return (
        "(SELECT (jsonb_populate_record(NULL::refold.events, d.event)).* FROM refold.dead_letters AS d"
        f" WHERE d.dead_letter_id = {letter.dead_letter_id} AND d.event IS NOT NULL) AS copied"
    )


def _released(conn: psycopg.Connection, letter: DeadLetter) -> bool:
    """Mark a dead letter as released; return whether this session did, and so must apply its event."""
    released = conn.execute(
        "UPDATE refold.dead_letters SET state = 'released', ended_at = now(), ended_by = session_user"
        " WHERE dead_letter_id = %s AND state = 'waiting'",
        (letter.dead_letter_id,),
    ).rowcount
    bases.doubt(conn, letter.build_id, letter.position)
    return released > 0


def _reach(
    conn: psycopg.Connection,
    compiler: Compiler,
    build: Build,
    key: Key,
    locked: Sequence[Build],
    purged: str | None = None,
) -> None:
    """Apply the stream's row at a key to a build that has passed the key, and the resulting rows to its readers.

    Args:
        conn: the transaction, which holds the locks.
        compiler: makes the SQL of builds.
        build: the build.
        key: the coordinates of the row.
        locked: the build and its readers.
        purged: the relation of the event, if it has left the log.
    """
    build = by_id(conn, build.build_id)
    if not build.loaded:
        if purged is not None and bases.complete(conn, build.build_id, build.floor):
            # What has been loaded from the archive stays when a load starts over, without this event.
            raise BuildError(
                f"{build.table_name} is still being loaded, and its load has passed the purged events",
                remedy="Try it again once the build is loaded: see `refold status`.",
            )
        start_over(conn, build)
        return
    if not build.cursor.applied(key):
        return
    compiled = compiler.of(conn, build) if purged is None else compiler.over(conn, build, purged)
    before = _rows_at(conn, compiled, build, key)
    changed(conn, build)
    if build.upkeep in BY_KEY:
        _recompute(conn, compiled, build, key)
    else:
        write_all(conn, compiled, _just(compiled, build, key), EVERY, excluded_event_ids(conn, build))
        if purged is not None:
            fold.add_event(conn, compiled, build, purged, key.position)
    fresh = [row for row in _rows_at(conn, compiled, build, key) if row not in before]
    _tell_sinks(conn, build, [event_id for event_id, _ in fresh])
    for reader in locked:
        if reader.upstream_id != build.build_id:
            continue
        for event_id, at in fresh:
            try:
                with conn.transaction():
                    _reach(conn, compiler, reader, at, locked)
            except Exception as error:
                if not caused_by_event(error):
                    raise
                quarantine(conn, reader, [Culprit(event_id, at, error)])


def _tell_sinks(conn: psycopg.Connection, build: Build, event_ids: Sequence[str]) -> None:
    """Send the keys of new rows to sinks of grain `events`, which have passed them; pages send to the others."""
    if not event_ids:
        return
    rows = SQL(
        f"SELECT {position_slice()} AS slice, jsonb_build_object('event_id', event_id) AS key"
        " FROM {} WHERE event_id = ANY ({})"
    ).format(Identifier("refold_builds", build.table_name), Literal(list(event_ids)))
    for sink_id in set(build.sinks) - set(of_rows(conn, build.sinks)):
        send(conn, sink_id, ("event_id",), rows)


def _just(compiled: CompiledBuild, build: Build, key: Key) -> Read:
    """Return a read of the row at a key, in a snapshot that shows it."""
    cursor = build.cursor
    seen = cursor.done if cursor.done.visible(key.txid) else cursor.target
    assert seen is not None
    if compiled.stream.ordinal:
        return Read(EMPTY, seen, key._replace(ordinal=key.ordinal - 1), key)
    return Read(EMPTY, seen, Key(key.txid, key.position - 1, LAST_ORDINAL), key._replace(ordinal=LAST_ORDINAL))


def _recompute(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, key: Key) -> None:
    """Evaluate the query again for the key of a row of the stream, as of the build's cursor."""
    [relation] = compiled.statements.relations
    outbox = Outbox(compiled.sinks)
    row = conn.execute(
        f"SELECT {relation.stream_hash} FROM {compiled.stream.table}"
        f" WHERE ({compiled.stream.coordinates}) = {compiled.stream.bound('at')}".encode(),
        key_parameters("at", key),
    ).fetchone()
    if row is None:
        return
    parameters = (
        parameters_of(conn, build) | key_parameters("at", key) | {"keys": f"{{{row[0]}}}", "build": str(build.build_id)}
    )
    for statement, gone in ((relation.delete(), True), (relation.insert(), False)):
        written = f"{statement}\n{checksums.returning(relation)}{outbox.returning(relation)}"
        changes = [checksums.change(0, "written", gone=gone)]
        if not gone:
            changes.append(
                checksums.read(
                    "(VALUES (%(at_position)s::bigint, %(at_ordinal)s::integer)) AS page (position, ordinal)"
                )
            )
        sent = outbox.sent(relation, "written")
        conn.execute(f"WITH written AS (\n{written}\n){sent}\n{checksums.move(changes)}".encode(), parameters)


def _rows_at(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, key: Key) -> list[tuple[str, Key]]:
    """Return the ids and keys of the rows that an event-grain build holds for the log event at a key."""
    if build.upkeep not in EVENT_GRAIN:
        return []
    rows = conn.execute(
        f"SELECT event_id, txid::text::bigint, position, ordinal FROM refold_builds.{ident(build.table_name)}"
        " WHERE txid = %s::text::xid8 AND position = %s ORDER BY ordinal".encode(),
        (str(key.txid), key.position),
    ).fetchall()
    return [(event_id, Key(*at)) for event_id, *at in rows]
