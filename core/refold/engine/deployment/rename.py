"""`refold rename`: a metric under another name, with the rows that it has: the query is the same.

Where the name stands in code (a transform's own, and in all that reads a stream), the files come first: they must have
the new name, and be otherwise what is deployed. The builds then get the texts of these files, with their fingerprints.
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
from refold.engine.publish.views import METRICS_SCHEMA, dependants_of, once_let_go, stands
from refold.errors import BuildError
from refold.model.projection.definition import Definition, check_name, load
from refold.model.projection.former_names import as_called
from refold.store.builds.build import Build, kept, lock
from refold.store.builds.lookup import known


@dataclass(frozen=True, slots=True)
class Renamed:
    """What a renaming does.

    Args:
        build: the live build, as it was before.
        name: what its metric is called from now on.
        views: those that read the metric, and go on doing so.
        files: what the builds in whose text the name stands are from now on, upstream first,
            beside the builds.
    """

    build: Build
    name: str
    views: tuple[str, ...]
    files: tuple[tuple[Build, Definition], ...]


def plan(conn: psycopg.Connection, folder: Path, old: str, new: str) -> Renamed:
    """What `rename` would do.

    Args:
        conn: acts as refold_worker.
        folder: the projections.
        old: what a metric is called.
        new: what it shall be called.

    Raises:
        BuildError: no metric is called `old`, `new` is taken, or the files do not have the new name yet.
        DefinitionError: `new` cannot be the name of a projection; or a file is wrong.
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
    """Calls a live metric by another name: its view and its builds, those for a rollback among them.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        folder: the projections.
        old: what it is called.
        new: what it shall be called.

    Raises:
        BuildError: see `plan`; or a session holds the view all the time.
    """
    with one_at_a_time(conn, "rename a metric"):
        return once_let_go(
            conn,
            LOCK_WAIT_S,
            lambda: _rename(conn, folder, old, new),
            held=f"a session holds metrics.{old} for longer than {LOCK_WAIT_S:.0f} s",
            then="rename again",
        )


def _rename(conn: psycopg.Connection, folder: Path, old: str, new: str) -> Renamed:
    build = decide(kept(conn), old, new)
    if lock(conn, build.build_id, wait=True, readers=True) is None:
        raise BuildError(f"{build.table_name} was replaced just now", remedy="Run the command again.")
    renamed = plan(conn, folder, old, new)
    deployment = new_deployment(conn, "rename", promote=False)
    conn.execute("UPDATE refold.deployments SET promoted_at = now() WHERE deployment = %s", (deployment,))
    if stands(conn, old):
        view = sql.Identifier(METRICS_SCHEMA, old)
        conn.execute(sql.SQL("ALTER VIEW {} RENAME TO {}").format(view, sql.Identifier(new)))
    # A metric of that name may have been dropped: its builds keep their numbers.
    conn.execute(
        """
        UPDATE refold.builds SET
            projection = %(new)s,
            number = number + (SELECT coalesce(max(number), 0) FROM refold.builds WHERE projection = %(new)s)
        WHERE projection = %(old)s
        """,
        {"old": old, "new": new},
    )
    for one, definition in renamed.files:
        # Also of the builds that an unchanged rebuild has left: these are one query.
        conn.execute(
            "UPDATE refold.builds SET fingerprint = %s, definition = %s WHERE projection = %s AND fingerprint = %s",
            (definition.fingerprint, definition.source, definition.name, one.fingerprint),
        )
    return renamed


def _files(folder: Path, build: Build, readers: Sequence[Build], new: str) -> tuple[tuple[Build, Definition], ...]:
    """The files in which the name stands, and those that change with them.

    Raises:
        BuildError: they do not have the new name yet, or differ in something else from what is deployed.
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
        raise BuildError(
            f"{old} is a transform, and {folder / new}.py is not the code that is deployed",
            remedy=f"Call its file and its function {new} first, here and where workers run, and change nothing else.",
        )
    left = sorted(one.projection for one in readers if one.build_id not in same)
    if left:
        raise BuildError(
            f"{', '.join(left)} {'reads' if len(left) == 1 else 'read'} {old} by its name",
            remedy=f"Write {new} for {old} in the files first, their names among it, and change nothing else; or "
            f"deploy it as {new}, with what reads it changed, then `refold drop {old}`.",
        )
    return tuple(texts)


def _readers(builds: Sequence[Build], build: Build) -> list[Build]:
    """The live builds that read a build, and those that read them, upstream first."""
    found = [build]
    for stream in found:
        found += [one for one in builds if one.upstream_id == stream.build_id and one.state == "live"]
    return found[1:]


def decide(builds: Sequence[Build], old: str, new: str) -> Build:
    """The live build of a metric that can be called otherwise. Pure.

    Args:
        builds: those that are kept.
        old: what it is called.
        new: what it shall be called.

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
            f"another build of {waits[0]} is on its way",
            remedy="Let it go live first: `refold promote`, or a worker.",
        )
    return build
