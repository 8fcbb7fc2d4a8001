"""Releasing a dead letter: the event is applied after all, once, to the build and to everything that stands on it.

It comes under its old coordinates, which the build's cursor and perhaps its readers' have passed. All of them are
locked, upstream before downstream; `Cursor.applied` of each locked cursor decides: a reader that has passed the
coordinates gets the new rows here, one that has yet to pass them will read them by itself, and must not get them twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import psycopg

from refold.engine.apply.page import write_all
from refold.engine.isolate.search import Culprit
from refold.engine.reconcile.audit import parameters_of
from refold.engine.reconcile.heal import lock_downwards
from refold.engine.reconcile.proof import LogProof
from refold.errors import BuildError
from refold.model.sql_text import ident
from refold.model.stream.cursor import EMPTY, LAST_ORDINAL, Key, Read
from refold.model.stream.parameters import key_parameters
from refold.model.stream.slices import POSITION_BITS
from refold.model.upkeep import checksums
from refold.postgres.sqlstate import caused_by_event
from refold.store.builds.build import BY_KEY, EVENT_GRAIN, Build, by_id
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.builds.dead_letters import DeadLetter, described, excluded_event_ids, moved, quarantine
from refold.store.builds.first_load import start_over

EVERY = 2**31
"""Rows at most: the rows of one key are few."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a dead letter.

    Args:
        letter: as it was.
        answer: `released`; `failed` once more; `ended` by somebody else before.
        error: for `failed`, what was said.
    """

    letter: DeadLetter
    answer: Literal["released", "failed", "ended"]
    error: str | None = None


def release(conn: psycopg.Connection, compiler: Compiler, letter: DeadLetter) -> Outcome:
    """Tries an event again that a build had to leave out.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: the SQL of the builds, and the code of transforms.
        letter: which.

    Raises:
        BuildError: the build is not kept any more, or a transform's code is missing here.
        LogDamaged: the event stands in a part of the log that is damaged.
    """
    with conn.transaction():
        conn.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        locked = lock_downwards(conn, by_id(conn, letter.build_id))
        if locked is None:
            raise BuildError(
                f"{letter.table_name} is not kept any more",
                remedy="Its successor has its own dead letters.",
            )
        try:
            with conn.transaction():
                if not _released(conn, letter):
                    return Outcome(letter, "ended")
                if locked[0].upstream_id is None:
                    LogProof().slices(conn, [letter.key.position >> POSITION_BITS])
                moved(conn, letter.build_id, left_out=-1, waiting=-1)
                _reach(conn, compiler, locked[0], letter.key, locked)
        except Exception as error:
            if not caused_by_event(error):
                raise
            quarantine(conn, locked[0], [Culprit(letter.event_id, letter.key, error)])
            return Outcome(letter, "failed", described(error))
    return Outcome(letter, "released")


def drop(conn: psycopg.Connection, letter: DeadLetter, reason: str) -> bool:
    """Gives an event up for one build, for a reason that stays on record; False when it was not waiting any more.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        letter: which.
        reason: why.
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


def _released(conn: psycopg.Connection, letter: DeadLetter) -> bool:
    """Ends a letter; whoever does is the one who applies its event."""
    return (
        conn.execute(
            "UPDATE refold.dead_letters SET state = 'released', ended_at = now(), ended_by = session_user"
            " WHERE dead_letter_id = %s AND state = 'waiting'",
            (letter.dead_letter_id,),
        ).rowcount
        > 0
    )


def _reach(conn: psycopg.Connection, compiler: Compiler, build: Build, key: Key, locked: Sequence[Build]) -> None:
    """Applies the row of its stream at a key to a build that has passed it, and what comes of that to its readers."""
    build = by_id(conn, build.build_id)
    if not build.loaded:
        start_over(conn, build)
        return
    if not build.cursor.applied(key):
        return
    compiled = compiler.of(conn, build)
    before = _rows_at(conn, compiled, build, key)
    if build.upkeep in BY_KEY:
        _recompute(conn, compiled, build, key)
    else:
        write_all(conn, compiled, _just(compiled, build, key), EVERY, excluded_event_ids(conn, build))
    fresh = [row for row in _rows_at(conn, compiled, build, key) if row not in before]
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


def _just(compiled: CompiledBuild, build: Build, key: Key) -> Read:
    """A read of the row at one key, in a snapshot that shows it."""
    cursor = build.cursor
    seen = cursor.done if cursor.done.visible(key.txid) else cursor.target
    assert seen is not None
    if compiled.stream.ordinal:
        return Read(EMPTY, seen, key._replace(ordinal=key.ordinal - 1), key)
    return Read(EMPTY, seen, Key(key.txid, key.position - 1, LAST_ORDINAL), key._replace(ordinal=LAST_ORDINAL))


def _recompute(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, key: Key) -> None:
    """Evaluates the query again for the key that a row of the stream belongs to, as of the build's cursor."""
    [relation] = compiled.statements.relations
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
        written = f"{statement}\n{checksums.returning(relation)}"
        changes = [checksums.change(0, "written", gone=gone)]
        if not gone:
            changes.append(
                checksums.read(
                    "(VALUES (%(at_position)s::bigint, %(at_ordinal)s::integer)) AS page (position, ordinal)"
                )
            )
        moved = checksums.move(changes)
        conn.execute(f"WITH written AS (\n{written}\n)\n{moved}".encode(), parameters)


def _rows_at(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, key: Key) -> list[tuple[str, Key]]:
    """The rows that an event-grain build holds of the log event at a key, as its readers know them."""
    if build.upkeep not in EVENT_GRAIN:
        return []
    rows = conn.execute(
        f"SELECT event_id, txid::text::bigint, position, ordinal FROM refold_builds.{ident(build.table_name)}"
        " WHERE txid = %s::text::xid8 AND position = %s ORDER BY ordinal".encode(),
        (str(key.txid), key.position),
    ).fetchall()
    return [(event_id, Key(*at)) for event_id, *at in rows]
