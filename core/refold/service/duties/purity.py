"""The duty that detects impure transforms: the same event gives another row when it is evaluated again.

A sample of the events that a build applied last is evaluated twice, the second time in the opposite order. That
exposes a function that depends on earlier events, on the clock or on random numbers. Postgres compares the rows, by
value and with the types of the table (1.0 is 1.00, NaN is NaN). A stored row that differs proves nothing, because
anything may have changed it. A row that reconcile stored when it healed came from the function, so it is compared, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row

from refold.engine.apply.copy_rows import write_rows
from refold.engine.apply.decoding import decoded
from refold.errors import BuildError
from refold.model.projection.transform import Transform
from refold.model.sql_text import ident
from refold.model.stream.parameters import cursor_parameters
from refold.model.upkeep.transform import applied_rows
from refold.service.duties.findings import DutyFinding
from refold.store.builds.build import Build, kept
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.builds.dead_letters import excluded_event_ids
from refold.store.incidents import detect, open_incidents, resolve
from refold.store.schema.settings import read_settings

NAME = "purity"
LOOKED_BACK = 100_000
"""Latest repairs that are searched for events of the sample."""
NAMED = 10
"""Most events that the evidence names."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that differs between two evaluations.

    Args:
        event_id: id of the event.
        fields: columns that differ; empty if only one evaluation has the row.
        against: `again` (two evaluations now) or `healed before` (the row that reconcile computed).
    """

    event_id: str
    fields: list[str]
    against: str


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Open the incidents `impure_transform`, and resolve those of builds that are no longer kept up to date."""
    size = read_settings(conn).impure_sample
    builds = kept(conn)
    for build in builds:
        if build.language == "python" and build.loaded and size:
            try:
                compiled = compiler.of(conn, build)
            except BuildError:
                # Its code is not here; a worker that has it looks.
                continue
            finding = impure(build, _differences(conn, compiled, build, size))
            if finding is not None:
                detect(conn, "impure_transform", finding.subject, by=NAME, evidence=finding.evidence)
    gone = {build.table_name for build in builds}
    for incident in open_incidents(conn, "impure_transform"):
        if incident.subject not in gone:
            outcome = {"because": "the build is no longer kept up to date"}
            resolve(conn, incident.kind, incident.subject, by=NAME, outcome=outcome)


def impure(build: Build, differences: Sequence[Difference]) -> DutyFinding | None:
    """Return the finding for the differences of a build. Pure."""
    if not differences:
        return None
    fields = sorted({field for one in differences for field in one.fields})
    evidence = {
        "projection": build.projection,
        "events": [one.event_id for one in differences[:NAMED]],
        "fields": fields or ["(the row itself)"],
        "against": sorted({one.against for one in differences}),
        "remedy": "Make the transform depend on its event alone, then run `refold deploy`.",
    }
    return DutyFinding(build.table_name, None, evidence)


def _differences(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, size: int) -> list[Difference]:
    """Evaluate a sample twice and compare the rows, in one transaction that is rolled back."""
    assert compiled.transform is not None
    with conn.transaction(force_rollback=True):
        page = _sample(conn, compiled, build, size)
        if not page:
            return []
        columns = compiled.statements.relations[0].columns
        first = [_rows(compiled.transform, row) for row in page]
        second = [_rows(compiled.transform, row) for row in page[::-1]][::-1]
        both = [pair for pair in zip(first, second, strict=True) if None not in pair]
        _write(conn, compiled, "first_evaluation", [row for rows, _ in both for row in rows or ()])
        _write(conn, compiled, "second_evaluation", [row for _, rows in both for row in rows or ()])
        with conn.cursor(row_factory=class_row(Difference)) as cursor:
            query = _compare(compiled, [name for name in columns if name not in ("txid", "position", "event_id")])
            return cursor.execute(query.encode(), {"build_id": build.build_id}).fetchall()


def _sample(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, size: int) -> list[dict[str, Any]]:
    """Return the stream rows of the last applied events."""
    assert compiled.transform is not None
    # Its dead letters may be such as cannot even be read.
    parameters: dict[str, Any] = cursor_parameters(build.cursor, excluded_event_ids(conn, build))
    recent = conn.execute(
        f"SELECT DISTINCT txid::text::bigint, position FROM ("
        f"SELECT txid, position FROM {compiled.stream.table} WHERE {compiled.stream.applied()}"
        f" ORDER BY txid DESC, position DESC LIMIT %(size)s) AS latest".encode(),
        parameters | {"size": size},
    ).fetchall()
    if not recent:
        return []
    among_them = "(txid, position) IN (SELECT * FROM unnest(%(txids)s::xid8[], %(positions)s::bigint[]))"
    query = applied_rows(compiled.transform, compiled.stream, since=False, condition=among_them)
    txids, positions = zip(*recent, strict=True)
    chosen = {"txids": [str(txid) for txid in txids], "positions": list(positions)}
    return list(decoded(conn, query, parameters | chosen))


def _rows(transform: Transform, row: dict[str, Any]) -> list[tuple[Any, ...]] | None:
    """Apply the transform to one row of the stream; None if the function fails, as it does for a dead letter."""
    try:
        return list(transform.rows([row]))
    except Exception:
        return None


def _write(conn: psycopg.Connection, compiled: CompiledBuild, table: str, rows: list[tuple[Any, ...]]) -> None:
    relation = compiled.statements.relations[0]
    conn.execute(f"CREATE TEMPORARY TABLE {table} (LIKE {relation.table}) ON COMMIT DROP".encode())
    columns = ", ".join(map(ident, relation.columns))
    write_rows(conn, f"COPY pg_temp.{table} ({columns}) FROM STDIN", rows)


def _compare(compiled: CompiledBuild, columns: Sequence[str]) -> str:
    """Return the statement that compares the evaluations, and the first one with rows that reconcile computed."""
    # Columns are fields of a model, and so plain identifiers.
    differing = ", ".join(
        f"CASE WHEN a.{ident(name)} IS DISTINCT FROM b.{ident(name)} THEN '{name}' END" for name in columns
    )
    fields = f"array_remove(ARRAY[{differing}]::text[], NULL)"
    twice = f"""
        SELECT coalesce(a.event_id, b.event_id) AS event_id,
               CASE WHEN a.event_id IS NULL OR b.event_id IS NULL THEN '{{}}' ELSE {fields} END AS fields,
               'again' AS against
        FROM pg_temp.first_evaluation AS a
        FULL JOIN pg_temp.second_evaluation AS b ON b.event_id = a.event_id
        WHERE a.event_id IS NULL OR b.event_id IS NULL OR {fields} <> '{{}}'
    """
    # An event of the log never changes; a row of another stream may have been healed since.
    if compiled.upstream_id is not None:
        return twice
    return f"""{twice}
        UNION ALL
        SELECT event_id, fields, 'healed before'
        FROM (
            SELECT a.event_id, {fields} AS fields
            FROM pg_temp.first_evaluation AS a
            JOIN (
                SELECT DISTINCT ON (r.key ->> 'event_id') r.after
                FROM refold.repairs AS r
                WHERE r.build_id = %(build_id)s AND jsonb_typeof(r.after) = 'object'
                  AND r.repair_id > (SELECT max(repair_id) - {LOOKED_BACK} FROM refold.repairs)
                ORDER BY r.key ->> 'event_id', r.repair_id DESC
            ) AS healed ON healed.after ->> 'event_id' = a.event_id
            CROSS JOIN LATERAL jsonb_populate_record(NULL::{compiled.statements.relations[0].table}, healed.after) AS b
        ) AS then_and_now
        WHERE fields <> '{{}}'
        ORDER BY 3, 1
    """
