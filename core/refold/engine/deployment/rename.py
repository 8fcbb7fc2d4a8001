"""`refold rename`: giving a metric another name and keeping its rows, because the query stays the same.

Code contains the name of a transform and of a stream that others read. Such files must be changed first: they must have
the new name, and otherwise equal the deployed ones. The builds then get their texts and fingerprints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from refold.engine.deployment.create import new_deployment
from refold.engine.deployment.deploy import one_at_a_time
from refold.engine.deployment.drop import LOCK_WAIT_S
from refold.engine.publish.canary_views import alone
from refold.engine.publish.views import METRICS_SCHEMA, dependants_of, once_let_go, stands
from refold.errors import BuildError
from refold.model.projection.definition import Definition, check_name, load
from refold.model.projection.files import files_named
from refold.model.projection.former_names import as_called
from refold.store import canaries, retentions, sinks
from refold.store.builds.build import Build, kept, lock
from refold.store.builds.compiled import Compiler
from refold.store.builds.lookup import known


@dataclass(frozen=True, slots=True)
class Renamed:
    """The outcome of a rename.

    Args:
        build: the live build, as it was before.
        name: the new name of its metric.
        views: the views that read the metric, and continue to.
        files: the builds whose text contains the name, each with its new definition, upstream first.
    """

    build: Build
    name: str
    views: tuple[str, ...]
    files: tuple[tuple[Build, Definition], ...]


def plan(conn: psycopg.Connection, folder: Path, old: str, new: str) -> Renamed:
    """Return the outcome that `rename` would have.

    Args:
        conn: acts as refold_worker.
        folder: the folder of projections.
        old: the present name of a metric.
        new: its new name.

    Raises:
        BuildError: no metric has the name `old`, `new` is taken, or the files do not have the new name yet.
        DefinitionError: `new` is not a valid name for a projection, or a file is wrong.
    """
    check_name(Path(f"{new}.sql"))
    builds = kept(conn)
    build = decide(builds, old, new)
    files = _files(folder, build, _readers(builds, build), new)
    if stands(conn, new):
        raise BuildError(f"there is a view metrics.{new} already", remedy="Choose another name, or drop the view.")
    views = tuple(f"{one.schema}.{one.name}" for one in dependants_of(conn, old)) if stands(conn, old) else ()
    return Renamed(build, new, views, files)


def rename(conn: psycopg.Connection, folder: Path, old: str, new: str) -> Renamed:
    """Rename a live metric: its view and its builds, with those for a rollback.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        folder: the folder of projections.
        old: the present name.
        new: the new name.

    Raises:
        BuildError: see `plan`; or a session holds the view for too long.
    """
    with one_at_a_time(conn, "rename a metric"):
        return once_let_go(
            conn,
            LOCK_WAIT_S,
            lambda: _rename(conn, folder, old, new),
            held=f"a session has held metrics.{old} for longer than {LOCK_WAIT_S:.0f} s",
            then="run `refold rename` again",
        )


def _rename(conn: psycopg.Connection, folder: Path, old: str, new: str) -> Renamed:
    build = decide(kept(conn), old, new)
    if lock(conn, build.build_id, wait=True, readers=True) is None:
        raise BuildError(f"{build.table_name} was replaced just now", remedy="Run the command again.")
    renamed = plan(conn, folder, old, new)
    deployment = new_deployment(conn, "rename", promote=False)
    conn.execute("UPDATE refold.deployments SET promoted_at = now() WHERE deployment = %s", (deployment,))
    # Of a canary that has ended: there is no candidate now.
    if canaries.shown(conn, old):
        alone(conn, Compiler(folder), old)
    canaries.rename(conn, old, new)
    retentions.rename(conn, old, new)
    if stands(conn, old):
        view = sql.Identifier(METRICS_SCHEMA, old)
        conn.execute(sql.SQL("ALTER VIEW {} RENAME TO {}").format(view, sql.Identifier(new)))
    # A dropped metric may have had the new name: its builds keep their numbers.
    conn.execute(
        """
        UPDATE refold.builds SET
            projection = %(new)s,
            number = number + (SELECT coalesce(max(number), 0) FROM refold.builds WHERE projection = %(new)s)
        WHERE projection = %(old)s
        """,
        {"old": old, "new": new},
    )
    sinks.rename(conn, old, new)
    for one, definition in renamed.files:
        # Update all builds of this fingerprint: a rebuild may have left several with the same query.
        conn.execute(
            "UPDATE refold.builds SET fingerprint = %s, definition = %s WHERE projection = %s AND fingerprint = %s",
            (definition.fingerprint, definition.source, definition.name, one.fingerprint),
        )
    return renamed


def _files(folder: Path, build: Build, readers: Sequence[Build], new: str) -> tuple[tuple[Build, Definition], ...]:
    """Return the builds whose files contain the name or depend on such a file, with their new definitions.

    Raises:
        BuildError: the files do not have the new name yet, or differ otherwise from the deployed ones.
    """
    if build.language == "sql" and not readers:
        return ()
    old = build.projection
    now = load(folder).definitions
    then = as_called(folder, {new: old}) if new in now else {}
    texts: list[tuple[Build, Definition]] = []
    for one in (build, *readers):
        text = now.get(new if one is build else one.projection)
        before = then.get(one.projection)
        stale = one.upstream_id == build.build_id and text is not None and text.upstream != new
        if text is not None and not stale and before is not None and before.fingerprint == one.fingerprint:
            texts.append((one, text))
    same = {one.build_id for one, _ in texts}
    if build.language == "python" and build.build_id not in same:
        file = next(iter(files_named(folder, new, ".py")), folder / f"{new}.py")
        raise BuildError(
            f"{old} is a transform, and {file} does not hold the deployed code",
            remedy=f"First rename its file and its function to {new}, here and where workers run; change nothing else.",
        )
    left = sorted(one.projection for one in readers if one.build_id not in same)
    if left:
        raise BuildError(
            f"{', '.join(left)} {'reads' if len(left) == 1 else 'read'} {old} by its name",
            remedy=f"First replace {old} by {new} in the files and their names, and change nothing else. Or "
            f"deploy it as {new}, with its readers changed, then run `refold drop {old}`.",
        )
    return tuple(texts)


def _readers(builds: Sequence[Build], build: Build) -> list[Build]:
    """Return the live builds that read a build, directly or through others, upstream first."""
    found = [build]
    for stream in found:
        found += [one for one in builds if one.upstream_id == stream.build_id and one.state == "live"]
    return found[1:]


def decide(builds: Sequence[Build], old: str, new: str) -> Build:
    """Return the live build of a metric that can be renamed. Pure.

    Args:
        builds: the builds that are kept.
        old: the present name.
        new: the new name.

    Raises:
        BuildError: see `plan`.
    """
    build = known(old, {one.projection: one for one in builds if one.state == "live"})
    if any(one.projection == new for one in builds):
        raise BuildError(f"there is a metric {new} already", remedy="Choose another name.")
    ours = [build, *_readers(builds, build)]
    unfinished = {one.projection for one in builds if one.state == "building"}
    waits = sorted(unfinished & {one.projection for one in ours})
    if waits:
        raise BuildError(
            f"another build of {waits[0]} is not live yet",
            remedy="Promote it first with `refold promote`, or wait for a worker to do so.",
        )
    return build
