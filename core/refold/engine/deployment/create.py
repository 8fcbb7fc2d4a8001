"""Creating builds: a row in the catalog and an empty table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import psycopg
from psycopg.types.json import Jsonb

from refold.engine.apply import take_over
from refold.engine.deployment.key_indexes import index_streams
from refold.engine.purge.fold import make_tables
from refold.engine.retain import policy
from refold.engine.verify.exactness import refuse_inexact
from refold.engine.verify.readings import refuse_misread
from refold.engine.verify.trial import Unkeepable, refuse_unkeepable
from refold.errors import BuildError, DefinitionError, RefoldError
from refold.model.projection.definition import Definition
from refold.model.upkeep.generate import generate
from refold.model.upkeep.names import table_name
from refold.model.upkeep.statements import Statements
from refold.model.upkeep.transform import statements as transform_statements
from refold.postgres.replica_identity import IDENTITY
from refold.postgres.rows import one_row
from refold.postgres.sqlstate import transient
from refold.store.builds.build import BY_KEY, Build, by_id, live
from refold.store.builds.compiled import stream_of


def new_deployment(
    conn: psycopg.Connection, kind: str, *, promote: bool, views: Mapping[str, str] | None = None
) -> int:
    """Insert a deployment and return its number; its builds and the views of analysts go live together.

    Args:
        conn: a connection that acts as refold_worker.
        kind: deploy, rebuild, promote or rollback.
        promote: whether the builds go live by themselves.
        views: the text of each view's file, by name.
    """
    row = one_row(
        conn,
        "INSERT INTO refold.deployments (kind, promote, views) VALUES (%s, %s, %s) RETURNING deployment",
        (kind, promote, None if views is None else Jsonb(dict(views))),
    )
    return int(row[0])


def make_builds(
    conn: psycopg.Connection,
    definitions: Iterable[Definition],
    deployment: int,
    *,
    resumed: Mapping[str, Build],
    mistakes: list[RefoldError] | None = None,
) -> list[Build]:
    """Create and return an empty build for each definition, in the caller's transaction.

    A definition reads the new build of its upstream if there is one, else the live one.

    Args:
        conn: a connection that acts as refold_worker.
        definitions: the definitions to build, upstream first.
        deployment: number of the deployment with which the builds go live.
        resumed: unfinished builds of this deployment's projections, by name.
        mistakes: receives the errors of definitions; these get no build, nor do the definitions that read them.

    Raises:
        DefinitionError: a definition is refused, and there is no list of mistakes.
    """
    made: dict[str, Build] = dict(resumed)
    wrong: set[str] = set()
    for definition in definitions:
        if definition.upstream in wrong:
            wrong.add(definition.name)
            continue
        try:
            with conn.transaction():
                made[definition.name] = _make(conn, definition, deployment, made)
        except DefinitionError as error:
            if mistakes is None:
                raise
            mistakes.append(error)
            wrong.add(definition.name)
    fresh = [build for name, build in made.items() if name not in resumed]
    index_streams(conn, fresh)
    return fresh


def _make(conn: psycopg.Connection, definition: Definition, deployment: int, made: Mapping[str, Build]) -> Build:
    upstream = None
    if definition.upstream is not None:
        upstream = made.get(definition.upstream) or _live(conn, definition.upstream)
    columns = None
    if definition.transform is None:
        columns = refuse_misread(conn, definition, stream_of(upstream))
        definition = replace(definition, plan=definition.plan.reading(columns))
    build = _insert(conn, definition, deployment, upstream, columns, policy.begins_at(conn, definition))
    if build.based and build.upkeep in BY_KEY and take_over.source_of(conn, build) is None:
        # It would need the purged events of a key again with every new one.
        raise DefinitionError(take_over.missing(build, build.floor), path=definition.path, remedy=take_over.REMEDY)
    _create(conn, definition, statements_of(definition, build, upstream))
    return build


def _live(conn: psycopg.Connection, projection: str) -> Build:
    """Return the live build of a stream, and keep it live until the transaction ends.

    A switch does not see the new reader yet, and would leave it with a retired stream. The lock is the one that the
    reader's foreign key takes: pages go on, and the switch waits.
    """
    while True:
        found = live(conn, projection)
        if found is None:
            raise BuildError(f"{projection} is no longer live", remedy="Run the command again.")
        row = conn.execute(
            "SELECT state FROM refold.builds WHERE build_id = %s FOR KEY SHARE", (found.build_id,)
        ).fetchone()
        if row is not None and row[0] == "live":
            return found


def _insert(
    conn: psycopg.Connection,
    definition: Definition,
    deployment: int,
    upstream: Build | None,
    columns: Sequence[str] | None,
    retained_from: int | None,
) -> Build:
    # A renamed metric keeps the names of its tables, so their numbers are taken too.
    row = one_row(
        conn,
        """
        SELECT coalesce(max(greatest(number, substring(table_name FROM '[0-9]+$')::integer)), 0) + 1
        FROM refold.builds WHERE projection = %s OR starts_with(table_name, %s)
        """,
        (definition.name, f"{definition.name}__"),
    )
    number = int(row[0])
    row = one_row(
        conn,
        """
        WITH made AS (
            INSERT INTO refold.builds
                (projection, fingerprint, number, table_name, language, definition, upkeep, upstream_id, reads,
                 deployment, floor, retained_from)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, CASE WHEN %s THEN refold.log_floor() ELSE 1 END, %s)
            RETURNING build_id
        )
        INSERT INTO refold.cursors (build_id, number) SELECT build_id, 0 FROM made RETURNING build_id
        """,
        (
            definition.name,
            definition.fingerprint,
            number,
            table_name(definition.name, definition.fingerprint, number),
            definition.language,
            definition.source,
            definition.plan.upkeep,
            None if upstream is None else upstream.build_id,
            None if columns is None else list(columns),
            deployment,
            upstream is None,
            retained_from,
        ),
    )
    return by_id(conn, int(row[0]))


def statements_of(definition: Definition, build: Build, upstream: Build | None) -> Statements:
    """Return the SQL of a build that was created from a definition."""
    stream = stream_of(upstream)
    if definition.transform is not None:
        return transform_statements(definition.transform, stream, build.table_name, based=build.based)
    return generate(definition.plan, stream, build.table_name, based=build.based)


def _create(conn: psycopg.Connection, definition: Definition, statements: Statements) -> None:
    try:
        with conn.transaction():
            for statement in (*statements.create, *statements.keys):
                conn.execute(statement.encode(), {})
            if statements.base is not None and statements.counted:
                make_tables(conn, statements.base)
            for relation in statements.relations:
                conn.execute(f"ALTER TABLE {relation.table} {IDENTITY}".encode())
                conn.execute(f"GRANT SELECT ON {relation.table} TO refold_inspector".encode())
    except psycopg.Error as error:
        if transient(error):
            raise
        raise DefinitionError(
            f"Postgres refuses the definition: {error.diag.message_primary or error}", path=definition.path
        ) from error
    table = statements.relations[0].table
    if definition.plan.event_grain:
        conn.execute(
            (
                f"CREATE TRIGGER notify_sleepers AFTER INSERT ON {table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION refold.notify_sleepers()"
            ).encode()
        )
    refuse_inexact(conn, definition, statements)
    try:
        refuse_unkeepable(conn, statements, audited=definition.transform is None)
    except Unkeepable as error:
        raise DefinitionError(str(error), path=definition.path, remedy=error.remedy) from error
    if definition.plan.description:
        conn.execute(psycopg.sql.SQL("COMMENT ON TABLE {} IS {}").format(
            psycopg.sql.SQL(table), psycopg.sql.Literal(definition.plan.description)))  # fmt: skip
