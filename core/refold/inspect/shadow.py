"""A transform's new function over a sample of the events that the live build has applied, beside the rows of the build.

Nothing is written: the question is asked before any table of the new function exists.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from refold.engine.apply.copy_rows import texts
from refold.engine.apply.decoding import decoded
from refold.engine.reconcile.audit import parameters_of
from refold.errors import BuildError
from refold.inspect.lineage.snapshot import reading
from refold.model.projection.definition import load
from refold.model.projection.failure import FunctionFailed
from refold.model.projection.transform import Transform
from refold.model.sql_text import ident
from refold.model.stream.copy_text import array
from refold.model.stream.page_sql import Stream
from refold.model.upkeep.transform import applied_rows
from refold.postgres.rows import one_row
from refold.store.builds.build import Build, by_id, live_builds
from refold.store.builds.compiled import columns_of, stream_of
from refold.store.builds.lookup import known

TIMEOUT_S = 300.0
"""Time limit of a statement, seconds."""


@dataclass(frozen=True, slots=True)
class ShadowSample:
    """A row that differs, or an event on which the function fails.

    Args:
        kind: `modified`, `added`, `removed` or `raised`.
        row_id: the id of the row; that of the event, unless a transform makes several rows of it.
        before: the fields of the live row that differ, as texts; all of them for a row that is removed.
        after: the same of the new row.
        error: what the function raised.
    """

    kind: str
    row_id: str
    before: Mapping[str, str | None] | None = None
    after: Mapping[str, str | None] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Shadow:
    """What the new function makes of the sample.

    Args:
        metric: the transform.
        table: the table of its live build.
        events: events of the sample.
        rows: how many rows are `identical`, `modified`, `added` and `removed`, and how many events `raised`.
        fields: in how many modified rows each field differs.
        new_fields: fields that the live build does not have.
        gone_fields: fields that only the live build has.
        function_us: time of the new function for an event, microseconds.
        live_us: time of the live build's pages for an event, microseconds; it includes reading and writing.
        samples: the first of each kind.
    """

    metric: str
    table: str
    events: int
    rows: Mapping[str, int]
    fields: Mapping[str, int]
    new_fields: tuple[str, ...]
    gone_fields: tuple[str, ...]
    function_us: float | None
    live_us: float | None
    samples: tuple[ShadowSample, ...]

    @property
    def same(self) -> bool:
        """Return whether nothing differs in the sample."""
        return not self.new_fields and not self.gone_fields and set(self.rows) <= {"identical"}


def shadow(
    conn: psycopg.Connection,
    folder: Path,
    name: str,
    *,
    events: int = 20_000,
    since: datetime | None = None,
    samples: int = 5,
) -> Shadow:
    """Return what the function in a transform's file makes of a sample, beside the rows of the live build.

    The sample has the oldest and the newest events of each action.

    Args:
        conn: acts as one of `EVIDENCE`, in autocommit mode.
        folder: the folder of projections.
        name: the transform.
        events: about how many events to take.
        since: the earliest time of an event.
        samples: most rows of each kind to return.

    Raises:
        BuildError: it is not live, or not a transform.
        DefinitionError: its file is wrong.
    """
    build = known(name, {one.projection: one for one in live_builds(conn)})
    definition = load(folder).only(name)
    if build.language != "python" or definition is None or definition.transform is None:
        raise BuildError(
            f"{name} is not a transform with a file in {folder}",
            remedy=f"For a query: `refold deploy --no-promote`, then `refold diff {name}`.",
        )
    with reading(conn, TIMEOUT_S):
        return _Shadow(conn, by_id(conn, build.build_id), definition.transform).answer(events, since, samples)


class _Shadow:
    def __init__(self, conn: psycopg.Connection, build: Build, transform: Transform) -> None:
        self.conn = conn
        self.build = build
        self.transform = transform
        upstream = None if build.upstream_id is None else by_id(conn, build.upstream_id)
        self.stream: Stream = stream_of(upstream)
        self.parameters: dict[str, Any] = dict(parameters_of(conn, build))
        self.old = [column for column in columns_of(conn, build) if column != "event_id"]
        self.new = [column.name for column in transform.plan.columns if column.name != "event_id"]

    def answer(self, events: int, since: datetime | None, samples: int) -> Shadow:
        chosen = self._sample(events, since)
        made, errors, spent, number = self._evaluate(chosen)
        counts: Counter[str] = Counter()
        fields: Counter[str] = Counter()
        found: list[ShadowSample] = []

        def note(sample: ShadowSample) -> None:
            counts[sample.kind] += 1
            if counts[sample.kind] <= samples:
                found.append(sample)

        for row_id, error in errors.items():
            note(ShadowSample("raised", row_id, error=error))
        failed = set(errors)
        both = [name for name in self.old if name in self.new]
        standing = self._standing(chosen)
        same = self._compared(made, both)
        for row_id, after in made.items():
            before = standing.get(row_id)
            if before is None:
                note(ShadowSample("added", row_id, None, after))
                continue
            differs = [name for name, equal in zip(both, same[row_id], strict=True) if not equal]
            fields.update(differs)
            if differs:
                note(
                    ShadowSample(
                        "modified",
                        row_id,
                        {name: before[name] for name in differs},
                        {name: after[name] for name in differs},
                    )
                )
            else:
                counts["identical"] += 1
        for row_id, before in standing.items():
            if row_id not in made and row_id not in failed and row_id.rpartition("#")[0] not in failed:
                note(ShadowSample("removed", row_id, before, None))
        applied = self.build.events_applied
        return Shadow(
            self.build.projection,
            self.build.table_name,
            number,
            dict(counts),
            dict(fields),
            tuple(name for name in self.new if name not in self.old),
            tuple(name for name in self.old if name not in self.new),
            spent / number * 1e6 if number else None,
            self.build.apply_ms / applied * 1000 if applied and self.build.apply_ms else None,
            tuple(found),
        )

    def _sample(self, events: int, since: datetime | None) -> dict[str, Any]:
        """Return the coordinates of the oldest and the newest events of each action, as parameters."""
        by = "PARTITION BY action " if "action" in self._stream_columns() else ""
        carried = "txid, position, action" if by else "txid, position, 1 AS action"
        recent = "" if since is None else " AND ts >= %(since)s::timestamptz"
        rows = self.conn.execute(
            (
                f"WITH read AS (\n    SELECT {carried} FROM {self.stream.table}\n"
                f"    WHERE {self.stream.applied()}{recent}\n), placed AS (\n"
                f"    SELECT txid, position, row_number() OVER ({by}ORDER BY txid, position) AS old,\n"
                f"           row_number() OVER ({by}ORDER BY txid DESC, position DESC) AS new\n"
                "    FROM read\n), shares AS (\n"
                "    SELECT greatest(%(events)s / (2 * greatest(count(DISTINCT action), 1)), 1) AS share FROM read\n)\n"
                "SELECT DISTINCT txid::text, position FROM placed, shares WHERE old <= share OR new <= share"
            ).encode(),
            {**self.parameters, "events": events, "since": None if since is None else since.isoformat()},
        ).fetchall()
        return {"txids": [txid for txid, _ in rows], "positions": [position for _, position in rows]}

    def _stream_columns(self) -> set[str]:
        cursor = self.conn.execute(f"SELECT * FROM {self.stream.table} LIMIT 0".encode())
        return {column.name for column in cursor.description or ()}

    def _evaluate(
        self, chosen: Mapping[str, Any]
    ) -> tuple[dict[str, dict[str, str | None]], dict[str, str], float, int]:
        """Return the new rows and the errors, both by id; seconds in the function; and the number of events."""
        among = "(txid, position) IN (SELECT * FROM unnest(%(txids)s::xid8[], %(positions)s::bigint[]))"
        query = applied_rows(self.transform, self.stream, since=False, condition=among)
        made: dict[str, dict[str, str | None]] = {}
        errors: dict[str, str] = {}
        spent, number = 0.0, 0
        with closing(decoded(self.conn, query, {**self.parameters, **chosen})) as rows:
            for row in list(rows):
                number += 1
                began = time.perf_counter()
                try:
                    found = list(self.transform.rows([row]))
                    values = [texts(self.conn, one) for one in found]
                except FunctionFailed as error:
                    errors[str(row["event_id"])] = str(error)
                    continue
                finally:
                    spent += time.perf_counter() - began
                for one, written in zip(found, values, strict=True):
                    made[one[3]] = dict(zip(self.new, written[4:], strict=True))
        return made, errors, spent, number

    def _standing(self, chosen: Mapping[str, Any]) -> dict[str, dict[str, str | None]]:
        """Return the rows of the live build that were made of the sample, by id."""
        columns = "".join(f", {ident(name)}::text" for name in self.old)
        rows = self.conn.execute(
            f"SELECT event_id{columns} FROM refold_builds.{ident(self.build.table_name)} WHERE (txid, position) IN"
            " (SELECT * FROM unnest(%(txids)s::xid8[], %(positions)s::bigint[]))".encode(),
            chosen,
        ).fetchall()
        return {str(row_id): dict(zip(self.old, values, strict=True)) for row_id, *values in rows}

    def _compared(self, made: Mapping[str, Mapping[str, str | None]], both: list[str]) -> dict[str, list[bool]]:
        """Return for each new row which fields equal those of the live row, by the types of the live table."""
        table = f"refold_builds.{ident(self.build.table_name)}"
        given = {"ids": array(made)} | {
            f"made_{at}": [row[name] for row in made.values()] for at, name in enumerate(both)
        }
        types = self.conn.execute(
            "SELECT attname::text, atttypid::regtype::text FROM pg_attribute WHERE attrelid = %s::regclass", (table,)
        ).fetchall()
        old = {str(name): str(kind) for name, kind in types}
        declared = dict(zip(self.new, self.transform.types, strict=True))
        listed = ", ".join(f"pg_typeof(NULL::{declared[name]})::text" for name in both)
        (kinds,) = one_row(self.conn, f"SELECT ARRAY[{listed}]::text[]".encode())
        lists = "".join(f", %(made_{at})s::text[]" for at in range(len(both)))
        names = "".join(f", c{at}" for at in range(len(both)))
        equal = ", ".join(
            # Of different types, by their texts: there need not be a cast from one to the other.
            f"n.c{at}::{declared[name]} IS NOT DISTINCT FROM o.{ident(name)}"
            if old[name] == kinds[at]
            else f"(n.c{at}::{declared[name]})::text IS NOT DISTINCT FROM o.{ident(name)}::text"
            for at, name in enumerate(both)
        )
        rows = self.conn.execute(
            f"SELECT n.id, ARRAY[{equal}]::boolean[] FROM unnest(%(ids)s::text[]{lists}) AS n (id{names})"
            f' JOIN {table} AS o ON o.event_id = n.id COLLATE "C"'.encode(),
            given,
        ).fetchall()
        return {str(row_id): list(flags) for row_id, flags in rows}
