"""Compiled builds: the loaded definition and the generated SQL of a build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from refold.errors import BuildError
from refold.model.projection.cooperative import gentle
from refold.model.projection.definition import Definition, from_source, load, stream_in
from refold.model.projection.former_names import as_called
from refold.model.projection.plan import LOG, LOG_COLUMNS, Plan
from refold.model.projection.transform import Transform
from refold.model.sql_text import ident
from refold.model.stream.page_sql import LOG_STREAM, Stream
from refold.model.upkeep import transform as transform_upkeep
from refold.model.upkeep.generate import generate
from refold.model.upkeep.names import projection_of
from refold.model.upkeep.outbox import Outbox
from refold.model.upkeep.retained import retained
from refold.model.upkeep.statements import Statements
from refold.store.builds.build import Build, by_id, kept_reads
from refold.store.schema.resources import projections_dir
from refold.store.sinks import of_rows

if TYPE_CHECKING:
    from refold.model.lineage.columns import ColumnLineage


@dataclass(frozen=True, slots=True)
class CompiledBuild:
    """The plan, the SQL and the transform that keep one build up to date.

    Args:
        build_id: the build.
        upstream_id: the build that its stream is the table of; None for the log. Who holds the build's lock
            must compare it: a promote may have pointed the build at another since.
        plan: how its projection is kept.
        stream: the physical stream it reads.
        statements: the SQL.
        transform: the function, for a Python projection.
        sinks: the sinks of the build. They too must be compared under the lock: pages send keys to them.
        based: whether its audits count what has left the log. Pages are the same without.
        retained: whether it leaves out slices that are not kept; pages must too.
    """

    build_id: int
    upstream_id: int | None
    plan: Plan
    stream: Stream
    statements: Statements
    transform: Transform | None = None
    sinks: tuple[int, ...] = ()
    based: bool = False
    retained: bool = False

    def fits(self, build: Build) -> bool:
        """Return whether this is the SQL of a build as it is under its lock."""
        return (
            build.upstream_id == self.upstream_id
            and tuple(build.sinks) == self.sinks
            and build.retained == self.retained
        )


def stream_of(upstream: Build | None) -> Stream:
    """Return the physical stream that a build with this upstream reads."""
    if upstream is None:
        return LOG_STREAM
    return Stream(f"refold_builds.{ident(upstream.table_name)}", ordinal=True)


class Compiler:
    """A cache of compiled builds: a build's SQL changes only with the upstream that it reads.

    SQL projections come from what was deployed (the text in `refold.builds`), so that workers need no files
    for them. A transform is code, and code comes from this machine alone: from its folder, or from what refold
    delivers. Its fingerprint must match.

    Args:
        projections: the folder of transforms; None when there is none here.
        gently: transforms give way to other threads, see `refold.model.projection.cooperative`.

    Attributes:
        shown: for builds whose view was found right, that view as Postgres writes it (`refold.engine.publish.shown`),
            by build and candidate that some readers see.
        lineages: what is behind the columns of builds, by build and name of its stream (`refold.engine.lineage.graph`).
    """

    def __init__(self, projections: Path | None, *, gently: bool = False) -> None:
        self._folder = projections
        self._gently = gently
        self._definitions: dict[str, Definition] = {}
        self._made: dict[tuple[int, int | None, tuple[int, ...], bool, bool], CompiledBuild] = {}
        self.shown: dict[tuple[int, int | None], str] = {}
        self.lineages: dict[tuple[int, str], ColumnLineage] = {}

    def of(self, conn: psycopg.Connection, build: Build) -> CompiledBuild:
        """Return the compiled form of a build.

        Raises:
            BuildError: a transform's file is missing here, or it or what it imports differs from what was deployed.
            DefinitionError: a transform's file, or the file of a stream that it reads, is wrong.
        """
        key = (build.build_id, build.upstream_id, tuple(build.sinks), build.based, build.retained)
        if key not in self._made:
            self._made[key] = self._make(conn, build)
        return self._made[key]

    def over(self, conn: psycopg.Connection, build: Build, events: str) -> CompiledBuild:
        """Return the SQL by which a build on the log reads other events, which are not in the log any more.

        Args:
            conn: acts as refold_worker.
            build: the build.
            events: their relation, with the columns of the log.

        Raises:
            BuildError: a transform's file is missing here, or differs from what was deployed.
        """
        return self._make(conn, build, Stream(events, ordinal=False))

    def _make(self, conn: psycopg.Connection, build: Build, over: Stream | None = None) -> CompiledBuild:
        upstream = None if build.upstream_id is None else by_id(conn, build.upstream_id)
        stream = over or stream_of(upstream)
        outbox = Outbox(of_rows(conn, build.sinks))
        if build.language == "python":
            transform = self._transform(build, upstream)
            return CompiledBuild(
                build.build_id,
                build.upstream_id,
                transform.plan,
                stream,
                transform_upkeep.statements(transform, stream, build.table_name, outbox, based=build.based),
                transform,
                tuple(build.sinks),
                build.based,
            )
        streams: Mapping[str, tuple[str, ...]] = {LOG: LOG_COLUMNS}
        if upstream is not None:
            # It may have been renamed since the text was written.
            called = stream_in(build.definition, {upstream.projection})
            streams = {called: columns_of(conn, upstream)}
        plan = from_source(build.projection, build.definition, streams, {}).plan.kept_as(build.upkeep)
        columns = kept_reads(conn, build.build_id)
        if columns is not None:
            plan = plan.reading(columns)
        if build.retained:
            plan = retained(plan, build.build_id)
        statements = generate(plan, stream, build.table_name, outbox, based=build.based)
        return CompiledBuild(
            build.build_id,
            build.upstream_id,
            plan,
            stream,
            statements,
            sinks=tuple(build.sinks),
            based=build.based,
            retained=build.retained,
        )

    def _transform(self, build: Build, upstream: Build | None) -> Transform:
        known = self._definition(build)
        if known is None or known.transform is None:
            raise BuildError(
                f"the transform {build.projection} is not in {self._folder or 'any given folder'}",
                remedy="Name the deployed folder with --projections DIR.",
            )
        if known.fingerprint != build.fingerprint and not self._renamed(build, upstream):
            raise BuildError(
                f"{known.path}, or a module that it imports, differs from the deployed build {build.table_name}",
                remedy="Run `refold deploy`, or give this worker the deployed version of the files.",
            )
        transform = known.transform
        return replace(transform, function=gentle(transform.function)) if self._gently else transform

    def _definition(self, build: Build) -> Definition | None:
        """Return what this machine calls by the build's name."""
        known = self._definitions.get(build.projection)
        if (known is None or known.fingerprint != build.fingerprint) and self._folder is not None:
            # Mistakes in other files are of no consequence to this build.
            loading = load(self._folder)
            self._definitions = loading.definitions
            known = loading.only(build.projection)
        if known is None:
            # `refold deploy --starters` may have deployed it from a project that has a folder of its own.
            delivered = load(projections_dir()).definitions.get(build.projection)
            if delivered is not None and delivered.fingerprint == build.fingerprint:
                return delivered
        return known

    def _renamed(self, build: Build, upstream: Build | None) -> bool:
        """Return whether the code is that of a build, except for names that changed since."""
        names = {
            one.projection: projection_of(one.table_name)
            for one in (build, upstream)
            if one is not None and projection_of(one.table_name) != one.projection
        }
        if not names or self._folder is None:
            return False
        then = as_called(self._folder, names).get(projection_of(build.table_name))
        return then is not None and then.fingerprint == build.fingerprint


def columns_of(conn: psycopg.Connection, build: Build) -> tuple[str, ...]:
    """Return the columns that readers of an event-grain build may use."""
    rows = conn.execute(
        """
        SELECT attname FROM pg_attribute
        WHERE attrelid = to_regclass('refold_builds.' || quote_ident(%s)) AND attnum > 0 AND NOT attisdropped
          AND attname NOT IN ('txid', 'position', 'ordinal')
        ORDER BY attnum
        """,
        (build.table_name,),
    ).fetchall()
    return tuple(str(name) for (name,) in rows)
