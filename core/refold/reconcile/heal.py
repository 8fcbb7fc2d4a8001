"""Healing: recompute the keys that differ, and whatever stands on the rows that changed, in one transaction.

The build and everything below it are locked first, upstream before downstream. A reader is healed as of its
own cursor: what it has not applied yet it will read by itself, and must not get twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg

from refold.builds.build import Build, by_id, find, lock
from refold.builds.dead_letters import left_out
from refold.builds.upkeeper import Upkeeper, Upkeepers
from refold.copy_text import array
from refold.errors import BuildError
from refold.projections.identifiers import ident
from refold.reconcile import recomputed
from refold.reconcile.audit import Suspects, add, parameters_of
from refold.reconcile.differences import FOUND, compare, findings, record
from refold.reconcile.finding import Report
from refold.reconcile.scope import Scope
from refold.upkeep.statements import EVERYTHING, Relation, within_keys
from refold.upkeep.transform import EXPECTED

Touched = set[Any]
"""What of a reader has to be computed again: hashes of keys, or for a transform (txid, position)."""


def heal(
    conn: psycopg.Connection,
    upkeepers: Upkeepers,
    build: Build,
    suspects: Suspects,
    since: datetime | None,
    report: Report,
    *,
    readers: bool = True,
) -> None:
    """Sets right what an audit found, and records it.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        upkeepers: the SQL of the builds.
        build: the build that was audited.
        suspects: which of its keys differ.
        since: as in the audit.
        report: takes what was healed.
        readers: also heal what stands on it. Not where the caller audits each of them afterwards.

    Raises:
        BuildError: the build was replaced meanwhile; its successor is right by construction.
    """
    with conn.transaction():
        conn.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        order = lock_downwards(conn, build, readers=readers)
        if order is None:
            raise BuildError(f"{build.table_name} was replaced during the audit")
        keeper = upkeepers.of(conn, order[0])
        if keeper.transform is None:
            _heal_keys(conn, upkeepers, order[0], list(suspects.hashes), order, report)
        else:
            for part in suspects.ranges:
                _heal_range(conn, upkeepers, keeper, order, part, since, report)


def lock_downwards(conn: psycopg.Connection, build: Build, *, readers: bool = True) -> list[Build] | None:
    """Locks a build and everything that reads it, at any depth; None when the build is no longer kept.

    Also readers in their first load: some of their steps may have read what is about to be healed.
    """
    locked: list[Build] = []
    level = [build.build_id]
    while level:
        for build_id in sorted(level):
            one = lock(conn, build_id, wait=True)
            if one is not None:
                locked.append(one)
            elif build_id == build.build_id:
                return None
        below = find(conn, "b.upstream_id = ANY (%s) AND b.state IN ('building', 'live')", level) if readers else []
        level = [reader.build_id for reader in below]
    return locked


def _heal_keys(
    conn: psycopg.Connection,
    upkeepers: Upkeepers,
    build: Build,
    keys: Sequence[int],
    locked: Sequence[Build],
    report: Report,
) -> None:
    """Recomputes some keys of an SQL build as of its cursor, and of its readers what depends on their rows."""
    if not keys:
        return
    keeper = upkeepers.of(conn, build)
    parameters = parameters_of(conn, build) | {"keys": "{" + ",".join(map(str, keys)) + "}"}
    main = keeper.statements.relations[0]
    own = within_keys(main.hash)
    touched = _reader_keys(conn, upkeepers, build, locked, main, own, parameters)
    changed = False
    for relation in keeper.statements.relations:
        scope = Scope(within_keys(relation.stream_hash), within_keys(relation.hash))
        if not compare(conn, relation, scope, parameters):
            continue
        changed = True
        record(conn, build, relation)
        shown, counts = findings(conn, build, relation, healed=True)
        add(report, build, relation.table, shown, counts)
        conn.execute(relation.delete().encode(), parameters)
        conn.execute(relation.insert().encode(), parameters)
    if changed:
        _heal_readers(
            conn,
            upkeepers,
            build,
            locked,
            touched,
            _reader_keys(conn, upkeepers, build, locked, main, own, parameters),
            report,
        )


def _heal_range(
    conn: psycopg.Connection,
    upkeepers: Upkeepers,
    keeper: Upkeeper,
    locked: Sequence[Build],
    part: recomputed.Range,
    since: datetime | None,
    report: Report,
) -> None:
    """Replaces the rows of a transform's table that differ in a range of coordinates."""
    build = by_id(conn, locked[0].build_id)
    parameters = parameters_of(conn, build, since)
    # More events may have been applied there since the audit.
    for piece in recomputed.ranges(conn, keeper, parameters, since is not None, within=part):
        scope = piece.scope(since is not None)
        _replace(conn, upkeepers, keeper, build, locked, scope, parameters | piece.parameters(), report)


def _heal_events(
    conn: psycopg.Connection,
    upkeepers: Upkeepers,
    build: Build,
    events: Sequence[tuple[int, int]],
    locked: Sequence[Build],
    report: Report,
) -> None:
    """Replaces the rows that a transform makes of some log events, by their coordinates."""
    keeper = upkeepers.of(conn, build)
    parameters = parameters_of(conn, build) | recomputed.events_parameters(events)
    recomputed.fill_events(conn, keeper, parameters)
    _replace(conn, upkeepers, keeper, build, locked, Scope(EVERYTHING, recomputed.AT), parameters, report)


def _replace(
    conn: psycopg.Connection,
    upkeepers: Upkeepers,
    keeper: Upkeeper,
    build: Build,
    locked: Sequence[Build],
    scope: Scope,
    parameters: dict[str, str],
    report: Report,
) -> None:
    """Puts the expected rows of a transform in place of those that differ from them, and heals what reads them."""
    relation = keeper.statements.relations[0]
    if not compare(conn, relation, scope, parameters):
        return
    record(conn, build, relation)
    shown, counts = findings(conn, build, relation, healed=True)
    add(report, build, relation.table, shown, counts)
    differing = f"event_id IN (SELECT row ->> 'event_id' FROM {FOUND})"
    before = _reader_keys(conn, upkeepers, build, locked, relation, differing, {})
    columns = ", ".join(map(ident, relation.columns))
    conn.execute(f"DELETE FROM {relation.table} WHERE {differing}".encode())
    conn.execute(
        f"INSERT INTO {relation.table} ({columns}) SELECT {columns} FROM {EXPECTED} WHERE {differing}".encode()
    )
    after = _reader_keys(conn, upkeepers, build, locked, relation, differing, {})
    _heal_readers(conn, upkeepers, build, locked, before, after, report)


def _reader_keys(
    conn: psycopg.Connection,
    upkeepers: Upkeepers,
    build: Build,
    locked: Sequence[Build],
    relation: Relation,
    condition: str,
    parameters: dict[str, str],
) -> dict[int, Touched]:
    """For each direct reader, the hashes of its keys to which some rows of a stream belong; for a transform,
    the log events that they come from."""
    found: dict[int, Touched] = {}
    for reader in locked:
        if reader.upstream_id != build.build_id or not reader.loaded:
            continue
        keeper = upkeepers.of(conn, reader)
        if keeper.transform is not None:
            found[reader.build_id] = set(
                conn.execute(
                    f"SELECT DISTINCT txid::text::bigint, position FROM {relation.table} WHERE {condition}".encode(),
                    parameters,
                ).fetchall()
            )
            continue
        expression = keeper.statements.relations[0].stream_hash
        rows = conn.execute(
            f"SELECT DISTINCT {expression} FROM {relation.table} WHERE {condition}".encode(),
            parameters | {"dead": array(left_out(conn, reader))},
        ).fetchall()
        # None: a row that the reader leaves out.
        found[reader.build_id] = {int(value) for (value,) in rows if value is not None}
    return found


def _heal_readers(
    conn: psycopg.Connection,
    upkeepers: Upkeepers,
    build: Build,
    locked: Sequence[Build],
    before: dict[int, Touched],
    after: dict[int, Touched],
    report: Report,
) -> None:
    """Recomputes in each reader the keys of the rows as they were and as they are now."""
    for reader in locked:
        if reader.upstream_id == build.build_id and not reader.loaded:
            load_again(conn, upkeepers, reader)
        touched = before.get(reader.build_id, set()) | after.get(reader.build_id, set())
        if touched:
            heal_them = _heal_events if reader.language == "python" else _heal_keys
            heal_them(conn, upkeepers, by_id(conn, reader.build_id), sorted(touched), locked, report)


def load_again(conn: psycopg.Connection, upkeepers: Upkeepers, reader: Build) -> None:
    """Starts a first load over: the steps that are done may have read what its stream has become since."""
    if reader.target is None:
        return
    for relation in upkeepers.of(conn, reader).statements.relations:
        conn.execute(f"TRUNCATE {relation.table}".encode())
    conn.execute(
        """
        UPDATE refold.builds SET
            target = NULL, progress_txid = NULL, progress_position = NULL, progress_ordinal = NULL,
            load_step = 0, load_steps = NULL
        WHERE build_id = %s
        """,
        (reader.build_id,),
    )
